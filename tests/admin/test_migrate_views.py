"""A migration that changes what views show: our views give way and come back with their grants and dependent
views, or the migration names the obstacle and changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from pipelines import migrate as subject
from pipelines.bi import builder, placeholders
from pipelines.bi.state import view_faults
from pipelines.migrate import MigrationError, downgrade, migrate
from tests.support.commands import CliInstallation
from tests.support.migrations import INI, MIGRATION, REPOSITORY

Connection = psycopg.Connection[Any]
Further = Callable[[str], None]
PRICE = "op.execute('ALTER TABLE leads ALTER COLUMN price TYPE bigint')"
"""A column that a wide view and marts show."""
MAIN = "op.execute('ALTER TABLE lead_contacts ALTER COLUMN is_main TYPE boolean')"
"""One that `links` shows; Postgres minds, although nothing changes."""
ACCOUNT = """
INSERT INTO amocrm.accounts (id, timezone, _synced_at) VALUES (1, 'Europe/Berlin', now());
INSERT INTO amocrm.leads (id, name, price, status_id, pipeline_id, closed_at, _synced_at)
VALUES (1, 'Кухня', 100, 142, 7, now(), now());
INSERT INTO amocrm.lead_contacts (lead_id, contact_id, is_main) VALUES (1, 5, true);
CREATE VIEW public.of_leads AS SELECT id, name FROM amocrm_bi.leads;
CREATE VIEW public.of_links AS SELECT to_id, is_main FROM amocrm.links;
CREATE MATERIALIZED VIEW public.of_wins AS SELECT closed_month, deals FROM amocrm_bi.win_loss;
GRANT SELECT ON amocrm_bi.leads, amocrm.links TO pg_monitor;
"""


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute(ACCOUNT)
        yield opened


@pytest.fixture
def further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Further:
    """Writes a migration of the account's schema after the real ones; a second call replaces it."""
    shutil.copytree(REPOSITORY / "alembic" / "versions", tmp_path / "versions")
    (tmp_path / "alembic.ini").write_text(INI.format(repository=REPOSITORY, versions=tmp_path / "versions"),
                                          encoding="utf-8")
    head = ScriptDirectory.from_config(Config(tmp_path / "alembic.ini",
                                              ini_section="account")).get_current_head()
    monkeypatch.setattr(subject, "INI", tmp_path / "alembic.ini")

    def write(up: str) -> None:
        body = MIGRATION.format(revision="further", previous=head, up="    " + up.replace("\n", "\n    "),
                                down="    pass")
        (tmp_path / "versions" / "account" / "further.py").write_text(body, encoding="utf-8")

    return write


def row(connection: Connection, query: str) -> Any:
    return connection.execute(query.encode()).fetchone()


def check_views(connection: Connection) -> None:
    """Our views and those on top show the data, and grants are unchanged."""
    assert row(connection, "SELECT id, name FROM public.of_leads") == (1, "Кухня")
    assert row(connection, "SELECT to_id, is_main FROM public.of_links") == (5, True)
    assert row(connection, "SELECT sum(deals) FROM amocrm_bi.win_loss") == (1,)
    assert row(connection, "SELECT has_table_privilege('pg_monitor', 'amocrm_bi.leads', 'SELECT'), "
                           "has_table_privilege('pg_monitor', 'amocrm.links', 'SELECT')") == (True, True)
    assert view_faults(connection, "amocrm") == {}
    empty = "SELECT relname FROM pg_class WHERE relkind = 'v' AND obj_description(oid, 'pg_class') LIKE %s"
    assert connection.execute(empty, [f"%{placeholders.PLACEHOLDER_MARK}"]).fetchall() == []


def identities(connection: Connection) -> Any:
    return row(connection, "SELECT array_agg((relname, oid, xmin::text) ORDER BY oid) FROM pg_class "
                           "WHERE relkind = 'v' AND relnamespace = 'amocrm_bi'::regnamespace")


def test_a_change_that_no_view_shows_touches_no_view(connection: Connection, database: str,
                                                     further: Further) -> None:
    before = identities(connection)
    further("op.execute('ALTER TABLE leads ADD COLUMN mood text; CREATE TABLE moods (id bigint)')")
    assert migrate(database, "amocrm").changed
    assert identities(connection) == before
    check_views(connection)


