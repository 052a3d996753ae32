"""Repairs one entity: reads again what a verification found to differ, loads it, and marks deleted what is
not in amoCRM."""

from __future__ import annotations

from dataclasses import replace

from psycopg.sql import SQL

from pipelines.accounts.target import Connection
from pipelines.amocrm.client import CountingClient
from pipelines.entities.change_capture import without_captures
from pipelines.entities.spec import Entity
from pipelines.load.loader import correct_read_times
from pipelines.load.statements import AND, name
from pipelines.load.tombstones import AbsentRow
from pipelines.load.writer import write_embedded
from pipelines.schema.tables import table_schema_of
from pipelines.sync.context import EntityResult, SyncContext, tell_time
from pipelines.sync.entity_sync import EntitySync
from pipelines.sync.hint_sync import HintSync
from pipelines.verify.differences import EXTRA
from pipelines.verify.outcomes import EntityVerification
from pipelines.verify.queries import orphaned_children


def repair_entity(context: SyncContext, entity: Entity, client: CountingClient, connection: Connection,
                  result: EntityResult, outcome: EntityVerification) -> None:
    """Re-reads what differs, or syncs the entity whole if it has no incremental reads."""
    entity = replace(entity, before_upsert=without_captures(entity.before_upsert))
    tell_time(connection, client)
    _correct_read_times(context, connection, entity, outcome)
    if entity.incremental:
        hinted = HintSync(context, entity, client, connection, result)
        _delete_orphaned_children(hinted.sync, outcome)
        hinted.repair({path: {key: each.kind for key, each in keys.items()}
                       for path, keys in outcome.differences.items()})
        sync = hinted.sync
    else:
        sync = EntitySync(context, entity, client, connection, result)
        _delete_orphaned_children(sync, outcome)
        sync.run()
    _mark_stray_rows_deleted(sync, entity, outcome)
    _write_embedded(context, connection, outcome)


def _correct_read_times(context: SyncContext, connection: Connection, entity: Entity,
                        outcome: EntityVerification) -> None:
    with connection.transaction():
        context.check_fence(connection)
        for model in (entity.model, *outcome.embedded):
            correct_read_times(connection, context.target.schema, table_schema_of(model).name)


def _delete_orphaned_children(sync: EntitySync, outcome: EntityVerification) -> None:
    """Deletes the child rows of records that have no row: they would be in the way of the record's own."""
    stage = sync.loader.stage
    with sync.connection.transaction():
        sync.context.check_fence(sync.connection)
        for child in stage.child_replacements:
            if child.child.name in outcome.differences:
                sync.connection.execute(SQL("DELETE FROM ") + orphaned_children(
                    stage.schema, stage.table_schema, child))


def _mark_stray_rows_deleted(sync: EntitySync, entity: Entity, outcome: EntityVerification) -> None:
    """Marks rows deleted that belong to no list or whose id amoCRM cannot have given. Both were found
    twice."""
    paths, now = {each.path for each in entity.listings}, int(sync.reader.client.clock.now() * 1_000_000)
    for path, keys in outcome.differences.items():
        with sync.connection.transaction():
            sync.context.check_fence(sync.connection)
            sync.result.counts += sync.tombstones.tombstone(
                AbsentRow(key, None, now) for key, each in keys.items() if each.kind == EXTRA
                and (each.has_impossible_id or (path == entity.name and path not in paths)))


def _write_embedded(context: SyncContext, connection: Connection, outcome: EntityVerification) -> None:
    """Writes the embedded objects whose rows differ. A row that comes from them alone is never deleted."""
    schema = context.target.schema
    with connection.transaction():
        context.check_fence(connection)
        write_embedded(connection, schema, outcome.embedded)
        for model, rows in outcome.embedded.items():
            table_schema = table_schema_of(model)
            same = AND.join(SQL("{} = %s").format(name(column)) for column in table_schema.key)
            with connection.cursor() as cursor:
                cursor.executemany(SQL("UPDATE {} SET _deleted_at = NULL WHERE {} AND NOT _listed").format(
                    name(schema, table_schema.name), same), [list(key) for key in rows])
