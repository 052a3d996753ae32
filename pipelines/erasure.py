"""Erases a person: deletes every row that is the person's record, belongs to it or refers to it, and
suppresses the record (`normalize/suppression.py`), so that no sync brings it back until that is lifted.

The models say which rows these are: foreign keys and `refers`, (entity_type, entity_id), custom field values
and log entries whose JSON names the record, and the fields that a declaration lists as `concerns`. All of it
is one transaction, under the account's sync lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy import Table

from models.base import AccountBase
from models.crm import CustomFieldValue
from pipelines.accounts.registry import next_sync_number
from pipelines.cursors import request_full_reads
from pipelines.entities.record_kinds import LIST_BY_EVENT_KIND
from pipelines.entities.registry import ENTITIES, entity_named
from pipelines.errors import SyncRefusedError
from pipelines.load.statements import AND
from pipelines.normalize.suppression import Suppression, suppress
from pipelines.postgres.locks import continuous_sync_lock, landing_lock, sync_lock
from pipelines.schema.json_text import decode, dumps
from pipelines.schema.tables import table_schema_of, tables_of
from pipelines.webhooks.inbox import enqueue_all_hints

Connection = psycopg.Connection[Any]
OR = SQL(" OR ")
NOT_REACHED = (
    "Not reached: backups and copies of the database (Postgres frees the space of erased rows when it "
    "vacuums), files that `amocrm-mirror report` wrote, Dagster's logs and events, what BI tools keep, and "
    "amoCRM, where the contact still is unless you delete it. Texts of other records that name the person "
    "but do not point at the contact (the name of a deal, a note on it, earlier values of its fields) stay: "
    "look for them.")
"""Printed after an erasure: copies of the data that it does not delete."""
POINTS_AT_RECORD = ("$.** ? ((@.type == $kinds[*] && @.id == $ids[*]) || "
          "(@.entity_type == $kinds[*] && (@.entity_id == $ids[*] || @.id == $ids[*])))")
"""jsonpath: objects that name one of the records `$ids` of the kinds `$kinds`."""
DELETE_SUPPRESSION = ("DELETE FROM mirror.forgotten "
        "WHERE account = %s AND (entity = %s AND key = %s AND because IS NULL OR because = %s) RETURNING 1")
SELECT_DEPENDENTS = "SELECT entity, key FROM mirror.forgotten WHERE account = %s AND because IS NOT NULL"


def erase_person(connection: Connection, schema: str, account: str, kind: str, number: int) -> dict[str, int]:
    """Erases the record for good and suppresses it; returns the number of changed rows by table. Dependent
    records (tasks) are erased and suppressed with it. Runs in a transaction of its own or in the caller's.
    Raises SyncRefused while a sync of the account is running."""
    with connection.transaction():
        _take_locks(connection, account)
        erased: Counter[str] = Counter()
        suppress(connection, account, kind, [(str(number), None)])
        keys = {kind: [number]}
        for table, rows in _erase(connection, schema, kind, [number]).items():
            erased[f"{schema}.{table}"] += len(rows)
            keys.setdefault(table, []).extend(row[-1] for row in rows)
        for dependent in sorted({*keys} & {*LIST_BY_EVENT_KIND.values()} - {kind}):
            suppress(connection, account, dependent,
                     [(str(key), f"{kind}/{number}") for key in keys[dependent]])
            for table, rows in _erase(connection, schema, dependent, keys[dependent], own=False).items():
                erased[f"{schema}.{table}"] += len(rows)
        erased += _erase_mirror_state(connection, account, kind, number, keys)
    return {table: count for table, count in sorted(erased.items()) if count}


def allow_again(connection: Connection, account: str, kind: str, number: int) -> bool:
    """Ends the suppression: the next sync may load the record again. It reads every list completely, because
    no row says any more which lists the record was in. Returns True if the record was suppressed."""
    with connection.transaction():
        _take_locks(connection, account)
        removed = connection.execute(DELETE_SUPPRESSION,
                                     [account, kind, str(number), f"{kind}/{number}"]).fetchall()
        if removed:
            request_full_reads(connection, account)
    return bool(removed)


def suppressed_records(connection: Connection, account: str, kind: str) -> list[tuple[str, Any]]:
    """Returns (id, time of erasure) of every suppressed record of this kind, without its dependent
    records."""
    return connection.execute(
        "SELECT key, forgotten_at FROM mirror.forgotten WHERE account = %s AND entity = %s "
        "AND because IS NULL ORDER BY forgotten_at, key", [account, kind]).fetchall()


def erase_late_rows(connection: Connection, schema: str, account: str) -> None:
    """Erases rows that were loaded before their record was known to depend on a suppressed one: events of a
    task that the same run found on it."""
    with connection.transaction():
        dependents: dict[str, list[int]] = {}
        for kind, key in connection.execute(SELECT_DEPENDENTS, [account]).fetchall():
            dependents.setdefault(kind, []).append(int(key))
        for kind, numbers in dependents.items():
            _erase(connection, schema, kind, numbers, own=False)


def _take_locks(connection: Connection, account: str) -> None:
    """Takes the sync lock and the lock of the continuous sync until the transaction ends: no sync runs that
    does not know the new suppression list. Raises SyncRefused while a sync is running."""
    if not sync_lock(account).try_hold_until_commit(connection):
        raise SyncRefusedError(
            f"a sync of the account {account!r} is running: wait for it to end, then run this "
            "again. Nothing was changed")
    continuous_sync_lock(account).hold_until_commit(connection)
    landing_lock(account).hold_until_commit(connection)
    next_sync_number(connection, account)  # a sync that has lost its lock lands nothing more


# The account's tables


def _erase(connection: Connection, schema: str, kind: str, numbers: Sequence[int],
           own: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Deletes what belongs to the records and, if `own`, the records themselves and what points at them.
    Returns the primary keys of the deleted or changed rows by table."""
    parameters = {"ids": list(numbers), "keys": [str(number) for number in numbers],
             "likes": [f"%{number}%" for number in numbers],
             "kinds": [kind, *(one for one, many in LIST_BY_EVENT_KIND.items() if many == kind)]}
    erased: dict[str, list[tuple[Any, ...]]] = {}
    statements = ([*_concerned_delete_statements(schema, kind), *_pointer_update_statements(schema)] if own
                  else [])
    for table, statement in [*statements, *_delete_statements(schema, kind, own)]:
        erased.setdefault(table, []).extend(connection.execute(statement, parameters).fetchall())
    return erased


