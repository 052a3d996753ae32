"""The views for people, in `<schema>_bi`: built after a migration and after each sync, and only those whose definition has changed.

    wide views   one per entity, with the account's own fields as columns (wide.py)
    marts        reports, one file each (sql/marts/)

Each view is one transaction, under a lock timeout. One that cannot be built stays as it was, is named in the answer and in `bi_views`, and is tried
again by the next sync; nothing else depends on it. A view in that schema that is not ours is never touched: ours say so in their comments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import replace as with_
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier, Literal

from models.base import AccountBase
from pipelines.bi import wide
from pipelines.bi.placeholders import EMPTY
from pipelines.bi.state import OURS, State, faults, look, misfits, place
from pipelines.bi.view_files import ViewFile, names_in, view_file
from pipelines.bi.wide import WIDE, Column, Field, Wide
from pipelines.postgres.errors import of_postgres

__all__ = ["CATALOGS", "OURS", "Built", "drop", "faults", "files", "group_of", "misfits", "names", "ours", "place", "rebuild"]

Connection = psycopg.Connection[Any]
CATALOGS = "catalogs"
"""What the views of lists are called where they are spoken of as one."""
GENERATION = "2"
"""Part of every digest: another one, and every view is built anew."""
PATIENCE = "5s"
STAYED, SHOWS_NOTHING = "It stayed as it was", "It shows no rows until then"
BUSY = f"somebody was reading it, or building views, for longer than 5 s. {STAYED}; the next sync tries again, or `amocrm-mirror views`"
NOT_OURS = "there is {} of that name already which is not ours. It was not touched; rename it, and run `amocrm-mirror views`"
READERS = """
SELECT DISTINCT pg_get_userbyid(a.grantee)::text FROM pg_default_acl d, LATERAL aclexplode(d.defaclacl) a
WHERE d.defaclnamespace = to_regnamespace(%s) AND d.defaclobjtype = 'r' AND d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
  AND a.privilege_type = 'SELECT' AND a.grantee <> 0 AND a.grantee <> d.defaclrole"""
GRANTS = """
SELECT pg_get_userbyid(a.grantee)::text, a.grantee = 0, a.privilege_type, a.is_grantable
FROM pg_class c, LATERAL aclexplode(c.relacl) a WHERE c.oid = to_regclass(%s) AND a.grantee <> c.relowner"""


@dataclass(frozen=True)
class Built:
    """What became of one view. `state` is built, unchanged or failed."""

    view: str
    state: str
    reason: str = ""
    columns: int = 0


def rebuild(connection: Connection, schema: str, everything: bool = False) -> list[Built]:
    """Brings every view to what it should be, or with `everything` builds it anew. Where tables are still missing (a downgraded schema) there is
    nothing to look at yet. The connection is in autocommit."""
    rows = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s)", [schema]).fetchall()
    if not set(AccountBase.metadata.tables) <= {row[0] for row in rows}:
        return []
    state = look(connection, schema)
    return [built for each in _views(state) for built in _tried(connection, schema, each, state, everything)]


def drop(connection: Connection, schema: str) -> None:
    """Takes our views away, so that a migration can change what they look at. Raises psycopg's error where somebody else's rest on them."""
    with connection.transaction():
        if found := ours(connection, schema):
            connection.execute(SQL("DROP VIEW {}").format(SQL(", ").join(Identifier(place(schema), name) for name in found)))


def ours(connection: Connection, schema: str) -> list[str]:
    """The views of ours that are there."""
    return [name for name, (kind, comment) in look(connection, schema, memory=False).relations.items() if kind == "v" and OURS in comment]


def group_of(view: str) -> str:
    """What a view is called in `names`."""
    return CATALOGS if view.startswith("catalog_") else view.partition(wide.MORE)[0]


def files() -> dict[str, ViewFile]:
    """Of every view, those of lists as one."""
    found = {one.name: view_file("wide", one.file) for one in WIDE} | {CATALOGS: view_file("wide", wide.CATALOG.file)}
    return found | {name: view_file("marts", name) for name in names_in("marts")}


def names() -> dict[str, set[str]]:
    """Every view, and the tables that it looks at."""
    values = {one.name: {one.values, "custom_fields"} for one in WIDE if one.values} | {CATALOGS: {wide.CATALOG.values, "custom_fields"}}
    return {name: file.tables | values.get(name, set()) for name, file in files().items()}


@dataclass(frozen=True)
class _View:
    """A view to build: what its digest follows from, and how it is built."""

    name: str
    material: Callable[[State], object]
    build: Callable[[Connection, str, State], Iterator[Built]]
    physical: Callable[[State], set[str]]


def _views(state: State) -> Iterator[_View]:
    marts = names_in("marts")
    taken = {one.name for one in WIDE} | set(marts) | set(state.catalogs.values())
    for one in [*WIDE, *_catalogs(state, taken)]:
        yield _View(one.name, lambda now, one=one: (view_file("wide", one.file), _fields(now, one)),  # type: ignore[misc]
                    lambda connection, schema, now, one=one: _wide(connection, schema, one, now),  # type: ignore[misc]
                    lambda now, one=one: {one.name} | {each.view for each in _memory(now, one)})  # type: ignore[misc]
    for name in marts:
        yield _View(name, lambda now, name=name: view_file("marts", name),  # type: ignore[misc]
                    lambda connection, schema, now, name=name: _mart(connection, schema, name, now),  # type: ignore[misc]
                    lambda now, name=name: {name})  # type: ignore[misc]


def _catalogs(state: State, taken: set[str]) -> Iterator[Wide]:
    """The views of the account's lists; a renamed list keeps its view."""
    for ident, name in state.lists:
        one = with_(wide.CATALOG, name=state.catalogs[ident], catalog_id=ident) if ident in state.catalogs else \
            wide.catalog_view(ident, name, taken)
        taken.add(one.name)
        yield one


