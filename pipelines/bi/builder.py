"""Builds the BI views of an account in `<schema>_bi`, after a migration and after each sync; only views whose
definition has changed are rebuilt.

    wide views   one per entity, with the account's custom fields as columns (bi/wide.py)
    marts        reports, one file each (bi/sql/marts/); in a big account their slow steps are stored
                 (bi/stored.py)

Each view is built in its own transaction, under a lock timeout. A view that cannot be built keeps its old
definition, is reported in the result and in `bi_views`, and is retried by the next sync; no other view
depends on it. Views in that schema that the mirror did not create are never touched: the mirror's own views
carry a mark in their comments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from dataclasses import replace as with_
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier, Literal

from models.base import AccountBase
from models.history import CustomFieldHistory, LeadStatusHistory, ResponsibleHistory
from pipelines.bi import stored, wide
from pipelines.bi.comments import write_comments
from pipelines.bi.placeholders import PLACEHOLDER_MARK
from pipelines.bi.replace_view import replace_view, view_obstacles
from pipelines.bi.state import OWN_MARK, ViewState, read_state
from pipelines.bi.view_files import ViewFile, file_names, stored_table, view_file
from pipelines.bi.wide import WIDE_VIEWS, Column, Field, WideView
from pipelines.entities.registry import ENTITIES
from pipelines.postgres.errors import describe_postgres_error
from pipelines.postgres.locks import views_lock
from pipelines.schema.names import bi_schema
from pipelines.schema.texts import say, speaking, translate

Connection = psycopg.Connection[Any]
CATALOG_VIEWS = "catalogs"
"""Common name of the views of all lists (catalogs)."""
BUILD_VERSION = "2"
"""Version of the view builder, part of every digest. Changing it rebuilds every view."""
HISTORY = (LeadStatusHistory, ResponsibleHistory, CustomFieldHistory)
"""Tables that are made from events."""
LOCK_TIMEOUT = "5s"
"""Lock timeout of one view's transaction."""
KEPT_AS_IT_WAS, SHOWS_NOTHING = "It stayed as it was", "It shows no rows until then"
LOCKED_REASON = (f"another session was reading it, or building views, for longer than 5 s. {KEPT_AS_IT_WAS}; "
                 "the next sync "
                 "tries again, or run `amocrm-mirror views`")
NAME_TAKEN_REASON = (
    "there is {} of that name already which is not ours. It was not touched; rename it, and run "
    "`amocrm-mirror views`")
READER_ROLES = """
SELECT DISTINCT pg_get_userbyid(a.grantee)::text FROM pg_default_acl d, LATERAL aclexplode(d.defaclacl) a
WHERE d.defaclnamespace = to_regnamespace(%s) AND d.defaclobjtype = 'r'
  AND d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
  AND a.privilege_type = 'SELECT' AND a.grantee <> 0 AND a.grantee <> d.defaclrole"""
"""Roles that by default privileges may read new tables of a schema."""


@dataclass(frozen=True)
class ViewResult:
    """Result for one view. `state` is "built", "refreshed" (only its stored steps), "unchanged" or
    "failed". `has_news`: a refresh changed rows of its stored steps."""

    view: str
    state: str
    reason: str = ""
    columns: int = 0
    has_news: bool = False


def build_views(connection: Connection, schema: str, force: bool = False) -> list[ViewResult]:
    """Builds the views whose definition has changed, or with `force` all of them. Returns [] while
    tables are missing (a downgraded schema). The connection must be in autocommit mode."""
    rows = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s)",
                              [schema]).fetchall()
    if not set(AccountBase.metadata.tables) <= {row[0] for row in rows}:
        return []
    state = _read_state(connection, schema)
    write_comments(connection, schema, state.language)
    return [built for each in _view_builders(state)
            for built in _build_if_changed(connection, schema, each, state, force)]


def refresh_views(connection: Connection, schema: str, changed: Collection[str] = (), force: bool = False,
                  at_once: bool = False, stored_from: int = stored.STORED_FROM_DEALS) -> list[ViewResult]:
    """Like `build_views`, after it has refreshed the stored steps of marts; `changed` are the tables that
    have certainly changed, and `at_once` refreshes also steps that rest. A mart whose step could not be
    refreshed is reported as failed, and keeps its rows."""
    if not (built := build_views(connection, schema)):
        return []
    refreshed = stored.refresh(connection, schema, changed, force, at_once, stored_from)
    again = {each.view: each for each in build_views(connection, schema, force)}
    stored.drop_unused_tables(connection, schema, {stored_table(each) for each in read_state(
        connection, schema).stored})
    built = [again[each.view] if again.get(each.view, each).state != "unchanged" else each for each in built]
    return [_with_steps(each, [step for step in refreshed if each.view in step.marts]) for each in built]


