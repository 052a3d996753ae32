"""`amocrm-mirror migrate --all`: migrates every account of the database, several at a time, each in a process
of its own, because Alembic's migrations are global to a process. And which accounts are behind."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal
from sqlalchemy.exc import DBAPIError

from pipelines.accounts import registry
from pipelines.accounts.registry import AccountRecord
from pipelines.bi import all_accounts
from pipelines.errors import MirrorError, describe_fault
from pipelines.failed_migrations import failure_in
from pipelines.installation import Installation
from pipelines.migrate import head, migrate
from pipelines.postgres.errors import describe_postgres_error, one_line
from pipelines.postgres.preflight import connection_budget

Connection = psycopg.Connection[Any]
CONNECTIONS_PER_MIGRATION = 3
SPARE_CONNECTIONS = 5
"""Connections left free for other programs."""
ACCOUNTS_PER_QUERY = 100
"""Accounts whose versions one query reads: it locks that many tables for a moment."""

SELECT_VERSION = "SELECT {}, (SELECT max(version_num) FROM {}), obj_description({}::regclass, 'pg_class')"


@dataclass(frozen=True)
class MigratedAccount:
    """The outcome of one account: its revision before and after, or why it failed."""

    name: str
    before: str | None = None
    after: str | None = None
    failure: str = ""
    notes: tuple[str, ...] = ()
    """Views that could not be built."""

    @property
    def line(self) -> str:
        if self.failure:
            return f"failed: {self.failure}"
        if self.before == self.after:
            return f"up to date ({self.after})"
        return f"{self.after} (was {self.before or 'empty'})"


def migrate_all(mirror: Installation, at_once: int) -> Iterator[MigratedAccount]:
    """Migrates the schema `mirror` and every account that has tables, and yields the outcomes as they come.
    One that fails harms no other; the next run goes on with those that are left."""
    with mirror.connect_autocommit() as connection:
        found = registry.all_accounts(connection)
        free = (connection_budget(connection).free - SPARE_CONNECTIONS) // CONNECTIONS_PER_MIGRATION
    names = [each.name for each in found if each.has_tables] or [mirror.account]
    first = migrated_account(mirror.conninfo, names[0])  # one alone, because it migrates `mirror`, too
    yield first
    rest = names[1:]
    if rest:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pipelines.admin.migrate_accounts"])
        with ProcessPoolExecutor(max(1, min(at_once, free, len(rest))), context) as pool:
            jobs = [pool.submit(migrated_account, mirror.conninfo, name) for name in rest]
            for job in as_completed(jobs):
                yield job.result()


def refresh_views_over_all(mirror: Installation) -> list[str]:
    """Brings the views over all accounts up to date; returns messages about those that stay as they were."""
    with mirror.connect_autocommit() as connection:
        return all_accounts.refresh(connection, recheck=True).kept


def migrated_account(conninfo: str, name: str) -> MigratedAccount:
    """Migrates one account. Every error becomes the outcome's failure."""
    try:
        report = migrate(conninfo, name, all_views=False)
    except (psycopg.Error, DBAPIError) as reason:
        return MigratedAccount(name, failure=describe_postgres_error(reason))
    except MirrorError as reason:
        return MigratedAccount(name, failure=one_line(reason))
    except Exception as reason:
        return MigratedAccount(name, failure=describe_fault(reason))
    failed = tuple(f"{each.view}: {each.reason}" for each in report.views if each.state == "failed")
    return MigratedAccount(name, report.before["account"], report.after["account"], notes=failed)


def verdict(outcomes: Sequence[MigratedAccount]) -> str:
    """Returns the summary of a run."""
    failed = sum(bool(each.failure) for each in outcomes)
    current = sum(not each.failure and each.before == each.after for each in outcomes)
    parts = f"{len(outcomes) - failed - current} migrated, {current} up to date, {failed} failed"
    return (f"{len(outcomes)} accounts: {parts}"
            + (". What had finished is kept; run this again: it goes on with those that are left" if failed
               else ""))


# Who is behind


def versions(connection: Connection, accounts: Iterable[AccountRecord]) -> dict[str, str]:
    """Returns, by account, what is to be said of its tables' version: empty for those that are up to date."""
    there, found, wanted = [each for each in accounts if each.has_tables], dict[str, str](), head("account")
    for start in range(0, len(there), ACCOUNTS_PER_QUERY):
        branches = [SQL(SELECT_VERSION).format(
            Literal(each.name), table := Identifier(each.schema, "alembic_version"),
            Literal(table.as_string(connection)))
                    for each in there[start:start + ACCOUNTS_PER_QUERY]]
        for name, revision, comment in connection.execute(SQL(" UNION ALL ").join(branches)).fetchall():
            failed = failure_in(comment, wanted)
            found[name] = ("" if revision == wanted
                           else f"behind: its migration failed at {failed['at'][:16].replace('T', ' ')} UTC"
                           if failed else "behind: run `amocrm-mirror migrate --all`")
    return found