def _fields(state: State, one: Wide) -> list[Field]:
    return state.fields.get((one.entity_type, one.catalog_id or 0), []) if one.values else []


def _memory(state: State, one: Wide) -> list[Column]:
    return [each for each in state.columns if each.view == one.name or each.view.startswith(one.name + wide.MORE)]


def _tried(connection: Connection, schema: str, each: _View, state: State, everything: bool) -> Iterator[Built]:
    digest = hashlib.sha256(repr((GENERATION, each.material(state))).encode()).hexdigest()
    if not everything and state.digests.get(each.name) == digest and each.name not in state.faults \
            and all(_stands(state, name) for name in each.physical(state)):
        yield Built(each.name, "unchanged")
        return
    try:
        with connection.transaction():
            connection.execute(SQL("SET LOCAL lock_timeout = {}; SET LOCAL client_min_messages = warning").format(Literal(PATIENCE)))
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"amocrm-mirror views {schema}"])
            _made(connection, schema)
            now = look(connection, schema)
            found = list(each.build(connection, schema, now))
            connection.execute(SQL("INSERT INTO {0}.bi_views AS v (name, digest, built_at) VALUES (%s, %s, now()) ON CONFLICT (name) DO UPDATE "
                                   "SET digest = excluded.digest, built_at = now(), fault = NULL, failed_at = NULL").format(Identifier(schema)),
                               [each.name, hashlib.sha256(repr((GENERATION, each.material(now))).encode()).hexdigest()])
        yield from found
    except (psycopg.Error, ValueError) as reason:
        yield Built(each.name, "failed", _remembered(connection, schema, each.name, reason, EMPTY in state.relations.get(each.name, ("", ""))[1]))


def _made(connection: Connection, schema: str) -> None:
    """The schema of the views; whoever may read what comes into the account's schema may read what comes into this one (grants_role.py)."""
    if connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [place(schema)]).fetchone() is not None:
        return
    at = Identifier(place(schema))
    connection.execute(SQL("CREATE SCHEMA {}").format(at))
    for role, in connection.execute(READERS, [schema]).fetchall():
        connection.execute(SQL("GRANT USAGE ON SCHEMA {0} TO {1}; ALTER DEFAULT PRIVILEGES IN SCHEMA {0} GRANT SELECT ON TABLES TO {1}").format(
            at, Identifier(role)))


def _stands(state: State, name: str) -> bool:
    """It is there, it is ours, and no stand-in (stand_ins.py)."""
    kind, comment = state.relations.get(name, ("", ""))
    return kind == "v" and OURS in comment and EMPTY not in comment


def _remembered(connection: Connection, schema: str, view: str, reason: Exception, is_empty: bool) -> str:
    """Why, in words that are kept beside the view. A connection that is lost keeps nothing, and the sync that had it says so."""
    if isinstance(reason, errors.LockNotAvailable):
        why = BUSY
    elif isinstance(reason, errors.DependentObjectsStillExist):
        why = f"its columns are others in this version, and other views rest on it: {reason.diag.message_detail}. {STAYED}; drop those, " \
              "run `amocrm-mirror views`, and make them again"
    else:
        why = of_postgres(reason) if isinstance(reason, psycopg.Error) else str(reason)
    why = why.replace(STAYED, SHOWS_NOTHING) if is_empty else why
    if not connection.closed:
        connection.execute(SQL("INSERT INTO {0}.bi_views AS v (name, fault, failed_at) VALUES (%s, %s, now()) ON CONFLICT (name) DO UPDATE "
                               "SET fault = excluded.fault, failed_at = coalesce(v.failed_at, now()) WHERE v.fault IS DISTINCT FROM excluded.fault"
                               ).format(Identifier(schema)), [view, why])
    return why