def _with_steps(view: ViewResult, steps: list[stored.StepResult]) -> ViewResult:
    """The view's result and its steps' in one."""
    reason = "; ".join(step.reason for step in steps if step.state == "failed")
    if reason and view.state != "failed":
        return with_(view, state="failed", reason=reason)
    if view.state == "unchanged" and any(step.state == "refreshed" for step in steps):
        return with_(view, state="refreshed", has_news=any(step.has_news for step in steps))
    return view


def drop_views(connection: Connection, schema: str) -> None:
    """Drops the mirror's own BI views, so that a migration can change the tables below them. Raises
    psycopg.errors.DependentObjectsStillExist if views of others depend on them."""
    with connection.transaction():
        if found := own_views(connection, schema):
            connection.execute(
                SQL("DROP VIEW {}").format(
                    SQL(", ").join(Identifier(bi_schema(schema), name) for name in found)))
        stored.drop_unused_tables(connection, schema)


def own_views(connection: Connection, schema: str) -> list[str]:
    """Names of the mirror's own views that exist in the BI schema."""
    return [name
            for name, (kind, comment) in read_state(connection, schema, with_stored=False).relations.items()
            if kind == "v" and OWN_MARK in comment]


def view_group(view: str) -> str:
    """The key of a view in `view_tables` and `files_by_view`: its name, or "catalogs" for the view of a
    list."""
    return CATALOG_VIEWS if view.startswith("catalog_") else view.partition(wide.OVERFLOW_SUFFIX)[0]


def files_by_view() -> dict[str, ViewFile]:
    """The SQL file of each view; the views of all lists share one entry."""
    found = {one.name: view_file("wide", one.file) for one in WIDE_VIEWS} \
        | {CATALOG_VIEWS: view_file("wide", wide.CATALOG_TEMPLATE.file)}
    return found | {name: view_file("marts", name) for name in file_names("marts")}


def views_of_mirror_state() -> set[str]:
    """Names of the views that read the schema `mirror`, of which BI users see nothing else."""
    return {name for name, file in files_by_view().items() if " mirror." in file.query}


def view_tables() -> dict[str, set[str]]:
    """View → the tables that it reads; the views of all lists share one entry."""
    values = {one.name: {one.values, "custom_fields"} for one in WIDE_VIEWS if one.values} \
        | {CATALOG_VIEWS: {wide.CATALOG_TEMPLATE.values, "custom_fields"}}
    return {name: file.tables | values.get(name, set()) for name, file in files_by_view().items()}


def view_entities() -> dict[str, set[str]]:
    """View → names of the entities whose records it shows, or whose records make the history that it
    shows."""
    owners = {table: entity.name for entity in ENTITIES for table in entity.tables} \
        | {str(model.__tablename__): "events" for model in HISTORY}
    return {name: {owners[table] for table in tables if table in owners}
            for name, tables in view_tables().items()}


def _read_state(connection: Connection, schema: str) -> ViewState:
    """Reads the state, with the names of the views that show each list's records (`{list_views}`)."""
    state, shown = read_state(connection, schema), view_entities()
    state.values["list_views"] = [", ".join(sorted(view for view, entities in shown.items()
                                                   if entity.name in entities)) for entity in ENTITIES]
    return state


@dataclass(frozen=True)
class _View:
    """A view to build. `digest_input` returns what its digest is computed from; `view_names` returns the
    names of the views it consists of (the view and its overflow views)."""

    name: str
    digest_input: Callable[[ViewState], object]
    build: Callable[[Connection, str, ViewState], Iterator[ViewResult]]
    view_names: Callable[[ViewState], set[str]]


def _view_builders(state: ViewState) -> Iterator[_View]:
    marts = file_names("marts")
    taken = {one.name for one in WIDE_VIEWS} | set(marts) | set(state.catalog_views.values())
    for one in [*WIDE_VIEWS, *_catalog_views(state, taken)]:
        yield _View(
            one.name,
            lambda now, one=one: (  # type: ignore[misc]
                *view_file("wide", one.file).digest_input(now.digest_values), _fields(now, one)),
            lambda connection, schema, now, one=one:  # type: ignore[misc]
                _build_wide(connection, schema, one, now),
            lambda now, one=one: {one.name} | {each.view
                                               for each in _stored_columns(now, one)})  # type: ignore[misc]
    for name in marts:
        yield _View(
            name,
            lambda now, name=name:  # type: ignore[misc]
                view_file("marts", name).digest_input(now.digest_values),
            lambda connection, schema, now, name=name:  # type: ignore[misc]
                _build_mart(connection, schema, name, now),
            lambda now, name=name: {name})  # type: ignore[misc]