def _delete_statements(schema: str, kind: str, own: bool) -> Iterator[tuple[str, Composed]]:
    """Yields (table, DELETE statement), children before their parents, so that each row is counted."""
    for table in reversed(AccountBase.metadata.sorted_tables):
        conditions = [*_belonging_conditions(table, kind), *(_mentioning_conditions(table) if own else ()),
                      *([SQL("t.{} = ANY(%(ids)s::int8[])").format(Identifier(_key_columns(table)[-1]))]
                        if own and table.name == kind else ())]
        if conditions:
            yield table.name, SQL("DELETE FROM {} t WHERE {} RETURNING {}").format(
                Identifier(schema, table.name), OR.join(conditions), _key_list(table))


def _belonging_conditions(table: Table, kind: str) -> Iterator[Composable]:
    """Yields SQL conditions: rows that belong to a record of that kind, by the model's keys and `refers`."""
    for column in table.columns:
        enforced = any(key.column.table.name == kind for key in column.foreign_keys)
        if enforced or str(column.info.get("refers", "")).split(".")[0] == kind:
            yield SQL("t.{} = ANY(%(ids)s::int8[])").format(Identifier(column.name))
    if {"entity_type", "entity_id"} <= {*table.columns.keys()}:
        yield SQL("(t.entity_id = ANY(%(ids)s::int8[]) AND t.entity_type = ANY(%(kinds)s::text[]))")


def _mentioning_conditions(table: Table) -> Iterator[Composable]:
    """Yields SQL conditions: rows whose JSON names a record, which are values of fields that choose a record,
    and entries of append-only lists."""
    names = [column.name for each in ENTITIES
             if each.is_append_only and each.name == table.name
             for column in table_schema_of(each.model).columns if column.codec.sql_type == "jsonb"]
    names += ["value_json" for of in tables_of(CustomFieldValue) if of.name == table.name]
    for name in names:
        yield SQL(
            "(t.{0}::text LIKE ANY(%(likes)s::text[]) AND jsonb_path_exists(t.{0}, {1}, jsonb_build_object("
            "'kinds', %(kinds)s::text[], 'ids', to_jsonb(%(ids)s::int8[]) || to_jsonb(%(keys)s::text[]))))"
        ).format(Identifier(name), Literal(POINTS_AT_RECORD))


def _concerned_delete_statements(schema: str, kind: str) -> Iterator[tuple[str, Composed]]:
    """Yields (table, DELETE statement) for records whose declaration says that they concern the person. Has
    to run before the links that say so are deleted."""
    for each in ENTITIES:
        for child in each.children if each.concerns else ():
            of, parent = table_schema_of(child.model), table_schema_of(each.model)
            found = [column.name for column in of.table.columns
                     if column.info.get("refers") == f"{kind}.id"] if child.path[-1] in each.concerns else []
            pairs = zip(of.owner_key, parent.key, strict=True) if found else ()
            owned = AND.join(SQL("c.{} = t.{}").format(Identifier(mine), Identifier(theirs))
                             for mine, theirs in pairs)
            for column in found:
                yield each.name, SQL("DELETE FROM {} t USING {} c "
                                     "WHERE {} AND c.{} = ANY(%(ids)s::int8[]) RETURNING {}").format(
                    Identifier(schema, each.name), Identifier(schema, of.name), owned, Identifier(column),
                    _key_list(parent.table))


