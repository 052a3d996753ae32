"""Reports over several databases: Postgres' own logical replication brings the accounts' schemas of a shard
into one database for reading (docs/deploy.md). The statements and commands are those of the page."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from models.base import AccountBase
from pipelines.bi import stored
from pipelines.bi.builder import refresh_views
from pipelines.postgres.embedded.server import EmbeddedPostgres
from sandbox.process import SandboxProcess
from tests.support.commands import REPOSITORY, CliInstallation
from tests.support.equality import differences
from tests.support.webhooks import wait_until

PAGE = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
[EMPTY, PUBLISH, SUBSCRIBE] = re.findall(
    r"```sql\n(-- in (?:each shard|the database for reports).*?)```", PAGE, re.S)
[MIGRATE, VIEWS] = re.findall(r"`AMOCRM_SCHEMA=acme amocrm-mirror (\w+)`", PAGE)
OWN_STATE = {"bi_columns", "bi_stored", "bi_views", "history_due"}
"""Tables that say what was done in their own database; they are not published."""
Connection = psycopg.Connection[Any]
Contents = dict[str, tuple[int, str]]


@pytest.fixture
def servers() -> Iterator[list[str]]:
    """Two servers; the first one writes what logical replication needs."""
    folder = Path(tempfile.mkdtemp(prefix="mirror-replication-"))
    folder.chmod(0o711)
    running = [EmbeddedPostgres(folder / name, ephemeral=True, owner_pid=os.getpid())
               for name in ("shard", "reports")]
    address = running[0].start()
    with psycopg.connect(address, autocommit=True) as connection:
        for setting in ("wal_level = 'logical'", "max_wal_senders = 4", "max_replication_slots = 4"):
            connection.execute(f"ALTER SYSTEM SET {setting}".encode())
    running[0].stop()
    yield [each.start() for each in running]
    for each in running:
        each.stop()
    shutil.rmtree(folder, ignore_errors=True)


def contents(connection: Connection, tables: list[str]) -> Contents:
    """Table → number of its rows, and a hash of all of them."""
    found: Contents = {}
    for table in tables:
        query = SQL("SELECT count(*), coalesce(md5(string_agg(t::text, '' ORDER BY t::text)), '') FROM {} t")
        found[table] = connection.execute(query.format(Identifier("acme", table))).fetchall()[0]
    return found


def sync(person: CliInstallation) -> None:
    assert (done := person.call("sync", "--account", "acme")).code == 0, done.output


def change_account(sandbox: SandboxProcess) -> None:
    """A deal has another name and a tag less, and another deal is deleted."""
    tagged = next(each for each in sandbox.truth("leads") if each["_embedded"]["tags"])
    deleted = next(each for each in sandbox.truth("leads") if each["id"] != tagged["id"])
    sandbox.mutate(
        {"op": "patch", "list": "leads", "id": tagged["id"], "set": {"name": "Changed"}},
        {"op": "untag", "list": "leads", "id": tagged["id"], "tag": tagged["_embedded"]["tags"][0]["name"]},
        {"op": "delete", "list": "leads", "id": deleted["id"]})


@pytest.mark.slow
def test_a_shard_is_read_in_another_database(servers: list[str], tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Every published table, in an account that stores the steps of its marts, has shorter working hours than
    migrate gives, and makes its history once more."""
    monkeypatch.setattr(stored, "LIVE_AGAIN_BELOW", 0)  # a sync goes on with what the test has stored
    monkeypatch.setattr(stored, "REST", 0)
    shard, reports = servers
    address = " ".join(f"{key}={value}" for key, value in conninfo_to_dict(shard).items())
    for name in ("shard", "reports"):
        (tmp_path / name).mkdir()
    with SandboxProcess(scale=50) as sandbox:
        person = CliInstallation(tmp_path / "shard", shard)
        reader = CliInstallation(tmp_path / "reports", reports, AMOCRM_SCHEMA="acme")
        assert person.call("accounts", "add", "acme", sandbox.url, typed=sandbox.admin_token).code == 0
        sync(person)
        assert (done := reader.call(MIGRATE)).code == 0, done.output
        with psycopg.connect(shard, autocommit=True) as source, \
                psycopg.connect(reports, autocommit=True) as target:
            assert "failed" not in {each.state for each in refresh_views(source, "acme", stored_from=0)}
            source.execute("DELETE FROM acme.working_hours WHERE weekday = 5")
            target.execute(EMPTY.encode())
            source.execute(PUBLISH.encode())
            target.execute(SUBSCRIBE.replace("host=shard-east dbname=amocrm user=replicator password=…",
                                             address).encode())
            wait_until(lambda: target.execute(
                "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel").fetchone() == (True,))
            tables = [table for table, in source.execute(
                "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'mirror_reports' "
                "AND schemaname = 'acme' ORDER BY 1")]
            assert {*tables} == {*AccountBase.metadata.tables} - OWN_STATE
            before = contents(source, tables)
            assert contents(target, tables) == before

            change_account(sandbox)
            source.execute("INSERT INTO acme.history_due (entity_type, entity_id) VALUES ('all', 0)")
            sync(person)
            after = contents(source, tables)
            assert after["lead_tags"][0] < before["lead_tags"][0]
            steps = source.execute("SELECT count(*), count(fault) FROM acme.bi_stored").fetchone()
            assert steps == (len(stored.steps()), 0)
            wait_until(lambda: contents(target, tables) == after)
            assert not differences(target, sandbox, "acme")
            assert (done := reader.call(VIEWS)).code == 0, done.output
            assert target.execute("SELECT count(*) FROM acme_bi.leads").fetchone() == (49,)
            assert target.execute("SELECT DISTINCT state FROM acme_bi.freshness").fetchall() == [("never",)]
            target.execute("DROP SUBSCRIPTION east")
