"""Builds the schema `amocrm_all`: one view per table over all accounts of the database, for reports across
accounts. The views are derived and never migrated; they may be dropped at any time.

    amocrm_all.leads    account (its name here), then the columns of leads; UNION ALL over all account schemas

The views exist from the second account on. They are checked when an account is added or removed and when a
migration has changed tables; only views whose definition has changed are replaced, each in its own
transaction (two hundred accounts hold more tables than one transaction may lock). New columns are appended,
so that CREATE OR REPLACE works and grants and views of others survive. If a column was removed or changed its
type, the view must be dropped and created again; if objects of others depend on it, it is kept and reported.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier, Literal
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from models.base import AccountBase
from pipelines.accounts.registry import DEMO_ACCOUNT, AccountRecord, all_accounts
from pipelines.bi.replace_view import replace_view
from pipelines.postgres.errors import one_line
from pipelines.postgres.locks import ALL_ACCOUNTS_VIEWS_LOCK
from pipelines.schema.names import ALL_ACCOUNTS_SCHEMA

Connection = psycopg.Connection[Any]
MIN_ACCOUNTS = 2
"""Accounts in the database from which on the views exist."""
LOCK_TIMEOUT = "5s"
"""Lock timeout for replacing a view that another session reads."""
REFRESH_TIMEOUT = "30s"
"""Time to wait for another process that replaces the views."""
SELECT_COLUMNS = """
SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = ANY(%s) AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p', 'v')
ORDER BY n.nspname, c.relname, a.attnum"""
SELECT_COMMENTS = """
SELECT relname::text, obj_description(oid, 'pg_class') FROM pg_class
WHERE relnamespace = to_regnamespace(%s) AND relkind = 'v'"""
ColumnTypes = dict[str, str]
"""Column → type, in the column order of a table or view."""
log = logging.getLogger(__name__)


@dataclass
class RefreshResult:
    """Result of a refresh. `changed` are the names of replaced views; `kept` are messages about views that
    were not replaced; `is_retryable` is True if one of them was only locked, so that a retry may succeed."""

    changed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    is_retryable: bool = False


def refresh(connection: Connection, recheck: bool = False, excluding: str = "") -> RefreshResult:
    """Brings the views up to date with the accounts and their tables. Costs one query if the set of accounts
    is unchanged, unless `recheck` forces a check. `excluding` leaves out an account that is about to be
    removed. The connection must be in autocommit mode."""
    accounts = [each for each in all_accounts(connection)
                if each.has_tables and each.name not in (DEMO_ACCOUNT, excluding)]
    found = connection.execute(
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s",
        [ALL_ACCOUNTS_SCHEMA]).fetchone()
    summary = f"Views over all accounts: {', '.join(each.name for each in accounts)}"
    if (len(accounts) < MIN_ACCOUNTS and not found) or (found == (summary,) and not recheck):
        return RefreshResult()
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [REFRESH_TIMEOUT])
    try:
        with ALL_ACCOUNTS_VIEWS_LOCK.hold(connection):
            connection.execute("SELECT set_config('lock_timeout', '0', false)")
            return _refresh(connection, accounts, summary)
    finally:
        if not connection.closed:
            connection.execute("SELECT set_config('lock_timeout', '0', false)")


def refresh_if_new(connection: Connection, account: str) -> None:
    """Like `refresh_or_log`, if the views do not have the account yet. Costs one query."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM (SELECT FROM mirror.accounts LIMIT 2) x), "
        "obj_description(to_regnamespace(%s), 'pg_namespace')", [ALL_ACCOUNTS_SCHEMA]).fetchone()
    shown = (row[1] or "").partition(": ")[2].split(", ") if row else []
    if row and row[0] >= MIN_ACCOUNTS and account not in (DEMO_ACCOUNT, *shown):
        refresh_or_log(connection)


def refresh_or_log(connection: Connection, recheck: bool = False) -> None:
    """Like `refresh`, but logs errors instead of raising them: a sync does not fail because of these
    views."""
    try:
        for reason in refresh(connection, recheck).kept:
            log.warning("%s", reason)
    except psycopg.Error as reason:
        log.warning("the views over all accounts are not brought up to date: %s", one_line(reason))