def _pointer_update_statements(schema: str) -> Iterator[tuple[str, Composed]]:
    """Yields (table, UPDATE statement) that removes the record from columns that list records
    (Entity.keep_only)."""
    for each in ENTITIES:
        for column, (type_, key) in each.keep_only.items():
            points = SQL("e ->> {} = ANY(%(kinds)s::text[]) AND e ->> {} = ANY(%(keys)s::text[])").format(
                Literal(type_), Literal(key))
            elements = SQL("jsonb_array_elements(CASE jsonb_typeof(t.{0}) WHEN 'array' THEN t.{0} END) "
                           "WITH ORDINALITY x (e, n)").format(Identifier(column))
            yield each.name, SQL(
                "UPDATE {} t SET {} = (SELECT jsonb_agg(e ORDER BY n) FROM {} WHERE NOT ({})) "
                "WHERE EXISTS (SELECT FROM {} WHERE {}) RETURNING {}").format(
                Identifier(schema, each.name), Identifier(column), elements, points, elements, points,
                _key_list(table_schema_of(each.model).table))


def _key_columns(table: Table) -> list[str]:
    return [column.name for column in table.primary_key.columns]


def _key_list(table: Table) -> Composed:
    return SQL(", ").join(SQL("t.{}").format(Identifier(name)) for name in _key_columns(table))


# The schema `mirror`


def _erase_mirror_state(connection: Connection, account: str, kind: str, number: int,
                  keys: Mapping[str, Sequence[Any]]) -> Counter[str]:
    """Erases the records `keys` (table → ids) from the schema `mirror`: hints, quarantine, webhook
    deliveries, and the examples of verifications. Returns the number of changed rows by table."""
    erased: Counter[str] = Counter()
    for each in ENTITIES:
        gone = [str(key) for key in keys.get(each.name, ())]
        paths = [listing.path for listing in each.listings
                 if listing.constants.get("entity_type", kind) == kind]
        for table, column, of in (("hints", "listing", paths), ("quarantine", "entity", [each.name])):
            key = "key" if table == "hints" else "record_key"
            erased[f"mirror.{table}"] += connection.execute(
                SQL("DELETE FROM mirror.{} WHERE account = %s AND {} = ANY(%s) AND {} = ANY(%s)").format(
                    Identifier(table), Identifier(column), Identifier(key)), [account, of, gone]
            ).rowcount if gone else 0
    erased["mirror.quarantine"] += _filter_quarantine(connection, account)
    erased += _erase_deliveries(connection, account, kind, number)
    erased["mirror.verifications"] += connection.execute(
        """UPDATE mirror.verifications SET examples = coalesce((
               SELECT jsonb_agg(e) FROM jsonb_array_elements_text(examples) e
               WHERE NOT starts_with(e, %(record)s)), '[]')
           WHERE account = %(account)s AND EXISTS (
               SELECT FROM jsonb_array_elements_text(examples) e WHERE starts_with(e, %(record)s))""",
        {"account": account, "record": f"{kind}/{number}: "}).rowcount
    return erased


def _erase_deliveries(connection: Connection, account: str, kind: str, number: int) -> Counter[str]:
    """Deletes stored webhook deliveries in which the number occurs anywhere, after their hints were enqueued;
    removes the number from mirror.unsorted_outcomes. Returns the number of changed rows by table."""
    enqueue_all_hints(connection, account)
    parameters = {"account": account, "number": number, "digits": str(number).encode()}
    erased = connection.execute("DELETE FROM mirror.webhook_deliveries WHERE account = %(account)s "
                                "AND position(%(digits)s::bytea IN body) > 0", parameters)
    named = [connection.execute(SQL("UPDATE mirror.unsorted_outcomes SET {0} = array_remove({0}, %(number)s) "
                                    "WHERE account = %(account)s AND %(number)s = ANY({0})").format(
                                        Identifier(column)), parameters).rowcount
             for column in ("leads", "contacts") if column == kind]
    return Counter({"mirror.webhook_deliveries": erased.rowcount, "mirror.unsorted_outcomes": sum(named)})


def _filter_quarantine(connection: Connection, account: str) -> int:
    """Filters the records in quarantine: deletes those that the suppression list rejects, and removes from
    the others the elements that point at a suppressed record. Returns the number of changed rows."""
    changed = 0
    for name, key, request, payload in connection.execute(
            "SELECT entity, record_key, request, payload FROM mirror.quarantine WHERE account = %s",
            [account]).fetchall():
        of, record = entity_named(name), decode(payload.encode()).value
        fixed = next((listing.constants for listing in of.listings
                      if listing.constants and f" {listing.path}" in request.partition("?")[0]), {})
        kept = Suppression(connection, account, of).filter_records([record], fixed)
        if kept != [record]:
            changed += 1
            statement = ("UPDATE mirror.quarantine SET payload = %(payload)s" if kept
                         else "DELETE FROM mirror.quarantine")
            connection.execute(
                f"{statement} WHERE account = %(account)s AND entity = %(entity)s "
                "AND record_key = %(key)s".encode(),
                {"account": account, "entity": name, "key": key, "payload": dumps(kept[0]) if kept else ""})
    return changed