def _catalog_views(state: ViewState, taken: set[str]) -> Iterator[WideView]:
    """The views of the account's lists. A renamed list keeps the name of its view."""
    for ident, name in state.lists:
        one = with_(wide.CATALOG_TEMPLATE, name=state.catalog_views[ident], catalog_id=ident) \
            if ident in state.catalog_views else wide.catalog_view(ident, name, taken)
        taken.add(one.name)
        yield one


def _fields(state: ViewState, one: WideView) -> list[Field]:
    return state.fields.get((one.entity_type, one.catalog_id or 0), []) if one.values else []


def _stored_columns(state: ViewState, one: WideView) -> list[Column]:
    """The stored columns of a wide view and of its overflow views."""
    return [each for each in state.columns
            if each.view == one.name or each.view.startswith(one.name + wide.OVERFLOW_SUFFIX)]


def _build_if_changed(connection: Connection, schema: str, each: _View, state: ViewState,
                      force: bool) -> Iterator[ViewResult]:
    """Builds one view if its digest has changed, it failed before, or it is not intact."""
    digest = _digest(each, state)
    if not force and state.digests.get(each.name) == digest and each.name not in state.faults \
            and all(_is_intact(state, name) for name in each.view_names(state)):
        yield ViewResult(each.name, "unchanged")
        return
    try:
        with connection.transaction():
            connection.execute(SQL("SET LOCAL lock_timeout = {}; SET LOCAL client_min_messages = warning"
                                   ).format(Literal(LOCK_TIMEOUT)))
            views_lock(schema).hold_until_commit(connection)
            _ensure_schema(connection, schema)
            now = _read_state(connection, schema)
            found = list(each.build(connection, schema, now))
            connection.execute(SQL(
                "INSERT INTO {0}.bi_views AS v (name, digest, built_at) VALUES (%s, %s, now()) "
                "ON CONFLICT (name) DO UPDATE "
                "SET digest = excluded.digest, built_at = now(), fault = NULL, failed_at = NULL"
            ).format(Identifier(schema)),
                [each.name, _digest(each, now)])
        yield from found
    except (psycopg.Error, ValueError) as reason:
        yield ViewResult(each.name, "failed", _record_failure(
            connection, schema, each.name, reason,
            PLACEHOLDER_MARK in state.relations.get(each.name, ("", ""))[1]))


def _digest(each: _View, state: ViewState) -> str:
    follows_from = (BUILD_VERSION, state.language, each.digest_input(state))
    return hashlib.sha256(repr(follows_from).encode()).hexdigest()


def _ensure_schema(connection: Connection, schema: str) -> None:
    """Creates the BI schema if it is missing. Roles whose default privileges let them read new tables of the
    account's schema get the same on this one (admin/reader_role.py)."""
    if connection.execute("SELECT FROM pg_namespace WHERE nspname = %s",
                          [bi_schema(schema)]).fetchone() is not None:
        return
    at = Identifier(bi_schema(schema))
    connection.execute(SQL("CREATE SCHEMA {}").format(at))
    for role, in connection.execute(READER_ROLES, [schema]).fetchall():
        connection.execute(SQL(
            "GRANT USAGE ON SCHEMA {0} TO {1}; "
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {0} GRANT SELECT ON TABLES TO {1}"
        ).format(at, Identifier(role)))


def _is_intact(state: ViewState, name: str) -> bool:
    """True if the view exists, carries our mark, and is not a placeholder (bi/placeholders.py)."""
    kind, comment = state.relations.get(name, ("", ""))
    return kind == "v" and OWN_MARK in comment and PLACEHOLDER_MARK not in comment


def _record_failure(connection: Connection, schema: str, view: str, reason: Exception, is_empty: bool) -> str:
    """Stores in `bi_views` why a view could not be built, and returns that text. Stores nothing if the
    connection is lost; the sync that owns it reports that itself."""
    if isinstance(reason, errors.LockNotAvailable):
        why = LOCKED_REASON
    elif isinstance(reason, errors.DependentObjectsStillExist):
        why = (f"its columns are different in this version, and other views depend on it: "
               f"{reason.diag.message_detail}. {KEPT_AS_IT_WAS}; "
               "drop those views, run `amocrm-mirror views`, and "
               "create them again")
    elif isinstance(reason, errors.InsufficientPrivilege) and (
            found := view_obstacles(connection, bi_schema(schema), OWN_MARK)):
        why = "; ".join(f"{each.text}. {each.cure}" for each in found) + f". {KEPT_AS_IT_WAS}"
    else:
        why = describe_postgres_error(reason) if isinstance(reason, psycopg.Error) else str(reason)
    why = why.replace(KEPT_AS_IT_WAS, SHOWS_NOTHING) if is_empty else why
    if not connection.closed:
        connection.execute(SQL(
            "INSERT INTO {0}.bi_views AS v (name, fault, failed_at) VALUES (%s, %s, now()) "
            "ON CONFLICT (name) DO UPDATE "
            "SET fault = excluded.fault, failed_at = coalesce(v.failed_at, now()) "
            "WHERE v.fault IS DISTINCT FROM excluded.fault").format(Identifier(schema)), [view, why])
    return why


