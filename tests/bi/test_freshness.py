"""The view `freshness`: what it says of each list, who may read it, and how it survives migrations of the
schema
`mirror`; and that views follow the account's address."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql

from pipelines import migrate as migrations
from pipelines.admin.reader_role import grant_read_access
from pipelines.bi.builder import ViewResult, build_views
from pipelines.entities.registry import ENTITIES
from pipelines.migrate import downgrade, migrate
from pipelines.postgres.locks import sync_lock
from tests.support.migrations import INI, MIGRATION, REPOSITORY

Connection = psycopg.Connection[Any]
ROLE = f"freshness_reader_{os.getpid()}"
ACCOUNT = """
INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES
  ('mill', 'amocrm', 'https://mill.amocrm.ru'), ('other', 'other', 'https://other.kommo.com');
INSERT INTO amocrm.accounts (id, timezone, _synced_at) VALUES (1, 'Asia/Kathmandu', now());
INSERT INTO amocrm.leads (id, _synced_at) VALUES (1, now());
INSERT INTO mirror.sync_runs (account, run_id, entity, state, reason, started_at, finished_at, watermark)
VALUES
  ('mill', 'a', 'leads', 'complete', NULL, '2026-03-01 18:00+00', '2026-03-01 18:05+00', '2026-03-01
  18:20+00'),
  ('mill', 'b', 'leads', 'failed', 'amoCRM did not answer', '2026-03-02 10:00+00', '2026-03-02 10:01+00',
  NULL),
  ('mill', 'b', 'contacts', 'running', NULL, '2026-03-02 10:00+00', NULL, NULL),
  ('mill', 'b', 'sources', 'skipped', 'forbidden', '2026-03-02 10:00+00', '2026-03-02 10:00+00', NULL),
  ('other', 'c', 'leads', 'complete', NULL, '2026-03-05 10:00+00', '2026-03-05 10:00+00', '2026-03-05
  10:00+00'),
  ('other', 'c', 'tasks', 'complete', NULL, '2026-03-05 10:00+00', '2026-03-05 10:00+00', '2026-03-05
  10:00+00');
INSERT INTO mirror.verifications (account, run_id, entity, state, began_at, ended_at, compared, missing,
extra, stale, requests)
VALUES ('mill', 'v', 'leads', 'equal', '2026-03-01 10:00+00', '2026-03-01 10:10+00', 7, 0, 0, 0, 1),
  ('mill', 'w', 'leads', 'repaired', '2026-03-02 10:00+00', '2026-03-02 10:10+00', 9, 1, 2, 3, 1),
  ('other', 'x', 'tasks', 'failed', '2026-03-02 10:00+00', '2026-03-02 10:10+00', 0, 0, 0, 0, 1);
"""


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute("SET timezone TO 'UTC'")
        opened.execute(ACCOUNT)
        assert [each.reason for each in build_views(opened, "amocrm") if each.state == "failed"] == []
        yield opened


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()


def states(connection: Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT list, state FROM amocrm_bi.freshness").fetchall())


def test_what_is_known_of_each_list(connection: Connection) -> None:
    """Kathmandu is 5 hours and 45 minutes ahead: 18:20 UTC is the next day there."""
    found = states(connection)
    assert list(found) == [entity.name for entity in ENTITIES]
    assert {name: state for name, state in found.items() if state != "never"} == {
        "leads": "failed", "contacts": "interrupted", "sources": "skipped"}
    assert rows(connection, "SELECT complete_up_to::text, complete_up_to_date::text, reason, "
                            "started_at::text, "
                            "finished_at::text, verification, verified_at::text, verified_records, "
                            "differences, "
                            "abs(hours_behind - extract(epoch FROM now() - complete_up_to) / 3600) < 0.01 "
                            "FROM amocrm_bi.freshness WHERE list = 'leads'") == [
        ("2026-03-01 18:20:00+00", "2026-03-02", "amoCRM did not answer", "2026-03-02 10:00:00+00",
         "2026-03-02 10:01:00+00", "repaired", "2026-03-02 10:10:00+00", 9, 6, True)]
    assert rows(connection, "SELECT complete_up_to, hours_behind, verification FROM amocrm_bi.freshness "
                            "WHERE list IN ('contacts', 'tasks')") == [(None, None, None)] * 2


def test_a_run_is_running_while_a_sync_of_the_account_is(connection: Connection, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as another:
        assert sync_lock("other").try_take(another)
        assert states(connection)["contacts"] == "interrupted"
        assert sync_lock("mill").try_take(another)
        assert states(connection)["contacts"] == "running"
    assert states(connection)["leads"] == "failed"


def test_the_read_only_role_sees_freshness_and_nothing_else_of_mirror(connection: Connection) -> None:
    url = grant_read_access(connection, "amocrm", ROLE, "a password", is_generated=True).url
    try:
        with psycopg.connect(url, autocommit=True) as reader:
            assert states(reader) == states(connection)
            tables = rows(connection, "SELECT relname::text FROM pg_class WHERE relkind = 'r' "
                                      "AND relnamespace = 'mirror'::regnamespace")
            assert len(tables) > 5
            for name, in tables:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    rows(reader, f"SELECT count(*) FROM mirror.{name}")
    finally:
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(ROLE)))


def built(found: list[ViewResult]) -> set[str]:
    return {each.view for each in found if each.state == "built"}


def test_views_follow_the_address_and_the_name_of_the_account(connection: Connection) -> None:
    assert built(build_views(connection, "amocrm")) == set()
    connection.execute("UPDATE mirror.accounts SET base_url = 'https://moved.kommo.com' WHERE name = 'mill'")
    rebuilt = built(build_views(connection, "amocrm"))
    assert {"leads", "contacts", "tasks", "funnel", "stuck_deals"} <= rebuilt
    assert not {"win_loss", "freshness"} & rebuilt
    assert rows(connection, "SELECT url FROM amocrm_bi.leads") == [("https://moved.kommo.com/leads/detail/1",)]
    connection.execute("UPDATE mirror.accounts SET name = 'miller' WHERE name = 'mill'")
    assert built(build_views(connection, "amocrm")) == {"freshness"}
    assert states(connection)["leads"] == "failed"


def test_without_an_account_in_the_registry_urls_are_null(connection: Connection) -> None:
    connection.execute("DELETE FROM mirror.accounts WHERE name = 'mill'")
    assert [each.reason for each in build_views(connection, "amocrm") if each.state == "failed"] == []
    assert rows(connection, "SELECT url FROM amocrm_bi.leads") == [(None,)]
    assert set(states(connection).values()) == {"never"}


def test_a_migration_of_mirror_replaces_the_view_and_fills_it_again(
        connection: Connection, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The migration changes a column that the view shows; a view of a person's own is on top."""
    connection.execute("CREATE VIEW public.mine AS SELECT list, state FROM amocrm_bi.freshness")
    shutil.copytree(REPOSITORY / "alembic" / "versions", tmp_path / "versions")
    (tmp_path / "alembic.ini").write_text(INI.format(repository=REPOSITORY, versions=tmp_path / "versions"),
                                          encoding="utf-8")
    head = ScriptDirectory.from_config(Config(tmp_path / "alembic.ini",
                                              ini_section="mirror")).get_current_head()
    (tmp_path / "versions" / "mirror" / "further.py").write_text(MIGRATION.format(
        revision="further", previous=head, down="    pass",
        up="    op.execute('ALTER TABLE verifications ALTER COLUMN compared TYPE bigint; "
           "ALTER TABLE sync_runs ALTER COLUMN state TYPE text')"), encoding="utf-8")
    monkeypatch.setattr(migrations, "INI", tmp_path / "alembic.ini")
    report = migrate(database, "amocrm")
    assert report.after["mirror"] == "further"
    assert [each for each in report.views if each.state == "failed"] == []
    assert dict(rows(connection, "SELECT list, state FROM public.mine"))["leads"] == "failed"


def test_mirror_can_be_downgraded_under_the_view(connection: Connection, database: str) -> None:
    downgrade(database, "amocrm", "base", "mirror")
    assert rows(connection, "SELECT to_regclass('mirror.sync_runs'), to_regclass('amocrm_bi.freshness'), "
                            "to_regclass('amocrm_bi.leads')::text") == [(None, None, "amocrm_bi.leads")]
    migrate(database, "amocrm")
    assert set(states(connection).values()) == {"never"}
