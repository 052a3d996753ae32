"""The commands and the SQL of docs/deploy.md, run, and the mirror that comes out of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipelines.migrate import downgrade
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
        assert (done := after.call("doctor")).code == 0, done.output
        sandbox.mutate({"op": "patch", "list": "leads", "id": sandbox.truth("leads")[0]["id"],
                        "set": {"price": 4711}})
        assert (done := after.call("sync")).code == 0, done.output
        with psycopg.connect(empty_database) as connection:
            assert differences(connection, sandbox, "amocrm") == []
            changed = connection.execute("SELECT count(*) FROM amocrm.leads WHERE price = 4711")
            assert changed.fetchone() == (1,)


@pytest.mark.slow
def test_an_upgrade_migrates_and_its_backup_is_the_way_back(database: str, empty_database: str,
                                                            tmp_path: Path) -> None:
    """The older version's tables are those of the last migration but one. An older program's refusal to go on
    after the upgrade is in tests/cli/test_bad_input.py."""
    tools = os.environ.get("TEST_PG_BINDIR") or wheel_bindir()
    shell = {"PATH": f"{tools}:{os.environ['PATH']}", "DATABASE_URL": database, "BACKUP": str(tmp_path),
             "NEW_DATABASE_URL": empty_database}
    save, _, restore, _ = commands("## Backup and restore")
    [upgrade] = re.findall(r"`amocrm-mirror (migrate --all[^`]*)`", PAGE)
    with SandboxProcess(scale=50) as sandbox:
        mirror = CliInstallation(tmp_path, database, sandbox)
        assert (done := mirror.call("sync")).code == 0, done.output
        downgrade(database, "amocrm", "-1")
        older = version_of(database)
        subprocess.run(["bash", "-euc", save], env=shell, check=True, cwd=tmp_path)
        assert "behind" in mirror.call("accounts", "list").output
        assert (done := mirror.call(*upgrade.split())).code == 0, done.output
        newer = version_of(database)
        assert newer != older and "behind" not in mirror.call("accounts", "list").output
        subprocess.run(["bash", "-euc", restore], env=shell, check=True, cwd=tmp_path)
        assert version_of(empty_database) == older, "the way back"
        for each in (database, empty_database):
            done = CliInstallation(tmp_path, each, sandbox).call("sync")
            assert done.code == 0, done.output
            with psycopg.connect(each) as connection:
                assert differences(connection, sandbox, "amocrm") == []
            assert version_of(each) == newer


def version_of(database: str) -> str:
    with psycopg.connect(database) as connection:
        [version] = connection.execute("SELECT version_num FROM amocrm.alembic_version").fetchone() or ("",)
    return str(version)


def test_the_rights_of_a_managed_postgres_are_enough(empty_database: str, tmp_path: Path) -> None:
    """Without a superuser: the tables are made, a sync writes them, and `grants` prints what to run."""
    [block] = re.findall(r"```sql\n(CREATE ROLE .*?)```", PAGE, re.S)
    name = f"weak_{conninfo_to_dict(empty_database)['dbname']}"
    statements = [each.replace("amocrm_mirror", name).replace("DATABASE amocrm ", f"DATABASE {name[5:]} ")
                  for each in block.strip().split(";\n") if not each.startswith("CREATE DATABASE")]
    assert len(statements) == 2, "the database of the test is there already"
    with psycopg.connect(empty_database, autocommit=True) as owner, SandboxProcess(scale=50) as sandbox:
        for statement in statements:
            owner.execute(statement.rstrip(";").encode())
        try:
            weak = make_conninfo(empty_database, user=name, password="choose one")
            installation = CliInstallation(tmp_path, weak, sandbox)
            assert (done := installation.call("sync", "--only", "leads")).code == 0, done.output
            with psycopg.connect(weak) as connection:
                assert differences(connection, sandbox, "amocrm", {"leads"}) == []
            refused = installation.call("grants", "--role", f"{name}_bi")
            assert refused.code == 1
            assert "CREATE ROLE" in refused.output
        finally:
            owner.execute(f"DROP OWNED BY {name} CASCADE".encode())
            owner.execute(f"DROP ROLE {name}".encode())