def _wide(connection: Connection, schema: str, one: Wide, state: State) -> Iterator[Built]:
    file = view_file("wide", one.file)
    base = file.bound(schema, catalog=Literal(one.catalog_id))
    fields = {each.id: each for each in _fields(state, one)}
    found = wide.columns(one, _memory(state, one), _described(connection, base), list(fields.values()))
    views = list(dict.fromkeys([one.name, *(each.view for each in found)]))
    for view in views:
        shown = [each for each in found if each.view == view]
        more = "" if view == one.name else f", the columns that {one.name} has no room for"
        replace(connection, schema, view, wide.query(one, schema, base, view, shown), f"{file.comment}{more}", state,
                {each.name: wide.comment(each, file.columns, fields.get(each.field_id or 0)) for each in shown})
        yield Built(view, "built", _told(views, view), len(shown))
    _remember(connection, schema, set(found) - set(_memory(state, one)))
    if one.catalog_id is not None:
        connection.execute(SQL("INSERT INTO {}.bi_views (name, catalog_id) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET catalog_id = "
                               "excluded.catalog_id").format(Identifier(schema)), [one.name, one.catalog_id])


def _told(views: list[str], view: str) -> str:
    others = ", ".join(views[1:])
    return f"more fields than a view has room for: the newest are in {others}, to be joined by id" if others and view == views[0] else ""


def _mart(connection: Connection, schema: str, name: str, state: State) -> Iterator[Built]:
    file = view_file("marts", name)
    bound = file.bound(schema, bi=Identifier(place(schema)))
    columns = _described(connection, bound)
    replace(connection, schema, name, bound, file.comment, state, {column: file.columns.get(column, "") for column, _ in columns})
    yield Built(name, "built", "", len(columns))


def _described(connection: Connection, query: Composed) -> list[tuple[str, str]]:
    """Name and type of each column."""
    cursor = connection.execute(SQL("SELECT * FROM ({}) q LIMIT 0").format(query))
    found = [(column.name, column.type_code) for column in cursor.description or ()]
    types = dict(connection.execute("SELECT oid::int8, format_type(oid, NULL) FROM pg_type WHERE oid = ANY(%s::oid[])",
                                    [[code for _, code in found]]).fetchall())
    return [(name, types[code]) for name, code in found]


def _remember(connection: Connection, schema: str, changed: set[Column]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(SQL(
            "INSERT INTO {}.bi_columns (view_name, column_name, position, data_type, field_id, label, is_live) VALUES (%s, %s, %s, %s, %s, %s, %s) "
            "ON CONFLICT (view_name, column_name) DO UPDATE SET label = excluded.label, is_live = excluded.is_live").format(Identifier(schema)),
            [(each.view, each.name, each.position, each.data_type, each.field_id, each.label, each.is_live) for each in changed])


def replace(connection: Connection, schema: str, view: str, query: Composed, comment: str, state: State, columns: dict[str, str]) -> None:
    """CREATE OR REPLACE VIEW, which other people's views and grants survive. Where its columns are other ones it is dropped and made again, with the
    grants that it had, unless somebody's view rests on it."""
    kind, former = state.relations.get(view, ("", ""))
    if kind and not (kind == "v" and OURS in former):
        raise ValueError(NOT_OURS.format({"v": "a view", "m": "a materialized view"}.get(kind, "a table")))
    name = Identifier(place(schema), view)
    create = SQL("CREATE OR REPLACE VIEW {} AS {}").format(name, query)
    try:
        with connection.transaction():
            connection.execute(create)
    except errors.InvalidTableDefinition:
        granted = connection.execute(GRANTS, [name.as_string(connection)]).fetchall()
        connection.execute(SQL("DROP VIEW {}").format(name))
        connection.execute(create)
        for role, is_public, privilege, grantable in granted:
            connection.execute(SQL("GRANT {} ON {} TO {}{}").format(SQL(privilege), name, SQL("PUBLIC") if is_public else Identifier(role),
                                                                    SQL(" WITH GRANT OPTION") if grantable else SQL("")))
    connection.execute(SQL("COMMENT ON VIEW {} IS {}").format(name, Literal(f"{comment} ({OURS})")))
    for column, words in columns.items():
        connection.execute(SQL("COMMENT ON COLUMN {}.{} IS {}").format(name, Identifier(column), Literal(words or None)))
