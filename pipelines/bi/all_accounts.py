"""The schema `amocrm_all`: a view per table over all accounts of the database, for reports over accounts. Derived, disposable, never migrated.

    amocrm_all.leads    account (its name here), then the columns of leads; UNION ALL over every account's schema

They are there from the second account on, and are looked at again when an account comes or goes and when a migration has changed tables; only views
whose definition changes are touched, each in a transaction of its own (two hundred accounts hold more tables than one transaction may lock). New
columns come last, so that CREATE OR REPLACE does, and what others have granted or built on a view survives. Where a column went or changed its type,
the view must be made anew: if something of others hangs on it, it stays as it is, and that is said.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from models.base import AccountBase
from pipelines.accounts.registry import DEMO, Known, known
from pipelines.postgres.errors import one_line

Connection = psycopg.Connection[Any]
SCHEMA = "amocrm_all"
ENOUGH = 2
PATIENCE = "5s"
"""For who reads a view that is to be replaced."""
LOCK = "SELECT pg_advisory_lock(hashtextextended('amocrm-mirror views over all accounts', 0))"
UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('amocrm-mirror views over all accounts', 0))"
COLUMNS = """
SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = ANY(%s) AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p', 'v') ORDER BY n.nspname, c.relname, a.attnum"""
COMMENTS = "SELECT relname::text, obj_description(oid, 'pg_class') FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'v'"
Types = dict[str, str]
"""The columns of a table or view, in their order, with their types."""
log = logging.getLogger(__name__)


@dataclass
class Refreshed:
    """`kept` names the views that stay as they were, with the reason; `later`: it is a reason that passes."""

    changed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    later: bool = False


def refresh(connection: Connection, anew: bool = False, without: str = "") -> Refreshed:
    """Brings the views to what accounts and tables there are; costs one query where the accounts are the same and nothing is asked `anew`.
    On an autocommit connection. `without` leaves an account out that is about to go."""
    accounts = [each for each in known(connection) if each.has_tables and each.name not in (DEMO, without)]
    found = connection.execute("SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", [SCHEMA]).fetchone()
    told = f"Views over all accounts: {', '.join(each.name for each in accounts)}"
    if (len(accounts) < ENOUGH and not found) or (found == (told,) and not anew):
        return Refreshed()
    connection.execute(LOCK)
    try:
        return _refresh(connection, accounts, told)
    finally:
        connection.execute(UNLOCK)


def quietly(connection: Connection, anew: bool = False) -> None:
    """As `refresh`, for a sync, which does not fail for it: what goes wrong is logged."""
    try:
        for reason in refresh(connection, anew).kept:
            log.warning("%s", reason)
    except psycopg.Error as reason:
        log.warning("the views over all accounts are not brought up to date: %s", one_line(reason))


def _refresh(connection: Connection, accounts: Sequence[Known], told: str) -> Refreshed:
    connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(SCHEMA)))
    tables = {table.name: _declared(table) for table in AccountBase.metadata.sorted_tables}
    columns = _columns(connection, [SCHEMA, *(each.schema for each in accounts)], list(tables))
    comments = dict(connection.execute(COMMENTS, [SCHEMA]).fetchall())
    done = Refreshed()
    for name, declared in tables.items():
        theirs = [(each, columns.get((each.schema, name), {})) for each in accounts]
        definition = _definition(name, _ordered(columns.get((SCHEMA, name), {}), declared), theirs)
        comment = f"{name} of all accounts; account is the account's name here. Made by amocrm-mirror ({_hash(connection, definition)})"
        if comments.get(name) != comment:
            _put(connection, name, definition, _definition(name, declared, theirs), comment, done)
    connection.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(Identifier(SCHEMA), Literal("Views over all accounts" if done.later else told)))
    return done


def _put(connection: Connection, name: str, definition: Composed, anew: Composed, comment: str, done: Refreshed) -> None:
    """Replaces the view where Postgres can, else drops it where nobody minds."""
    view = Identifier(SCHEMA, name)
    ways = ([SQL("CREATE OR REPLACE VIEW {} AS {}").format(view, definition)],
            [SQL("DROP VIEW IF EXISTS {}").format(view), SQL("CREATE VIEW {} AS {}").format(view, anew)])
    reason = ""
    for statements in ways:
        try:
            with connection.transaction():
                connection.execute("SELECT set_config('lock_timeout', %s, true)", [PATIENCE])
                for statement in statements:
                    connection.execute(statement)
                connection.execute(SQL("COMMENT ON VIEW {} IS {}").format(view, Literal(comment)))
            done.changed.append(name)
            return
        except (psycopg.errors.InvalidTableDefinition, psycopg.errors.DatatypeMismatch) as error:
            reason = one_line(error.diag.message_primary or error)  # type: ignore[arg-type]
        except psycopg.errors.DependentObjectsStillExist as error:
            reason = f"{error.diag.message_primary}: {one_line(error.diag.message_detail or '')}"  # type: ignore[arg-type]
        except psycopg.errors.LockNotAvailable:
            reason, done.later = "somebody is reading it", True
            break
    done.kept.append(f"the view {SCHEMA}.{name} stays as it was: {reason}. Drop what hangs on it, or end what reads it, then run "
                     "`amocrm-mirror migrate`")


# What a view is


def _declared(table: Table) -> Types:
    return {column.name: column.type.compile(postgresql.dialect()).lower() for column in table.columns}  # type: ignore[no-untyped-call]


def _ordered(before: Types, declared: Types) -> Types:
    """The view's columns as they stand, then those that are new."""
    stay = {name: declared[name] for name in before if name in declared}
    return stay | declared


def _definition(name: str, wanted: Types, accounts: Sequence[tuple[Known, Types]]) -> Composed:
    branches = [SQL("SELECT {}::text AS account, {} FROM {} t").format(Literal(each.name), SQL(", ").join(_selected(wanted, there)),
                                                                     Identifier(each.schema, name)) for each, there in accounts if there]
    empty = SQL("SELECT NULL::text AS account, {} WHERE false").format(SQL(", ").join(_selected(wanted, {})))
    return SQL("\nUNION ALL ").join(branches or [empty])


def _selected(wanted: Types, there: Types) -> Iterator[Composed]:
    """As it is where the account's table has it so; an account that is not migrated yet has nulls, or another type, which is cast."""
    for column, type_ in wanted.items():
        if there.get(column) == type_:
            yield SQL("t.{}").format(Identifier(column))
        else:
            value = SQL("t.{}").format(Identifier(column)) if column in there else SQL("NULL")
            yield SQL("{}::{} AS {}").format(value, SQL(type_), Identifier(column))


def _columns(connection: Connection, schemas: Sequence[str], tables: Sequence[str]) -> dict[tuple[str, str], Types]:
    found: dict[tuple[str, str], Types] = {}
    for schema, table, column, type_ in connection.execute(COLUMNS, [list(schemas), list(tables)]):
        found.setdefault((schema, table), {})[column] = type_
    return found


def _hash(connection: Connection, definition: Composed) -> str:
    return hashlib.sha256(definition.as_string(connection).encode()).hexdigest()[:12]
