"""Versions and events of a few records, loaded as a sync loads them, and the history tables that follow from
them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from pipelines.entities.registry import entity_named
from pipelines.entities.spec import Record
from pipelines.history.rebuild import advance, consistency, rebuild
from pipelines.load.batch import Batch
from pipelines.load.loader import Loader, configure_session
from pipelines.normalize.normalizer import normalizer

Connection = psycopg.Connection[Any]
ZONE = ZoneInfo("Asia/Yekaterinburg")
START = 1_790_000_000
"""Unix time; all times below are seconds since then."""
PIPELINE = 7
A, B, C, D = 101, 102, 103, 104
"""Status ids."""


class ScriptedAccount:
    """An account whose records and events the test supplies."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.number = connection, 0

    def read(self, name: str, at: float, *records: Record) -> None:
        """Loads records as if a request that began at `at` had returned them."""
        normal, batch = normalizer(entity_named(name), ()), Batch()
        batch.add(normal.normalize_page(records, {}, ZONE), int((START + at) * 1_000_000), f"GET {name}")
        Loader(self.connection, "amocrm", "amocrm", normal).load(batch)

    def load_events(self, *events: Record) -> None:
        self.read("events", 1_000_000, *events)

    def advance(self) -> int:
        return advance(self.connection, "amocrm", "amocrm")

    def event(self, type_: str, at: int, after: list[Any], before: list[Any], kind: str = "lead",
              record: int = 1) -> Record:
        self.number += 1
        return {"id": f"01k{START + at:012d}{self.number:011d}", "type": type_, "entity_id": record,
                "entity_type": kind, "created_by": 5, "created_at": START + at, "value_after": after,
                "value_before": before}

    def status_event(self, at: int, before: int, after: int, record: int = 1) -> Record:
        def side(status: int) -> list[Any]:
            return [{"lead_status": {"id": status, "pipeline_id": PIPELINE}}]

        return self.event("lead_status_changed", at, side(after), side(before), record=record)

    def responsible_event(self, at: int, before: int | None, after: int | None, kind: str = "lead") -> Record:
        return self.event("entity_responsible_changed", at, [{"responsible_user": {"id": after}}],
                          [{"responsible_user": {"id": before}}], kind)

    def field_event(self, at: int, field: int, before: list[str], after: list[str],
                    type_: str = "") -> Record:
        def side(texts: list[str]) -> list[Any]:
            return [{"custom_field_value":
                     {"field_id": field, "field_type": 1, "enum_id": None, "text": text}} for text in texts]

        return self.event(type_ or f"custom_field_{field}_value_changed", at, side(after), side(before))

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return [tuple(_seconds(cell) for cell in row)
                for row in self.connection.execute(statement.encode()).fetchall()]

    def stages(self, lead: int = 1) -> list[tuple[Any, ...]]:
        """Returns (status, entered, left, source) of each interval."""
        return self.rows("SELECT status_id, entered_at, left_at, source FROM amocrm.lead_status_history "
                         f"WHERE lead_id = {lead} ORDER BY entered_at")

    def responsible(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT responsible_user_id, entered_at, left_at, source "
                         "FROM amocrm.responsible_history ORDER BY entered_at")

    def values(self) -> list[tuple[Any, ...]]:
        """Returns (field, at, texts before, texts after, source) of each change."""
        texts = ("(SELECT array_agg(v ->> 'text' ORDER BY n) "
                 "FROM jsonb_array_elements({}) WITH ORDINALITY x (v, n))")
        return self.rows(f"SELECT field_id, changed_at, {texts.format('value_before')}, "
                         f"{texts.format('value_after')}, source "
                         "FROM amocrm.custom_field_history ORDER BY changed_at, field_id")

    def observation_count(self) -> int:
        return int(self.rows("SELECT count(*) FROM amocrm.observations")[0][0])

    def row_versions(self) -> list[tuple[Any, ...]]:
        """Returns every row of history with the id of the transaction that wrote it."""
        return [row for table
                in ("lead_status_history", "responsible_history", "custom_field_history", "observations")
                for row in self.rows(f"SELECT xmin::text, t::text FROM amocrm.{table} t ORDER BY t::text")]


@contextmanager
def open_account(database: str) -> Iterator[ScriptedAccount]:
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) "
                       "VALUES ('amocrm', 'amocrm', 'http://127.0.0.1')")
        configure_session(opened)
        yield ScriptedAccount(opened)


def is_consistent(account: ScriptedAccount) -> bool:
    """True if the history is consistent by the asset check's measure. Fails the test if a second rebuild of
    everything writes a row."""
    before = account.row_versions()
    rebuild(account.connection, "amocrm")
    assert account.row_versions() == before
    return not any(each.wrong_rows for each in consistency(account.connection, "amocrm"))


def _seconds(cell: Any) -> Any:
    if isinstance(cell, datetime.datetime):
        second = cell.timestamp() - START
        return int(second) if second == int(second) else second
    return cell


def lead(status: int, updated: int, number: int = 1, **more: Any) -> Record:
    return {"id": number, "status_id": status, "pipeline_id": PIPELINE, "responsible_user_id": 5,
            "created_by": 3, "created_at": START, "updated_at": START + updated, "is_deleted": False} | more


def field(number: int, *values: Any, type_: str = "text") -> Record:
    """Returns an entry of custom_fields_values. Each value is a text, or a complete element."""
    return {"field_id": number, "field_name": f"Поле {number}", "field_type": type_,
            "values": [value if isinstance(value, dict) else {"value": value} for value in values]}
