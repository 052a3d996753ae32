"""Asset checks: what is true of the tables after a sync. One per entity and question; they read, and never change anything.

A check speaks for every account of the database and names those that fail: checks of partitions are a preview in this version of Dagster, and
a check without partitions keeps one answer only.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import dagster as dg
import psycopg

from pipelines.accounts.registry import known
from pipelines.bi import builder
from pipelines.bi.state import faults
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from pipelines.history.capture import KINDS
from pipelines.history.rebuild import Consistency, consistency
from pipelines.installation import open_mirror
from pipelines.orchestration.partitions import PREFIX, VIEWS
from pipelines.schema.references import Resolved, references_of, resolved
from pipelines.schema.tables import shape
from pipelines.sync.run_log import Connection, accounts, last_runs, stale

ENOUGH = 0.95
REFERENCES, HISTORY, FRESH, EQUAL, ACCESS = "references_resolve", "history_is_consistent", "is_fresh", "equals_the_account", "has_access"
CURRENT = "is_current"
WITH_REFERENCES = [entity for entity in ENTITIES if next(references_of(shape(entity.model).table), None)]
OUTDATED = "its tables are not up to date: run `amocrm-mirror migrate`"
WITH_HISTORY = [entity for entity in ENTITIES if entity.name in KINDS.values()]
Said = tuple[str, str]
"""Why it fails (empty: it passes), and all that there is to tell."""


def specs(name: str, entities: Sequence[Entity], description: str) -> list[dg.AssetCheckSpec]:
    return [dg.AssetCheckSpec(name, asset=[PREFIX, entity.name], description=description) for entity in entities]


def judged(context: dg.AssetCheckExecutionContext, name: str, ask: Callable[[Connection, str, str, Entity], Said]) -> Iterator[dg.AssetCheckResult]:
    """The selected entities, each in every account. A result's description names the accounts that fail, its metadata tells of all."""
    wanted = {key.asset_key for key in context.selected_asset_check_keys if key.name == name}
    mirror = open_mirror()
    with psycopg.connect(mirror.conninfo, autocommit=True) as connection:
        there = accounts(connection, mirror.account)
        for entity in (each for each in ENTITIES if dg.AssetKey([PREFIX, each.name]) in wanted):
            said = {each.name: _asked(ask, connection, each.name, each.schema, entity) for each in there}
            failing = [f"{account}: {why}" for account, (why, _) in said.items() if why]
            yield dg.AssetCheckResult(passed=not failing, asset_key=[PREFIX, entity.name], check_name=name, severity=dg.AssetCheckSeverity.WARN,
                                      description="; ".join(failing) or None, metadata={account: told for account, (_, told) in said.items()})


def _asked(ask: Callable[[Connection, str, str, Entity], Said], connection: Connection, account: str, schema: str, entity: Entity) -> Said:
    try:
        return ask(connection, account, schema, entity)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        return OUTDATED, OUTDATED


def references(connection: Connection, account: str, schema: str, entity: Entity) -> Said:
    def told(measured: Iterable[Resolved]) -> str:
        return "; ".join(f"{each.column}: {each.found:,} of {each.named:,} found in {each.target} ({each.share:.1%})" for each in measured)

    found = resolved(connection, schema, shape(entity.model))
    return told(each for each in found if each.share < ENOUGH), told(found)


@dg.multi_asset_check(can_subset=True, specs=specs(
    REFERENCES, WITH_REFERENCES, f"At least {ENOUGH:.0%} of what each column refers to is there; users who left are the usual rest"))
