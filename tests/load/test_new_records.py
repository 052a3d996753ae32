"""New records are copied into their table without a stage if nothing has to be compared: the same rows, hints
and history as through a stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.entities.registry import ENTITIES, entity_named
from pipelines.entities.spec import Entity, Record
from pipelines.load.batch import Batch, TimedRecord
from pipelines.load.loader import Loader, configure_session
from pipelines.load.stage import Stage
from pipelines.load.statements import ReplaceChildren
from pipelines.normalize.normalizer import Normalizer, normalizer
from pipelines.normalize.rows import Row
from tests.conftest import temporary_database
from tests.load.test_loader import Connection, batch, column
from tests.support.records import records

SILENT = [each for each in ENTITIES if each.skip_before_when]
NOW = 1_790_000_000
EVERYTHING = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname = 'amocrm'
   OR (schemaname, tablename) IN (('mirror', 'hints'), ('mirror', 'forgotten'), ('mirror', 'quarantine'))
ORDER BY 1"""


class Watched(Loader):
    """Counts the rows that it stages."""

    def __init__(self, connection: Connection, normal: Normalizer) -> None:
        super().__init__(connection, "amocrm", "amocrm", normal)
        self.staged, copy = 0, self.stage.copy_to_stage

        def counting(rows: Sequence[TimedRecord], children: Iterable[ReplaceChildren]) -> None:
            self.staged += len(rows)
            copy(rows, children)

        self.stage.copy_to_stage = counting  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def connection(postgres_server: str, template_database: str) -> Iterator[Connection]:
    with temporary_database(postgres_server, template_database) as database, psycopg.connect(
            database, autocommit=True) as opened:
        opened.execute(
            "INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('amocrm', 'amocrm', "
            "'http://127.0.0.1')")
        configure_session(opened)
        yield opened


