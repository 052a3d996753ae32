"""Erases a person: every row that is one, belongs to one or points at one, and keeps it from coming back (forgotten.py) until that is lifted.

Which rows these are follows from the models: enforced keys and `refers`, (entity_type, entity_id), custom field values and log entries that
name the record in their JSON, and what a declaration says is `about` it. All of it is one transaction, under the lock of the account's syncs.
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
from pipelines.cursors import AGAIN
from pipelines.entities.registry import ENTITIES, entity
from pipelines.errors import SyncRefused
from pipelines.load.statements import AND
from pipelines.normalize.suppression import KINDS, Forgotten, remember
from pipelines.postgres.locks import turn_of
from pipelines.schema.json_text import decode, dumps
from pipelines.schema.tables import models_of, shape
from pipelines.webhooks.inbox import absorb_all

Connection = psycopg.Connection[Any]
OR = SQL(" OR ")
NOT_REACHED = (
    "Not reached: backups and copies of the database (Postgres frees the space of erased rows when it vacuums), Dagster's logs and events, what BI "
    "tools keep, and amoCRM, where the contact still is unless you delete it. Texts of other records that name the person but do not point at the "
    "contact (the name of a deal, a note on it, earlier values of its fields) stay: look for them.")
POINTS = "$.** ? ((@.type == $kinds[*] && @.id == $ids[*]) || (@.entity_type == $kinds[*] && (@.entity_id == $ids[*] || @.id == $ids[*])))"
LIFT = "DELETE FROM mirror.forgotten WHERE account = %s AND (entity = %s AND key = %s AND because IS NULL OR because = %s) RETURNING 1"
READ_AGAIN = "UPDATE mirror.cursors SET position = position || jsonb_build_object(%s::text, true) WHERE account = %s"
MET = "SELECT entity, key FROM mirror.forgotten WHERE account = %s AND because IS NOT NULL"


def forget(connection: Connection, schema: str, account: str, kind: str, number: int) -> dict[str, int]:
    """Erases the record now and for good; returns the rows touched, per table. In a transaction of its own, or of the caller's."""
    with connection.transaction():
        _alone(connection, account)
        erased: Counter[str] = Counter()
        remember(connection, account, kind, [(str(number), None)])
        keys = {kind: [number]}
        for table, rows in _erase(connection, schema, kind, [number]).items():
            erased[f"{schema}.{table}"] += len(rows)
            keys.setdefault(table, []).extend(row[-1] for row in rows)
        for dependent in sorted({*keys} & {*KINDS.values()} - {kind}):
            remember(connection, account, dependent, [(str(key), f"{kind}/{number}") for key in keys[dependent]])
            for table, rows in _erase(connection, schema, dependent, keys[dependent], own=False).items():
                erased[f"{schema}.{table}"] += len(rows)
        erased += _erase_memory(connection, account, kind, number, keys)
    return {table: count for table, count in sorted(erased.items()) if count}


def lift(connection: Connection, account: str, kind: str, number: int) -> bool:
    """Lets the record come back, with the next sync: which rows were about it nobody knows any more, so that one reads every list whole.
    Whether it was forgotten."""
    with connection.transaction():
        _alone(connection, account)
        lifted = connection.execute(LIFT, [account, kind, str(number), f"{kind}/{number}"]).fetchall()
        if lifted:
            connection.execute(READ_AGAIN, [AGAIN, account])
    return bool(lifted)


def listed(connection: Connection, account: str, kind: str) -> list[tuple[str, Any]]:
    """(id, when) of everything that is forgotten."""
    return connection.execute("SELECT key, forgotten_at FROM mirror.forgotten WHERE account = %s AND entity = %s AND because IS NULL "
                              "ORDER BY forgotten_at, key", [account, kind]).fetchall()


def settle(connection: Connection, schema: str, account: str) -> None:
    """What landed before it was known to be on something forgotten: events of a task that was met on it in the same run."""
    with connection.transaction():
        found: dict[str, list[int]] = {}
        for kind, key in connection.execute(MET, [account]).fetchall():
            found.setdefault(kind, []).append(int(key))
        for kind, numbers in found.items():
            _erase(connection, schema, kind, numbers, own=False)