def _build_wide(connection: Connection, schema: str, one: WideView, state: ViewState) -> Iterator[ViewResult]:
    """Builds a wide view and its overflow views, and stores their columns in `bi_columns`."""
    file = view_file("wide", one.file)
    base = file.bind(schema, **state.literals, catalog=Literal(one.catalog_id))
    fields = {each.id: each for each in _fields(state, one)}
    found = wide.view_columns(one, _stored_columns(state, one), _column_types(connection, base),
                              list(fields.values()))
    views = list(dict.fromkeys([one.name, *(each.view for each in found)]))
    for view in views:
        shown = [each for each in found if each.view == view]
        with speaking(state.language):
            more = "" if view == one.name else ", " + say("the columns that {} has no room for", one.name)
            comments = {each.name: wide.column_comment(each, file.columns, fields.get(each.field_id or 0))
                        for each in shown}
            comment = f"{say(file.comment)}{more}"
        _replace_own(connection, schema, view, wide.view_query(one, schema, base, view, shown), comment,
                     state, comments)
        yield ViewResult(view, "built", _overflow_note(views, view), len(shown))
    _save_columns(connection, schema, set(found) - set(_stored_columns(state, one)))
    if one.catalog_id is not None:
        connection.execute(SQL(
            "INSERT INTO {}.bi_views (name, catalog_id) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET catalog_id = excluded.catalog_id").format(Identifier(schema)),
            [one.name, one.catalog_id])


def _overflow_note(views: list[str], view: str) -> str:
    """The note for a wide view whose newest fields are in overflow views; "" for every other view."""
    others = ", ".join(views[1:])
    return f"more fields than a view has room for: the newest are in {others}, to be joined by id" \
        if others and view == views[0] else ""


def _build_mart(connection: Connection, schema: str, name: str, state: ViewState) -> Iterator[ViewResult]:
    file = view_file("marts", name)
    bound = file.bind(schema, **state.literals)
    columns = _column_types(connection, bound)
    _replace_own(connection, schema, name, bound, translate(file.comment, state.language), state,
                 {column: translate(file.columns.get(column, ""), state.language) for column, _ in columns})
    yield ViewResult(name, "built", "", len(columns))


def _column_types(connection: Connection, query: Composed) -> list[tuple[str, str]]:
    """(name, type) of each column of a query."""
    cursor = connection.execute(SQL("SELECT * FROM ({}) q LIMIT 0").format(query))
    found = [(column.name, column.type_code) for column in cursor.description or ()]
    types = dict(connection.execute(
        "SELECT oid::int8, format_type(oid, NULL) FROM pg_type WHERE oid = ANY(%s::oid[])",
        [[code for _, code in found]]).fetchall())
    return [(name, types[code]) for name, code in found]


def _save_columns(connection: Connection, schema: str, changed: set[Column]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(SQL(
            "INSERT INTO {}.bi_columns "
            "(view_name, column_name, position, data_type, field_id, label, is_live) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (view_name, column_name) DO UPDATE "
            "SET label = excluded.label, is_live = excluded.is_live").format(Identifier(schema)),
            [(each.view, each.name, each.position, each.data_type, each.field_id, each.label, each.is_live)
             for each in changed])


def _replace_own(connection: Connection, schema: str, view: str, query: Composed, comment: str,
                 state: ViewState, columns: dict[str, str]) -> None:
    """Replaces a view in the BI schema and marks it as ours (`columns`: name → comment). Raises ValueError if
    the name is taken by a relation that is not ours."""
    kind, former = state.relations.get(view, ("", ""))
    if kind and not (kind == "v" and OWN_MARK in former):
        raise ValueError(
            NAME_TAKEN_REASON.format({"v": "a view", "m": "a materialized view"}.get(kind, "a table")))
    replace_view(connection, Identifier(bi_schema(schema), view), query, f"{comment} ({OWN_MARK})", columns)
