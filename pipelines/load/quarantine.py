"""mirror.quarantine: records of amoCRM's that could not become rows. A record leaves the quarantine when a
later reading of it could be loaded."""

from __future__ import annotations

import hashlib
from typing import Any

import psycopg

from pipelines.load.batch import Batch
from pipelines.schema.json_text import dumps

Connection = psycopg.Connection[Any]


class Quarantine:
    """The quarantined records of one entity of one account. Reads their keys once, when it is created."""

    def __init__(self, connection: Connection, account: str, entity: str) -> None:
        self.connection, self.account, self.entity = connection, account, entity
        self.keys = {row[0] for row in connection.execute(
            "SELECT record_key FROM mirror.quarantine WHERE account = %s AND entity = %s",
            [account, entity]).fetchall()}

    def store(self, batch: Batch) -> int:
        """Stores the batch's records that could not become rows, under their id or, without one, a hash of
        their JSON text. Returns their number."""
        for record, reason, request in batch.unusable:
            payload = dumps(record)
            key = record.get("id") if isinstance(record, dict) else None
            key = str(key) if isinstance(key, int | str) else hashlib.sha256(payload.encode()).hexdigest()
            self.connection.execute(
                "INSERT INTO mirror.quarantine (account, entity, record_key, reason, request, payload) "
                "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (account, entity, record_key) DO UPDATE SET "
                "reason = excluded.reason, request = excluded.request, "
                "payload = excluded.payload, last_seen_at = now(), times = quarantine.times + 1",
                [self.account, self.entity, key, reason, request, payload])
        return len(batch.unusable)

    def release(self, batch: Batch) -> None:
        """Removes the batch's records that have been loaded."""
        loaded = (list({str(rows.key[-1]) for _, rows in batch.rows.values()} & self.keys)
                  if self.keys else [])
        if loaded:
            self.connection.execute(
                "DELETE FROM mirror.quarantine WHERE account = %s AND entity = %s AND record_key = ANY(%s)",
                [self.account, self.entity, loaded])