def _alone(connection: Connection, account: str) -> None:
    """No sync runs that has not heard of it."""
    row = connection.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"amocrm-mirror sync {account}"]).fetchone()
    if not row or not row[0]:
        raise SyncRefused(f"a sync of the account {account!r} is running: wait for it to end, then run this again. Nothing was changed")
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [turn_of(account)])


# The account's tables


def _erase(connection: Connection, schema: str, kind: str, numbers: Sequence[int], own: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Deletes the records, if they are to go as well, and what belongs to them; returns the keys of the deleted rows, per table."""
    about = {"ids": list(numbers), "keys": [str(number) for number in numbers], "likes": [f"%{number}%" for number in numbers],
             "kinds": [kind, *(one for one, many in KINDS.items() if many == kind)]}
    erased: dict[str, list[tuple[Any, ...]]] = {}
    statements = [*_about(schema, kind), *_pointers(schema)] if own else []
    for table, statement in [*statements, *_deletes(schema, kind, own)]:
        erased.setdefault(table, []).extend(connection.execute(statement, about).fetchall())
    return erased


def _deletes(schema: str, kind: str, own: bool) -> Iterator[tuple[str, Composed]]:
    """Children before their parents, so that each is counted."""
    for table in reversed(AccountBase.metadata.sorted_tables):
        conditions = [*_of(table, kind), *(_deep(table) if own else ()),
                      *([SQL("t.{} = ANY(%(ids)s::int8[])").format(Identifier(_key(table)[-1]))] if own and table.name == kind else ())]
        if conditions:
            yield table.name, SQL("DELETE FROM {} t WHERE {} RETURNING {}").format(Identifier(schema, table.name), OR.join(conditions), _keys(table))


def _of(table: Table, kind: str) -> Iterator[Composable]:
    """Rows that belong to a record of that kind, as the model says it."""
    for column in table.columns:
        enforced = any(key.column.table.name == kind for key in column.foreign_keys)
        if enforced or str(column.info.get("refers", "")).split(".")[0] == kind:
            yield SQL("t.{} = ANY(%(ids)s::int8[])").format(Identifier(column.name))
    if {"entity_type", "entity_id"} <= {*table.columns.keys()}:
        yield SQL("(t.entity_id = ANY(%(ids)s::int8[]) AND t.entity_type = ANY(%(kinds)s::text[]))")


def _deep(table: Table) -> Iterator[Composable]:
    """Rows that name a record in their JSON: values of fields that choose a record, and entries of a log."""
    names = [column.name for each in ENTITIES if each.moving and each.moving.immutable and each.name == table.name
             for column in shape(each.model).columns if column.kind.sql_type == "jsonb"]
    names += ["value_json" for of in models_of(CustomFieldValue) if of.name == table.name]
    for name in names:
        yield SQL("(t.{0}::text LIKE ANY(%(likes)s::text[]) AND jsonb_path_exists(t.{0}, {1}, jsonb_build_object("
                  "'kinds', %(kinds)s::text[], 'ids', to_jsonb(%(ids)s::int8[]) || to_jsonb(%(keys)s::text[]))))").format(
            Identifier(name), Literal(POINTS))


def _about(schema: str, kind: str) -> Iterator[tuple[str, Composed]]:
    """Records whose declaration says that they are about it: before the links go that tell so."""
    for each in ENTITIES:
        for child in each.children if each.about else ():
            of, parent = shape(child.model), shape(each.model)
            found = [column.name for column in of.table.columns if column.info.get("refers") == f"{kind}.id"] if child.path[-1] in each.about else []
            pairs = zip(of.owner, parent.key, strict=True) if found else ()
            owned = AND.join(SQL("c.{} = t.{}").format(Identifier(mine), Identifier(theirs)) for mine, theirs in pairs)
            for column in found:
                yield each.name, SQL("DELETE FROM {} t USING {} c WHERE {} AND c.{} = ANY(%(ids)s::int8[]) RETURNING {}").format(
                    Identifier(schema, each.name), Identifier(schema, of.name), owned, Identifier(column), _keys(parent.table))


def _pointers(schema: str) -> Iterator[tuple[str, Composed]]:
    """Lists of records in a column (Entity.pointers) lose the one."""
    for each in ENTITIES:
        for column, (type_, key) in each.pointers.items():
            points = SQL("e ->> {} = ANY(%(kinds)s::text[]) AND e ->> {} = ANY(%(keys)s::text[])").format(Literal(type_), Literal(key))
            elements = SQL("jsonb_array_elements(CASE jsonb_typeof(t.{0}) WHEN 'array' THEN t.{0} END) WITH ORDINALITY x (e, n)").format(
                Identifier(column))
            yield each.name, SQL("UPDATE {} t SET {} = (SELECT jsonb_agg(e ORDER BY n) FROM {} WHERE NOT ({})) "
                                 "WHERE EXISTS (SELECT FROM {} WHERE {}) RETURNING {}").format(
                Identifier(schema, each.name), Identifier(column), elements, points, elements, points, _keys(shape(each.model).table))


def _key(table: Table) -> list[str]:
    return [column.name for column in table.primary_key.columns]


def _keys(table: Table) -> Composed:
    return SQL(", ").join(SQL("t.{}").format(Identifier(name)) for name in _key(table))


# The mirror's memory


def _erase_memory(connection: Connection, account: str, kind: str, number: int, keys: Mapping[str, Sequence[Any]]) -> Counter[str]:
    erased: Counter[str] = Counter()
    for each in ENTITIES:
        gone = [str(key) for key in keys.get(each.name, ())]
        paths = [listing.path for listing in each.listings if listing.fixed.get("entity_type", kind) == kind]
        for table, column, of in (("hints", "listing", paths), ("quarantine", "entity", [each.name])):
            key = "key" if table == "hints" else "record_key"
            erased[f"mirror.{table}"] += connection.execute(
                SQL("DELETE FROM mirror.{} WHERE account = %s AND {} = ANY(%s) AND {} = ANY(%s)").format(
                    Identifier(table), Identifier(column), Identifier(key)), [account, of, gone]).rowcount if gone else 0
    erased["mirror.quarantine"] += _erase_payloads(connection, account)
    erased += _erase_deliveries(connection, account, kind, number)
    examples = [f"{kind}/{number}: {word}" for word in ("missing", "stale", "extra")]
    erased["mirror.verifications"] += connection.execute(
        "UPDATE mirror.verifications SET examples = examples - %(examples)s::text[] WHERE account = %(account)s AND examples ?| %(examples)s::text[]",
        {"account": account, "examples": examples}).rowcount
    return erased


def _erase_deliveries(connection: Connection, account: str, kind: str, number: int) -> Counter[str]:
    """Webhooks as they were received, wherever the number stands in them: what they tell of is queued first."""
    absorb_all(connection, account)
    about = {"account": account, "number": number, "digits": str(number).encode()}
    erased = connection.execute("DELETE FROM mirror.webhook_deliveries WHERE account = %(account)s "
                                "AND position(%(digits)s::bytea IN body) > 0", about)
    named = [connection.execute(SQL("UPDATE mirror.unsorted_outcomes SET {0} = array_remove({0}, %(number)s) WHERE account = %(account)s "
                                    "AND %(number)s = ANY({0})").format(Identifier(column)), about).rowcount
             for column in ("leads", "contacts") if column == kind]
    return Counter({"mirror.webhook_deliveries": erased.rowcount, "mirror.unsorted_outcomes": sum(named)})


def _erase_payloads(connection: Connection, account: str) -> int:
    """Records in quarantine: those that would not land any more go, in others what points at it."""
    changed = 0
    for name, key, request, payload in connection.execute(
            "SELECT entity, record_key, request, payload FROM mirror.quarantine WHERE account = %s", [account]).fetchall():
        of, record = entity(name), decode(payload.encode()).value
        fixed = next((listing.fixed for listing in of.listings if listing.fixed and f" {listing.path}" in request.partition("?")[0]), {})
        kept = Forgotten(connection, account, of).cut([record], fixed)
        if kept != [record]:
            changed += 1
            statement = "UPDATE mirror.quarantine SET payload = %(payload)s" if kept else "DELETE FROM mirror.quarantine"
            connection.execute(f"{statement} WHERE account = %(account)s AND entity = %(entity)s AND record_key = %(key)s".encode(),
                               {"account": account, "entity": name, "key": key, "payload": dumps(kept[0]) if kept else ""})
    return changed
