"""Reports over several databases: Postgres' own logical replication brings the accounts' schemas of a shard
into one database for reading (docs/deploy.md). The statements are those of the page."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pipelines.bi.builder import build_views
from pipelines.migrate import migrate
from pipelines.postgres.embedded.server import EmbeddedPostgres
from sandbox.process import SandboxProcess
from tests.support.commands import REPOSITORY, CliInstallation
from tests.support.equality import differences
from tests.support.webhooks import wait_until

PAGE = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
[PUBLISH, SUBSCRIBE] = re.findall(r"```sql\n(-- in (?:each shard|the database for reports).*?)```", PAGE,
                                  re.S)


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


@pytest.mark.slow
def test_a_shard_is_read_in_another_database(servers: list[str], tmp_path: Path) -> None:
    shard, reports = servers
    address = " ".join(f"{key}={value}" for key, value in conninfo_to_dict(shard).items())
    with SandboxProcess(scale=50) as sandbox:
        person = CliInstallation(tmp_path, shard)
        assert person.call("accounts", "add", "acme", sandbox.url, typed=sandbox.admin_token).code == 0
        assert (done := person.call("sync", "--account", "acme")).code == 0, done.output
        migrate(reports, "acme")
        with psycopg.connect(shard, autocommit=True) as source, \
                psycopg.connect(reports, autocommit=True) as target:
            source.execute(PUBLISH.encode())
            target.execute(SUBSCRIBE.replace("host=shard-east dbname=amocrm user=replicator password=…",
                                             address).encode())
            wait_until(lambda: not differences(target, sandbox, "acme", {"leads", "contacts", "tasks"}))
            sandbox.mutate({"op": "patch", "list": "leads", "id": sandbox.truth("leads")[0]["id"],
                            "set": {"name": "Changed"}})
            assert person.call("sync", "--account", "acme", "--only", "leads").code == 0
            wait_until(lambda: not differences(target, sandbox, "acme", {"leads"}))
            build_views(target, "acme")
            assert target.execute("SELECT count(*) FROM acme_bi.leads").fetchone() == (50,)
            target.execute("DROP SUBSCRIPTION east")
