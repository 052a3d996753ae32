"""The stage outlives a batch, and an account, on a connection that goes on: each batch finds it empty."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from pipelines.entities.registry import entity_named
from pipelines.load import stage as stages
from pipelines.load.loader import Loader
from pipelines.load.tombstones import Tombstones
from pipelines.normalize.normalizer import normalizer
from pipelines.postgres.connection_pool import ConnectionPool
from tests.load.test_loader import Connection, batch, column

NOW = 1_790_000_000
STAGED = "SELECT relname::text FROM pg_class WHERE relpersistence = 't' AND relkind = 'r' ORDER BY 1"


def deal(ident: int, name: str) -> dict[str, object]:
    return {"id": ident, "name": name, "updated_at": NOW,
            "_embedded": {"tags": [{"id": 7, "name": "VIP"}], "contacts": [{"id": 3, "is_main": True}]}}


def load(connection: Connection, *deals: dict[str, object], at: int = NOW) -> Loader:
    loader = Loader(connection, "amocrm", "amocrm", normalizer(entity_named("leads"), ()))
    loader.load(batch("leads", (at // 60, list(deals))), keep_seen=True)
    return loader


def left(connection: Connection) -> dict[str, int]:
    """The stages that are not empty, with their rows."""
    rows = {name: len(column(connection, f'SELECT 1 FROM "{name}"'))
            for name in column(connection, STAGED) if name.startswith("stage_")}
    assert "stage_lead_tags" in rows, "there is a stage"
    return {name: count for name, count in rows.items() if count}


@pytest.mark.parametrize("limits", [{}, {"MAX_DELETED_ROWS": 0}, {"MAX_STAGE_BYTES": 0}], ids=str)
def test_a_batch_leaves_the_stage_empty(database: str, monkeypatch: pytest.MonkeyPatch,
                                        limits: dict[str, int]) -> None:
    for name, limit in limits.items():
        monkeypatch.setattr(stages, name, limit)
    with closing(ConnectionPool()) as pool:
        for names in (("a", "b"), ("c", "d"), ("d", "e")):
            with pool.lend(database, True) as connection:
                load(connection, *(deal(ident, name) for ident, name in enumerate(names, 1)),
                     at=NOW + 60 * ord(names[0]))
                assert left(connection) == {}
                assert column(connection, "SELECT name FROM amocrm.leads ORDER BY id") == list(names)
                assert column(connection, "SELECT lead_id FROM amocrm.lead_tags ORDER BY 1") == [1, 2]
        assert pool.opened == 1


def test_after_a_rollback_the_stage_is_made_again(database: str) -> None:
    """A deadlock in a connection's first batch takes the temporary tables with it."""
    with psycopg.connect(database, autocommit=True) as connection:
        loader = Loader(connection, "amocrm", "amocrm", normalizer(entity_named("leads"), ()))
        for is_lost in (True, False):
            with connection.transaction(force_rollback=is_lost):
                loader.load(batch("leads", (NOW // 60, [deal(1, "a")])))
        assert column(connection, "SELECT name FROM amocrm.leads") == ["a"]


@pytest.mark.parametrize("size", [0, 1 << 16])
def test_the_keys_seen_by_a_read_before_are_forgotten(database: str, monkeypatch: pytest.MonkeyPatch,
                                                      size: int) -> None:
    monkeypatch.setattr("pipelines.load.tombstones.MAX_SEEN_BYTES", size)
    with psycopg.connect(database, autocommit=True) as connection:
        load(connection, deal(1, "a"))
        seen = SQL("SELECT count(*) FROM {}").format(Identifier("seen_leads"))
        assert connection.execute(seen).fetchone() == (1,)
        Tombstones(connection, "amocrm", "amocrm", entity_named("leads")).clear_seen()
        assert connection.execute(seen).fetchone() == (0,)