def landed(connection: Connection, of: Entity, payload: list[Record], keep_seen: bool = False,
           first: Iterable[str] = ()) -> tuple[int, list[list[Any]]]:
    """Returns how many rows were staged, and all that was written; the load is rolled back. With `keep_seen`
    everything is staged."""
    fixed = dict(of.listings[0].constants)
    landing = Watched(connection, normalizer(of, tuple(fixed)))
    with connection.transaction(force_rollback=True):
        for statement in first:
            connection.execute(statement.encode())
        landing.load(batch(of.name, (NOW // 60, payload), **fixed), keep_seen=keep_seen)
        written = [column(connection, f"SELECT t::text FROM {table} t ORDER BY 1")
                   for table in column(connection, EVERYTHING)]
    return landing.staged, written


def watermark(name: str, path: str, at: int) -> str:
    return ("INSERT INTO mirror.cursors (account, entity, listing, position) "
            f"VALUES ('amocrm', '{name}', '{path}', '{{\"watermark\": {at}}}')")


SEEDED = "DELETE FROM amocrm.history_due WHERE entity_type = 'all'"
RECORD: dict[str, Record] = {
    **dict.fromkeys(("leads", "contacts", "companies", "customers", "catalog_elements"), {"id": 1}),
    "tasks": {"id": 1, "entity_type": "leads", "entity_id": 7, "is_completed": False},
    "events": {"id": "01k", "type": "lead_deleted", "entity_type": "lead", "entity_id": 7, "created_at": NOW}}
NEWS = {**dict.fromkeys(("leads", "contacts", "companies", "customers", "catalog_elements"), [SEEDED]),
        "tasks": [watermark("tasks", "tasks", NOW)], "events": [watermark("leads", "leads", NOW)]}
"""Of each kind a record, and after which statements it is news."""


@pytest.mark.parametrize("of", ENTITIES, ids=lambda each: each.name)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_same_is_written_with_and_without_a_stage(of: Entity, data: st.DataObject,
                                                      connection: Connection) -> None:
    payload = data.draw(st.lists(records(of, dict(of.listings[0].constants)), min_size=1, max_size=3))
    assert landed(connection, of, payload)[1] == landed(connection, of, payload, keep_seen=True)[1]


@pytest.mark.parametrize("of", SILENT, ids=lambda each: each.name)
def test_in_a_first_reading_new_records_need_no_stage(of: Entity, connection: Connection) -> None:
    first = [watermark("leads", "leads", NOW + 100)] if of.name == "events" else []
    staged, written = landed(connection, of, [RECORD[of.name]], first=first)
    assert staged == 0
    assert written == landed(connection, of, [RECORD[of.name]], keep_seen=True, first=first)[1]


@pytest.mark.parametrize("of", SILENT, ids=lambda each: each.name)
def test_records_that_cause_hints_are_staged(of: Entity, connection: Connection) -> None:
    staged, written = landed(connection, of, [RECORD[of.name]], first=NEWS[of.name])
    assert staged == 1
    payload = [rows for table, rows in zip(column(connection, EVERYTHING), written, strict=True)
               if table in ("mirror.hints", "amocrm.history_due")]
    assert any("7" in row or of.name in row for rows in payload for row in rows)


def test_events_are_staged_after_the_first_build_of_history(connection: Connection) -> None:
    moved = RECORD["events"] | {"type": "lead_status_changed", "created_at": 5}
    staged, written = landed(connection, entity_named("events"), [moved],
                             first=[SEEDED, watermark("leads", "leads", NOW)])
    assert staged == 1
    assert "(leads,7)" in written[column(connection, EVERYTHING).index("amocrm.history_due")]


def test_a_new_record_that_is_deleted_is_marked(connection: Connection) -> None:
    landing = Watched(connection, normalizer(entity_named("leads"), ()))
    with connection.transaction(force_rollback=True):
        landing.load(
            batch("leads", (10, [{"id": 1, "is_deleted": True}, {"id": 2, "is_deleted": False}, {"id": 3}])))
        assert landing.staged == 0
        assert column(connection, "SELECT _deleted_at = _synced_at FROM amocrm.leads ORDER BY id") == [
            True, None, None]


def test_a_known_record_is_staged_and_its_neighbours_are_not(connection: Connection) -> None:
    landing = Watched(connection, normalizer(entity_named("leads"), ()))
    with connection.transaction(force_rollback=True):
        landing.load(batch("leads", (10, [{"id": 1, "name": "first"}])))
        counts = landing.load(batch("leads", (20, [{"id": 1, "name": "second"}, {"id": 2}])))
        assert (landing.staged, counts.updated, counts.inserted) == (1, 1, 1)
        assert column(connection, "SELECT name FROM amocrm.leads ORDER BY id") == ["second", None]


def test_children_with_a_list_of_their_own_are_staged(connection: Connection) -> None:
    payload = {"id": 1, "_embedded": {"statuses": [{"id": 5, "pipeline_id": 1, "name": "New"}]}}
    staged, written = landed(connection, entity_named("pipelines"), [payload])
    assert staged == 1
    assert len(written[column(connection, EVERYTHING).index("amocrm.statuses")]) == 1


def test_a_row_written_meanwhile_by_another_list_is_replaced(database: str,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    existing_keys = Stage.existing_keys

    def late(stage: Stage, batch: Batch) -> set[Row]:
        """Between the look-up and the insert, another entity's load writes the same record."""
        found = existing_keys(stage, batch)
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("INSERT INTO amocrm.loss_reasons (id, name, _synced_at, _listed) "
                          "VALUES (9, 'embedded', now(), false)")
        return found

    monkeypatch.setattr(Stage, "existing_keys", late)

    with psycopg.connect(database, autocommit=True) as connection:
        configure_session(connection)
        landing = Loader(connection, "amocrm", "amocrm", normalizer(entity_named("loss_reasons"), ()))
        landing.load(batch("loss_reasons", (10, [{"id": 9, "name": "listed"}])))
        assert column(connection, "SELECT name FROM amocrm.loss_reasons WHERE _listed") == ["listed"]
