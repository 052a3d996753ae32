"""Asset checks: what must hold for the tables after a sync. One per entity and question. They only read.

A check covers every account of the database and names those that fail: in this version of Dagster, checks of
partitions are a preview, and a check without partitions keeps only one result.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import dagster as dg
import psycopg

from pipelines.accounts.registry import active_accounts, all_accounts
from pipelines.accounts.target import Connection
from pipelines.bi import builder
from pipelines.bi.state import view_faults
from pipelines.entities.record_kinds import HISTORY_TABLES
from pipelines.entities.registry import ACCOUNT_ENTITY, ENTITIES
from pipelines.entities.spec import Entity
from pipelines.history.rebuild import Consistency, consistency
from pipelines.installation import open_installation
from pipelines.orchestration.partitions import list_key, view_key
from pipelines.schema.references import ReferenceStats, measure_references, soft_references
from pipelines.schema.tables import table_schema_of
from pipelines.sync.run_log import last_runs, staleness

MIN_RESOLVED_SHARE = 0.95
"""Smallest share of a column's references that must resolve."""
REFERENCES, HISTORY, FRESH, EQUAL, ACCESS = (
    "references_resolve", "history_is_consistent", "is_fresh", "equals_the_account", "has_access")
CURRENT = "is_current"
USERS = "users"
WITH_REFERENCES = [entity for entity in ENTITIES
                   if next(soft_references(table_schema_of(entity.model).table), None)]
NEEDS_MIGRATION = "its tables are not up to date: run `amocrm-mirror migrate`"
NEVER_VERIFIED = "never verified: run `amocrm-mirror verify`"
NOT_COMPARED = "not compared: "
LAST_VERIFICATION = """
SELECT state, coalesce(reason, ''), missing, extra, stale, compared,
       to_char(began_at, 'YYYY-MM-DD HH24:MI TZ'), to_char(ended_at, 'HH24:MI TZ')
FROM mirror.verifications WHERE account = %s AND entity = %s ORDER BY began_at DESC LIMIT 1"""
WITH_HISTORY = [entity for entity in ENTITIES if entity.name in HISTORY_TABLES]
CheckResult = tuple[str, str]
"""A check's result for one account: the reason for failure (empty: passed), and the details."""
CheckFunction = Callable[[Connection, str, str, Entity], CheckResult]
"""(connection, the account's name, its schema, entity) → result."""


def check_specs(name: str, entities: Sequence[Entity], description: str) -> list[dg.AssetCheckSpec]:
    return [dg.AssetCheckSpec(name, asset=list_key(entity.name), description=description)
            for entity in entities]


def check_results(context: dg.AssetCheckExecutionContext, name: str,
                  check: CheckFunction) -> Iterator[dg.AssetCheckResult]:
    """Runs `check` for every selected entity in every account, and yields one result per entity: its
    description names the accounts that fail, its metadata holds the details of all accounts."""
    selected = {key.asset_key for key in context.selected_asset_check_keys if key.name == name}
    mirror = open_installation()
    with mirror.connect_autocommit() as connection:
        known_accounts = active_accounts(connection, mirror.account)
        for entity in (each for each in ENTITIES if list_key(each.name) in selected):
            results = {each.name: _run_check(check, connection, each.name, each.schema, entity)
                       for each in known_accounts}
            failing = [f"{account}: {why}" for account, (why, _) in results.items() if why]
            if all(details.startswith(NOT_COMPARED) for _, details in results.values()):
                continue  # there is nothing to say, neither good nor bad
            yield dg.AssetCheckResult(passed=not failing, asset_key=list_key(entity.name),
                                      check_name=name, severity=dg.AssetCheckSeverity.WARN,
                                      description=_description(failing, name, results),
                                      metadata={account: details
                                                for account, (_, details) in results.items()})


def _description(failing: Sequence[str], name: str, results: Mapping[str, CheckResult]) -> str | None:
    """Says which accounts fail; of a verification that found everything equal, also of when it is."""
    if failing or name != EQUAL:
        return "; ".join(failing) or None
    return "; ".join(f"{account}: {details}" for account, (_, details) in results.items())


def _run_check(check: CheckFunction, connection: Connection, account: str, schema: str,
               entity: Entity) -> CheckResult:
    try:
        return check(connection, account, schema, entity)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        return NEEDS_MIGRATION, NEEDS_MIGRATION


def check_references(connection: Connection, account: str, schema: str, entity: Entity) -> CheckResult:
    def describe(measured: Iterable[ReferenceStats]) -> str:
        return "; ".join(f"{each.column}: {each.resolved:,} of {each.total:,} found in {each.target} "
                         f"({each.share:.1%})" for each in measured)

    found = measure_references(connection, schema, table_schema_of(entity.model))
    failing = (each for each in found if each.share < MIN_RESOLVED_SHARE
               and each.target.partition(".")[0] != USERS)
    return describe(failing), describe(found)


