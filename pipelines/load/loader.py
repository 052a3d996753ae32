"""A batch → the mirror, in one transaction: rows (`load/writer.py`), quarantine, suppressed dependents,
notification and cursor."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import psycopg
from psycopg import pq
from psycopg.sql import SQL, Identifier

from pipelines.cursors import PLAUSIBLE_SECONDS, SERVER_NOW, write_position
from pipelines.load.batch import Batch
from pipelines.load.counts import Counts
from pipelines.load.notifications import notify_listeners
from pipelines.load.quarantine import Quarantine
from pipelines.load.stage import Stage
from pipelines.load.writer import RecordWriter, write_embedded
from pipelines.normalize.normalizer import Normalizer
from pipelines.normalize.suppression import Suppression
from pipelines.postgres.locks import table_lock

Connection = psycopg.Connection[Any]


def configure_session(connection: Connection) -> None:
    """Sets up a connection for loading. Sequential scans are off, so tables are read through their indexes
    only: a batch costs the same in a table of a million rows as in one of a thousand, whatever the planner
    assumes about tables that were empty a moment ago."""
    connection.execute("SET enable_seqscan = off; SET random_page_cost = 1.1; SET work_mem = '64MB'; "
                       "SET jit = off; SET timezone = 'UTC'; SET client_min_messages = warning")
    connection.prepare_threshold = None


def correct_read_times(connection: Connection, schema: str, table: str) -> int:
    """Corrects rows that claim to have been read later than now: an earlier version has measured that on a
    clock that was wrong. They would refuse every newer reading. Returns their number."""
    return connection.execute(SQL(
        "UPDATE {0} SET _synced_at = {1} - interval '1 hour' WHERE _synced_at > {1} + {2}").format(
        Identifier(schema, table), SQL(SERVER_NOW), SQL(f"interval '{PLAUSIBLE_SECONDS} seconds'"))).rowcount


class Loader:
    """Loads batches of one entity of one account, on one connection."""

    def __init__(self, connection: Connection, schema: str, account: str, normalizer: Normalizer,
                 suppression: Suppression | None = None) -> None:
        """`suppression`: the filter that the batches have passed, whose dependents are stored; None: none."""
        self.connection, self.account, self.entity = connection, account, normalizer.entity
        self.suppression = suppression
        self.stage = Stage(connection, schema, normalizer)
        self.writer = RecordWriter(self.stage, account, self.entity)
        self.quarantine = Quarantine(connection, account, self.entity.name)

    def load(self, batch: Batch, position: Mapping[str, Any] | None = None, listing: str = "",
             keep_seen: bool = False) -> Counts:
        """Loads the batch in one transaction, the caller's if there is one: its rows, its quarantine, and
        `position` as the cursor of `listing` (None: the cursor stays). `keep_seen`: also records the keys as
        seen, for the complete read of a list."""
        counts = Counts(seen=batch.seen, replaced_characters=batch.replaced_characters)
        is_inside = self.connection.info.transaction_status == pq.TransactionStatus.INTRANS
        with nullcontext() if is_inside else self.connection.transaction():
            if batch.rows:
                self.stage.create()
                table_lock(self.stage.schema, self.stage.table_schema.name).hold_until_commit(self.connection)
                write_embedded(self.connection, self.stage.schema, batch.embedded)
                written = self.writer.write(batch, keep_seen)
                counts += written.counts
                notify_listeners(self.connection, self.account, self.entity.name, written.ids)
            counts.quarantined += self.quarantine.store(batch)
            self.quarantine.release(batch)
            if self.suppression is not None:
                self.suppression.save_dependents(self.connection)
            if position is not None:
                write_position(self.connection, self.account, self.entity.name, listing, position)
        return counts