def _refresh(connection: Connection, accounts: Sequence[AccountRecord], summary: str) -> RefreshResult:
    if not connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [ALL_ACCOUNTS_SCHEMA]).rowcount:
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(ALL_ACCOUNTS_SCHEMA)))
    tables = {table.name: _declared_columns(table) for table in AccountBase.metadata.sorted_tables}
    columns = _existing_columns(connection, [ALL_ACCOUNTS_SCHEMA, *(each.schema for each in accounts)],
                                list(tables))
    comments = dict(connection.execute(SELECT_COMMENTS, [ALL_ACCOUNTS_SCHEMA]).fetchall())
    result = RefreshResult()
    for name, declared in tables.items():
        account_columns = [(each, columns.get((each.schema, name), {})) for each in accounts]
        definition = _union_query(name, _view_columns(columns.get((ALL_ACCOUNTS_SCHEMA, name), {}), declared),
                                  account_columns)
        comment = (f"{name} of all accounts; account is the account's name here. "
                   f"Made by amocrm-mirror ({_hash(connection, definition)})")
        if comments.get(name) != comment:
            _replace_or_keep(connection, name, definition, _union_query(name, declared, account_columns),
                             comment, result)
    with suppress(errors.InsufficientPrivilege):  # an administrator's schema: it is looked through each time
        connection.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(
            Identifier(ALL_ACCOUNTS_SCHEMA),
            Literal("Views over all accounts" if result.is_retryable else summary)))
    return result


def _replace_or_keep(connection: Connection, name: str, definition: Composed, fresh_definition: Composed,
                     comment: str, result: RefreshResult) -> None:
    """Replaces the view with `definition`, which keeps the order of its columns, or, if that cannot be, with
    `fresh_definition`. Records the outcome in `result`."""
    try:
        with connection.transaction():
            connection.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
            replace_view(connection, Identifier(ALL_ACCOUNTS_SCHEMA, name), definition, comment,
                         created_as=fresh_definition)
        result.changed.append(name)
        return
    except (errors.InvalidTableDefinition, errors.DatatypeMismatch) as error:
        reason = one_line(error.diag.message_primary or error)  # type: ignore[arg-type]
    except errors.DependentObjectsStillExist as error:
        reason = (f"{error.diag.message_primary}: "
                  f"{one_line(error.diag.message_detail or '')}")  # type: ignore[arg-type]
    except errors.LockNotAvailable:
        reason, result.is_retryable = "another session is reading it", True
    result.kept.append(
        f"the view {ALL_ACCOUNTS_SCHEMA}.{name} stays as it was: {reason}. Drop the objects that depend on "
        "it, or end the sessions that read it, then run `amocrm-mirror migrate`")


# Definition of a view


def _declared_columns(table: Table) -> ColumnTypes:
    return {column.name: column.type.compile(postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
            for column in table.columns}


def _view_columns(before: ColumnTypes, declared: ColumnTypes) -> ColumnTypes:
    """The declared columns: first those that the view already has, in its order, then the new ones."""
    kept = {name: declared[name] for name in before if name in declared}
    return kept | declared


def _union_query(name: str, wanted: ColumnTypes,
                 accounts: Sequence[tuple[AccountRecord, ColumnTypes]]) -> Composed:
    """The query of one view: UNION ALL over the accounts that have the table; without any, a query of no
    rows."""
    branches = [SQL("SELECT {}::text AS account, {} FROM {} t").format(
        Literal(each.name), SQL(", ").join(_select_list(wanted, there)), Identifier(each.schema, name))
        for each, there in accounts if there]
    empty = SQL("SELECT NULL::text AS account, {} WHERE false").format(
        SQL(", ").join(_select_list(wanted, {})))
    return SQL("\nUNION ALL ").join(branches or [empty])


def _select_list(wanted: ColumnTypes, existing: ColumnTypes) -> Iterator[Composed]:
    """The account's columns in the view's order. In an account that is not migrated yet, a missing column
    becomes NULL and a column of another type is cast."""
    for column, type_ in wanted.items():
        if existing.get(column) == type_:
            yield SQL("t.{}").format(Identifier(column))
        else:
            value = SQL("t.{}").format(Identifier(column)) if column in existing else SQL("NULL")
            yield SQL("{}::{} AS {}").format(value, SQL(type_), Identifier(column))


def _existing_columns(connection: Connection, schemas: Sequence[str],
                      tables: Sequence[str]) -> dict[tuple[str, str], ColumnTypes]:
    found: dict[tuple[str, str], ColumnTypes] = {}
    for schema, table, column, type_ in connection.execute(SELECT_COLUMNS, [list(schemas), list(tables)]):
        found.setdefault((schema, table), {})[column] = type_
    return found


def _hash(connection: Connection, definition: Composed) -> str:
    return hashlib.sha256(definition.as_string(connection).encode()).hexdigest()[:12]