@dg.multi_asset_check(can_subset=True, specs=check_specs(
    REFERENCES, WITH_REFERENCES,
    f"At least {MIN_RESOLVED_SHARE:.0%} of each column's references resolve. Those to users are counted, and "
    "fail nothing: amoCRM no longer lists users who have left"))
def references_resolve(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Measures, per column, the share of references that resolve."""
    yield from check_results(context, REFERENCES, check_references)


@dg.multi_asset_check(can_subset=True, specs=check_specs(
    HISTORY, WITH_HISTORY, "The last interval of each record that is not deleted matches the record; "
    "intervals neither overlap nor leave gaps; nothing is counted twice"))
def history_is_consistent(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Checks the history tables, per kind of record."""
    measured: dict[str, list[Consistency]] = {}

    def check(connection: Connection, account: str, schema: str, entity: Entity) -> CheckResult:
        if schema not in measured:
            measured[schema] = consistency(connection, schema)
        found = [each for each in measured[schema] if each.entity_type == entity.name]
        return ("; ".join(f"{each.name}: {each}" for each in found if each.wrong_rows),
                "; ".join(f"{each.name}: {each}" for each in found))

    yield from check_results(context, HISTORY, check)


@dg.multi_asset_check(can_subset=True, specs=check_specs(
    EQUAL, ENTITIES, "The last `amocrm-mirror verify` compared this list in every account that has it, and "
    "found every row equal to its record, or made it so. Without a verification it fails; of a list that no "
    "account has, it says nothing"))
def equals_the_account(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Reads the result of the last verification, and the time to which it applies."""
    yield from check_results(context, EQUAL, check_verification)


def check_verification(connection: Connection, account: str, schema: str, entity: Entity) -> CheckResult:
    row = connection.execute(LAST_VERIFICATION, [account, entity.name]).fetchone()
    if row is None:
        return NEVER_VERIFIED, NEVER_VERIFIED
    state, reason, missing, extra, stale, compared, began, ended = row
    if state == "skipped":
        return "", f"{NOT_COMPARED}{reason or 'skipped'}"
    summary = (f"{state}{f' ({reason})' if reason else ''}: {missing:,} missing, {extra:,} extra, "
               f"{stale:,} stale of {compared:,} compared, true of {began} to {ended}")
    return "" if state in ("equal", "repaired") else summary, summary


@dg.multi_asset_check(can_subset=True, specs=check_specs(
    FRESH, ENTITIES, "Complete up to a time at most MIRROR_FRESH_HOURS ago"))
def is_fresh(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Reads from mirror.sync_runs up to when each list is complete."""
    hours = open_installation().settings.mirror_fresh_hours

    def check(connection: Connection, account: str, schema: str, entity: Entity) -> CheckResult:
        run = last_runs(connection, account, [entity.name]).get(entity.name)
        why = staleness(run, hours)
        if why or run is None:
            return why, why
        return "", (f"skipped: {run['reason']}" if run["state"] == "skipped"
                    else f"complete up to {run['lag_seconds']} s ago")

    yield from check_results(context, FRESH, check)


@dg.multi_asset_check(can_subset=True, specs=check_specs(
    ACCESS, [ACCOUNT_ENTITY], "amoCRM grants access to every account that is not paused"))
def has_access(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Reads whether amoCRM has blocked an account, refused its token, or reported that its access was
    revoked."""
    def check(connection: Connection, account: str, schema: str, entity: Entity) -> CheckResult:
        standing = next((each.not_synced_reason for each in all_accounts(connection) if each.name == account),
                        "")
        return standing, standing or "yes"

    yield from check_results(context, ACCESS, check)


@dg.multi_asset_check(can_subset=True, specs=[
    dg.AssetCheckSpec(CURRENT, asset=view_key(name),
                      description="The view's last rebuild succeeded")
    for name in builder.view_tables()])
def is_current(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Reads which BI views could not be rebuilt, and why."""
    wanted = {key.asset_key.path[-1] for key in context.selected_asset_check_keys if key.name == CURRENT}
    mirror = open_installation()
    with mirror.connect_autocommit() as connection:
        found = [(each.name, view, why) for each in active_accounts(connection, mirror.account)
                 for view, why in _view_faults(connection, each.schema).items()]
    for name in (each for each in builder.view_tables() if each in wanted):
        failing = [f"{account}: view {view}: {why}" for account, view, why in found
                   if builder.view_group(view) == name]
        yield dg.AssetCheckResult(passed=not failing, asset_key=view_key(name), check_name=CURRENT,
                                  severity=dg.AssetCheckSeverity.WARN,
                                  description="; ".join(failing) or None)


def _view_faults(connection: Connection, schema: str) -> dict[str, str]:
    try:
        return view_faults(connection, schema)
    except psycopg.errors.UndefinedTable:
        return dict.fromkeys(builder.view_tables(), NEEDS_MIGRATION)


CHECKS = (references_resolve, history_is_consistent, is_fresh, equals_the_account, has_access, is_current)