def test_our_views_give_way_and_come_back_under_dependent_views(connection: Connection, database: str,
                                                                further: Further) -> None:
    further(f"{PRICE}\n{MAIN}")
    report = migrate(database, "amocrm")
    assert report.after["account"] == "further"
    assert [each for each in report.views if each.state == "failed"] == []
    check_views(connection)
    assert row(connection, "SELECT price, price_bigint FROM amocrm_bi.leads") == (
        None, 100), "a column of another type has another name"
    assert not migrate(database, "amocrm").changed


def test_a_foreign_view_on_a_table_is_named_and_nothing_changes(connection: Connection, database: str,
                                                                further: Further) -> None:
    connection.execute("CREATE VIEW public.mine AS SELECT price FROM amocrm.leads")
    further(f"{MAIN}\n{PRICE}")
    with pytest.raises(
            MigrationError,
            match="(?s)view public.mine depends on column \"price\".*Views of yours read what changes"):
        migrate(database, "amocrm")
    check_views(connection)
    assert row(connection, "SELECT pg_typeof(price)::text FROM amocrm.leads") == ("numeric",)
    connection.execute("DROP VIEW public.mine")
    assert migrate(database, "amocrm").changed
    check_views(connection)


def test_a_killed_migration_leaves_placeholders_that_the_next_one_replaces(
        connection: Connection, database: str, further: Further, monkeypatch: pytest.MonkeyPatch) -> None:
    further(PRICE)
    with monkeypatch.context() as patched:
        patched.setattr(builder, "build_views", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            migrate(database, "amocrm")
    assert row(connection, "SELECT count(*) FROM public.of_leads") == (0,)
    migrate(database, "amocrm")
    check_views(connection)


def test_a_mart_that_cannot_be_rebuilt_is_empty_and_reported(connection: Connection, database: str,
                                                             further: Further) -> None:
    """Another version's mart has a column of another type, and a foreign view depends on it."""
    connection.execute("DROP MATERIALIZED VIEW public.of_wins; CREATE VIEW public.mine AS SELECT price "
                       "FROM amocrm_bi.deals_without_task")
    further(PRICE)
    report = migrate(database, "amocrm")
    failed = {each.view: each.reason for each in report.views if each.state == "failed"}
    assert failed.keys() == {"deals_without_task"}
    assert "view mine depends on view amocrm_bi.deals_without_task" in failed["deals_without_task"]
    assert (builder.SHOWS_NOTHING in failed["deals_without_task"]
            and builder.KEPT_AS_IT_WAS not in failed["deals_without_task"])
    connection.execute("DROP VIEW public.mine")
    migrate(database, "amocrm")
    check_views(connection)


@pytest.mark.parametrize(("on", "column"), [
    ("amocrm.links", "to_id"), ("amocrm.custom_field_values", "value_text"), ("amocrm_bi.leads", "id")])
def test_a_downgrade_names_dependent_views(connection: Connection, database: str, on: str,
                                           column: str) -> None:
    connection.execute(f"DROP VIEW public.of_leads, public.of_links; DROP MATERIALIZED VIEW public.of_wins; "
                       f"CREATE VIEW public.mine AS SELECT {column} FROM {on}".encode())
    with pytest.raises(MigrationError, match=f"view mine depends on view {on}.*Nothing was changed"):
        downgrade(database, "amocrm", "base")
    assert row(connection, "SELECT count(*) FROM amocrm_bi.leads") == row(
        connection, "SELECT count(*) FROM amocrm.links") == (1,)
    connection.execute("DROP VIEW public.mine")
    downgrade(database, "amocrm", "base")
    assert row(connection, "SELECT to_regclass('amocrm.links')") == (None,)


def test_a_view_on_changed_columns_of_links_stops_the_migration(connection: Connection, database: str,
                                                                tmp_path: Path) -> None:
    connection.execute(
        "DROP VIEW public.of_links; DROP VIEW amocrm.links; CREATE VIEW amocrm.links AS SELECT 1 AS old; "
        "CREATE VIEW public.mine AS SELECT old FROM amocrm.links")
    done = CliInstallation(tmp_path, database).call("migrate")
    assert (done.code == 1 and "view mine depends on view amocrm.links" in done.output
            and "Views of yours read what changes" in done.output)
    assert row(connection, "SELECT old FROM public.mine") == (1,)
    connection.execute("DROP VIEW public.mine")
    migrate(database, "amocrm")
    assert row(connection, "SELECT to_id FROM amocrm.links") == (5,)