def references_resolve(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Measures, per column, the share of references that resolve."""
    yield from judged(context, REFERENCES, references)


@dg.multi_asset_check(can_subset=True, specs=specs(
    HISTORY, WITH_HISTORY, "The last interval of each living record is what the record is; intervals neither overlap nor leave gaps; nothing is "
    "counted twice"))
def history_is_consistent(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Measures the history tables, per kind of record."""
    measured: dict[str, list[Consistency]] = {}

    def ask(connection: Connection, account: str, schema: str, entity: Entity) -> Said:
        if schema not in measured:
            measured[schema] = consistency(connection, schema)
        found = [each for each in measured[schema] if each.entity_type == entity.name]
        return "; ".join(f"{each.name}: {each}" for each in found if each.wrong), "; ".join(f"{each.name}: {each}" for each in found)

    yield from judged(context, HISTORY, ask)


@dg.multi_asset_check(can_subset=True, specs=specs(EQUAL, ENTITIES, "The last `amocrm-mirror verify` found every row equal to its record"))
def equals_the_account(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Looks up what the last verification found, and of which time it is true."""
    yield from judged(context, EQUAL, verified)


def verified(connection: Connection, account: str, schema: str, entity: Entity) -> Said:
    row = connection.execute(
        "SELECT state, coalesce(reason, ''), missing, extra, stale, compared, to_char(began_at, 'YYYY-MM-DD HH24:MI TZ'), "
        "to_char(ended_at, 'HH24:MI TZ') FROM mirror.verifications WHERE account = %s AND entity = %s ORDER BY began_at DESC LIMIT 1",
        [account, entity.name]).fetchone()
    if row is None:
        return "", "never verified: run `amocrm-mirror verify`"
    told = (f"{row[0]}{f' ({row[1]})' if row[1] else ''}: {row[2]:,} missing, {row[3]:,} extra, {row[4]:,} stale of {row[5]:,} compared, "
            f"true of {row[6]} to {row[7]}")
    return "" if row[0] in ("equal", "repaired", "skipped") else told, told


@dg.multi_asset_check(can_subset=True, specs=specs(FRESH, ENTITIES, "Complete up to a moment that is not longer ago than MIRROR_FRESH_HOURS"))
def is_fresh(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Looks up to when each list is complete, by the mirror's own memory."""
    hours = open_mirror().settings.mirror_fresh_hours

    def ask(connection: Connection, account: str, schema: str, entity: Entity) -> Said:
        run = last_runs(connection, account, [entity.name]).get(entity.name)
        why = stale(run, hours)
        if why or run is None:
            return why, why
        return "", f"skipped: {run['reason']}" if run["state"] == "skipped" else f"complete up to {run['lag_seconds']} s ago"

    yield from judged(context, FRESH, ask)


@dg.multi_asset_check(can_subset=True, specs=specs(ACCESS, ENTITIES[:1], "amoCRM lets every account in that is not paused"))
def has_access(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Looks up whether amoCRM has blocked an account, refused its token, or told that access was taken away."""
    def ask(connection: Connection, account: str, schema: str, entity: Entity) -> Said:
        standing = next((each.standing for each in known(connection) if each.name == account), "")
        return standing, standing or "yes"

    yield from judged(context, ACCESS, ask)


@dg.multi_asset_check(can_subset=True, specs=[
    dg.AssetCheckSpec(CURRENT, asset=[VIEWS, name], description="The view could be rebuilt when its definition changed last") for name in builder.names()])
def is_current(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Looks up which views for people could not be rebuilt, and why."""
    wanted = {key.asset_key.path[-1] for key in context.selected_asset_check_keys if key.name == CURRENT}
    mirror = open_mirror()
    with psycopg.connect(mirror.conninfo, autocommit=True) as connection:
        found = [(each.name, view, why) for each in accounts(connection, mirror.account)
                 for view, why in _faults(connection, each.schema).items()]
    for name in (each for each in builder.names() if each in wanted):
        failing = [f"{account}: view {view}: {why}" for account, view, why in found if builder.group_of(view) == name]
        yield dg.AssetCheckResult(passed=not failing, asset_key=[VIEWS, name], check_name=CURRENT, severity=dg.AssetCheckSeverity.WARN,
                                  description="; ".join(failing) or None)


def _faults(connection: Connection, schema: str) -> dict[str, str]:
    try:
        return faults(connection, schema)
    except psycopg.errors.UndefinedTable:
        return dict.fromkeys(builder.names(), OUTDATED)


CHECKS = (references_resolve, history_is_consistent, is_fresh, equals_the_account, has_access, is_current)
