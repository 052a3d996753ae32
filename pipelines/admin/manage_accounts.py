"""`amocrm-mirror accounts`: an account comes with its schema, access, partition and place in the views over all accounts, and leaves with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Identifier

from pipelines.accounts import registry
from pipelines.accounts.registry import DEMO, Known
from pipelines.bi import all_accounts
from pipelines.cli.authorize import address
from pipelines.config.settings import validate_schema_name
from pipelines.errors import SyncRefused, WrongUse
from pipelines.installation import NOT_SHARED, Mirror
from pipelines.migrate import migrate
from pipelines.orchestration.instance import with_partition

LAST = """
SELECT a.name, to_char(max(r.finished_at) FILTER (WHERE r.state = 'complete'), 'YYYY-MM-DD HH24:MI TZ'),
       count(*) FILTER (WHERE r.state IN ('failed', 'incomplete') AND r.run_id = newest.run_id)
FROM mirror.accounts a
LEFT JOIN LATERAL (SELECT run_id FROM mirror.sync_runs WHERE account = a.name ORDER BY id DESC LIMIT 1) newest ON true
LEFT JOIN mirror.sync_runs r ON r.account = a.name GROUP BY a.name"""


def add(mirror: Mirror, name: str, given: str, grant: Callable[[Mirror], Iterator[str]]) -> Iterator[str]:
    """`grant` asks a person for access. Where that comes to nothing, nothing is left of the account."""
    added = _new(mirror, name, given)
    was_there = _has_schema(mirror, name)
    migrate(mirror.conninfo, name)
    try:
        yield from grant(added)
    except BaseException:
        if not was_there:
            _undo(mirror, name)
        raise
    with_partition(mirror, name).dispose()
    with mirror.connect_autocommit() as connection:
        yield from all_accounts.refresh(connection).kept
    yield f"{'Next:':<10}schedules take it up by themselves"


def _new(mirror: Mirror, name: str, given: str) -> Mirror:
    try:
        validate_schema_name(name, "the account's name")
    except ValueError as reason:
        raise WrongUse(str(reason)) from None
    if name == DEMO:
        raise WrongUse(f"{DEMO!r} is the demo's: choose another name")
    base_url = address(given)
    with mirror.connect() as connection:
        found = next((each for each in registry.known(connection) if each.name == name), None)
    if found:
        raise WrongUse(f"there is an account {name!r} already, {found.base_url}, and a schema holds one account. Another token for it: "
                       f"`amocrm-mirror auth --account {name}`; another account: choose another name")
    return Mirror(mirror.settings.model_copy(update={**NOT_SHARED, "amocrm_schema": name, "amocrm_base_url": base_url}), f" --account {name}")


def _has_schema(mirror: Mirror, name: str) -> bool:
    with mirror.connect() as connection:
        return connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [name]).fetchone() is not None


def _undo(mirror: Mirror, name: str) -> None:
    """The schema was made a moment ago; another process may have given it an account meanwhile."""
    with mirror.connect() as connection:
        connection.execute("LOCK TABLE mirror.accounts IN SHARE ROW EXCLUSIVE MODE")
        if connection.execute("SELECT FROM mirror.accounts WHERE schema_name = %s", [name]).fetchone() is None:
            connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))


@dataclass(frozen=True)
class Leaving:
    """What goes with an account."""

    account: Known
    schemas: list[str]
    tables: int
    size: str
    forgotten: int
    """People who are kept from coming back."""


def leaving(mirror: Mirror, name: str, keep_data: bool) -> Leaving:
    """Raises WrongUse for an account that there is not, SyncRefused where views of others would go too."""
    with mirror.connect() as connection:
        account = next((each for each in registry.known(connection) if each.name == name), None)
        if account is None:
            raise WrongUse(f"there is no account {name!r} here: `amocrm-mirror accounts list` shows those that there are")
        schemas = registry.schemas_of(connection, account)
        others = [] if keep_data else registry.hanging_on(connection, schemas)
        if others:
            raise SyncRefused(f"{', '.join(others[:5])}{' …' if others[5:] else ''} would go with the tables of {name!r}, and are not the mirror's. "
                              "Nothing was changed. Drop them first, or keep the tables: --keep-data")
        row: Any = connection.execute(
            "SELECT count(*), pg_size_pretty(coalesce(sum(pg_total_relation_size(c.oid)), 0)), (SELECT count(*) FROM mirror.forgotten "
            "WHERE account = %s AND because IS NULL) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname = ANY(%s)", [name, schemas]).fetchone()
    return Leaving(account, schemas, *row)


def remove(mirror: Mirror, gone: Leaving, keep_data: bool) -> Iterator[str]:
    """Its row, tokens, cursors and partition; and its schemas, unless they are kept. No sync of it runs meanwhile."""
    name, drop = gone.account.name, [] if keep_data else gone.schemas
    with mirror.connect() as connection, mirror.connect_autocommit() as own:
        registry.alone(connection, name)
        yield from all_accounts.refresh(own, without=name).kept
        left = registry.hanging_on(connection, drop, ours=True)
        if left:
            raise SyncRefused(f"{', '.join(left[:5])} still reads the tables of {name!r}: see above. Nothing else was changed")
        registry.forget(connection, gone.account, drop)
    with_partition(mirror, gone=name).dispose()
    yield f"{name}: removed" + (f"; its tables stay in {', '.join(gone.schemas)}" if keep_data else "")


def listed(mirror: Mirror) -> list[dict[str, Any]]:
    """Every account with how it stands, when its last complete reading ended, and how many lists of its last run fell short."""
    with mirror.connect() as connection:
        known = registry.known(connection)
        last = {row[0]: row[1:] for row in connection.execute(LAST).fetchall()} if known else {}
    return [{"account": each.name, "address": each.base_url, "account_id": each.account_id, "standing": each.standing or "synced",
             "last_complete": last[each.name][0], "fell_short": last[each.name][1]} for each in known]


def set_paused(mirror: Mirror, name: str, paused: bool) -> str:
    with mirror.connect() as connection:
        if name not in [each.name for each in registry.known(connection)]:
            raise WrongUse(f"there is no account {name!r} here: `amocrm-mirror accounts list` shows those that there are")
        changed = (registry.pause if paused else registry.resume)(connection, name)
    if paused:
        return (f"{name}: {'paused' if changed else 'was paused already'}. No sync starts until `amocrm-mirror accounts resume {name}`; what runs "
                "goes on to its end")
    return f"{name}: {'resumed' if changed else 'was not paused'}. The next sync goes on where it was"
