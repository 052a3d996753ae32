"""State of the mirror: rows, last run and completeness per entity, and the quarantine."""

from __future__ import annotations

from typing import Any

from psycopg.rows import dict_row

from pipelines.accounts import registry
from pipelines.bi.builder import view_entities
from pipelines.bi.state import view_faults
from pipelines.entities.registry import ENTITIES
from pipelines.installation import Installation
from pipelines.migrate import require_tables
from pipelines.sync.run_log import is_syncing, last_runs, row_counts

SELECT_QUARANTINE = """
SELECT entity, record_key, reason, request, last_seen_at, times
FROM mirror.quarantine WHERE account = %s ORDER BY last_seen_at DESC LIMIT 20"""


def gather(mirror: Installation) -> dict[str, Any]:
    """Returns the whole state as plain values, with the exit code. Asks only Postgres.

    Raises SyncRefusedError if the tables do not exist or are not up to date.
    """
    require_tables(mirror.conninfo, mirror.schema)
    with mirror.connect_autocommit() as connection, connection.cursor(row_factory=dict_row) as cursor:
        syncing = is_syncing(connection, mirror.account)
        runs = last_runs(connection, mirror.account, [entity.name for entity in ENTITIES])
        quarantine = cursor.execute(SELECT_QUARANTINE, [mirror.account]).fetchall()
        count = cursor.execute("SELECT count(*) AS count FROM mirror.quarantine WHERE account = %s",
                               [mirror.account]).fetchone()
        rows, faults = row_counts(connection, mirror.schema), view_faults(connection, mirror.schema)
        record = next((each for each in registry.all_accounts(connection)
                       if each.name == mirror.account and each.has_tokens), None)
    entities = [{"entity": entity.name, "rows": rows[entity.name], **_run_or_never(runs.get(entity.name))}
                for entity in ENTITIES]
    code = (1 if record and (record.blocked or record.revoked)
            else _exit_code(entities, count["count"] if count else 0, faults))
    missing = [each["entity"] for each in entities
               if not each.get("was_complete") and each["state"] != "skipped"]
    return {"account": mirror.account, "schema": mirror.schema, "syncing": syncing, "not_there_yet": missing,
            "views_that_lack_records": sorted(view for view, shown in view_entities().items()
                                              if shown & set(missing)),
            "standing": record.not_synced_reason if record else "", "entities": entities,
            "quarantined": count["count"] if count else 0, "quarantine": quarantine,
            "views_not_rebuilt": faults, "exit_code": code}


def _run_or_never(row: dict[str, Any] | None) -> dict[str, Any]:
    return row or {"state": "never"}


def _exit_code(entities: list[dict[str, Any]], quarantined: int, faults: dict[str, str]) -> int:
    states = {entity["state"] for entity in entities}
    if states & {"failed", "interrupted"}:
        return 1
    return 3 if quarantined or faults or states & {"incomplete", "never"} else 0
