"""The backup of docs/deploy.md: the commands on that page, run, and the mirror that comes out of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from pipelines.postgres.embedded.binaries import wheel_bindir
from sandbox.process import SandboxProcess
from tests.support.commands import REPOSITORY, CliInstallation
from tests.support.equality import differences

PAGE = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")


def commands(heading: str) -> list[str]:
    """Returns the command lines under a heading of docs/deploy.md, without their comments."""
    section = PAGE[PAGE.index(f"\n{heading}\n") + 1:].partition("\n## ")[0]
    return [line.split("  #")[0].strip() for line in re.findall(r"^    (\S.*)", section, re.M)]


@pytest.mark.slow
def test_a_restored_backup_goes_on_syncing(database: str, empty_database: str, tmp_path: Path) -> None:
    tools = os.environ.get("TEST_PG_BINDIR") or wheel_bindir()
    with SandboxProcess(scale=50) as sandbox:
        before = CliInstallation(tmp_path, database, AMOCRM_BASE_URL=sandbox.url)
        assert (done := before.call("auth", typed=sandbox.admin_token)).code == 0, done.output
        assert (done := before.call("sync")).code == 0, done.output
        [key] = (tmp_path / "home").glob("mirror.key")
        backup = tmp_path / "backup"
        backup.mkdir()
        shell = {"PATH": f"{tools}:{os.environ['PATH']}", "DATABASE_URL": database, "BACKUP": str(backup),
                 "NEW_DATABASE_URL": empty_database, "MIRROR_HOME": str(key.parent)}
        *save, restore, keep = commands("## Backup and restore")
        for command in (*save, restore):
            subprocess.run(["bash", "-euc", command], env=shell, check=True, cwd=tmp_path)
        shutil.rmtree(key.parent)
        subprocess.run(["bash", "-euc", keep], env=shell, check=True, cwd=tmp_path)
        after = CliInstallation(tmp_path, empty_database, AMOCRM_BASE_URL=sandbox.url)
        sandbox.mutate({"op": "patch", "list": "leads", "id": sandbox.truth("leads")[0]["id"],
                        "set": {"price": 4711}})
        assert (done := after.call("sync")).code == 0, done.output
        with psycopg.connect(empty_database) as connection:
            assert differences(connection, sandbox, "amocrm") == []
            changed = connection.execute("SELECT count(*) FROM amocrm.leads WHERE price = 4711")
            assert changed.fetchone() == (1,)
