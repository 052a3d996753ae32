"""What the mirror knows of itself: per entity the rows, the last run, its completeness, and the quarantine."""

from __future__ import annotations

import datetime
from typing import Any

from psycopg.rows import dict_row
from rich.table import Table

from pipelines.accounts import registry
from pipelines.bi.state import faults
from pipelines.entities.registry import ENTITIES
from pipelines.errors import SyncRefused
from pipelines.installation import Mirror
from pipelines.migrate import pending
from pipelines.sync.run_log import is_syncing, last_runs, row_counts

QUARANTINE = """
SELECT entity, record_key, reason, request, last_seen_at, times
FROM mirror.quarantine WHERE account = %s ORDER BY last_seen_at DESC LIMIT 20"""


def gather(mirror: Mirror) -> dict[str, Any]:
    """Everything, as plain values. Raises SyncRefused when the database has no tables yet."""
    if any(pending(mirror.conninfo, mirror.schema).values()):
        raise SyncRefused(f"the tables of {mirror.schema!r} are not there or not up to date: run `amocrm-mirror migrate`, then `amocrm-mirror sync`")
    with mirror.connect_autocommit() as connection, connection.cursor(row_factory=dict_row) as cursor:
        alive = is_syncing(connection, mirror.account)
        runs = last_runs(connection, mirror.account, [entity.name for entity in ENTITIES])
        quarantine = cursor.execute(QUARANTINE, [mirror.account]).fetchall()
        count = cursor.execute("SELECT count(*) AS count FROM mirror.quarantine WHERE account = %s", [mirror.account]).fetchone()
        rows, faults = row_counts(connection, mirror.schema), faults(connection, mirror.schema)
        own = next((each for each in registry.known(connection) if each.name == mirror.account and each.has_tokens), None)
    entities = [{"entity": entity.name, "rows": rows[entity.name], **_run(runs.get(entity.name))} for entity in ENTITIES]
    code = 1 if own and (own.blocked or own.revoked) else _exit_code(entities, count["count"] if count else 0, faults)
    return {"account": mirror.account, "schema": mirror.schema, "syncing": alive, "standing": own.standing if own else "", "entities": entities,
            "quarantined": count["count"] if count else 0, "quarantine": quarantine, "views_not_rebuilt": faults, "exit_code": code}


def _run(row: dict[str, Any] | None) -> dict[str, Any]:
    return row or {"state": "never"}


def _exit_code(entities: list[dict[str, Any]], quarantined: int, faults: dict[str, str]) -> int:
    states = {entity["state"] for entity in entities}
    if states & {"failed", "interrupted"}:
        return 1
    return 3 if quarantined or faults or states & {"incomplete", "never"} else 0


def render(found: dict[str, Any]) -> tuple[Table, list[str]]:
    """The table, and what it cannot say."""
    zone = datetime.datetime.now().astimezone().tzname()
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"{found['account']} in schema {found['schema']}", title_justify="left")
    for title in ("entity", "rows", f"last run ({zone})", "state", "how", "requests", "complete to", "lag"):
        table.add_column(title, justify="right" if title in ("rows", "requests", "lag") else "left")
    lines = []
    for entity in found["entities"]:
        table.add_row(entity["entity"], f"{entity['rows']:,}", _at(entity.get("started_at")), entity["state"], entity.get("mode") or "",
                      str(entity.get("requests", "")), _at(entity.get("watermark")), _lag(entity.get("lag_seconds")))
        if entity.get("reason"):
            lines.append(f"{entity['entity']}: {entity['reason']}")
        if entity.get("in_quarantine"):
            lines.append(f"{entity['entity']}: {entity['in_quarantine']} records in quarantine")
    if found["quarantined"]:
        lines.append(f"{found['quarantined']} records in quarantine; the latest:")
        lines += [f"  {row['entity']} {row['record_key']}: {row['reason']} ({row['request']})" for row in found["quarantine"]]
    if found["standing"]:
        lines.append(f"The account is {found['standing']}. What is mirrored stays as it is.")
    lines += [f"view {view} could not be rebuilt: {why}" for view, why in found["views_not_rebuilt"].items()]
    if found["syncing"]:
        lines.append("A sync is running now.")
    return table, lines


def _at(moment: datetime.datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def _lag(seconds: int | None) -> str:
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"
