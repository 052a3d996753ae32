"""Tables that another role owns: the rights to their rows suffice for a sync; what is missing is said before
anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pipelines.migrate import downgrade, migrate, pending_revisions
from sandbox.process import SandboxProcess
from tests.postgres.test_setups import check_refused
from tests.support.commands import CliInstallation
from tests.support.equality import differences
from tests.support.roles import OrdinaryRole


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=25) as running:
        yield running


ALL_ROWS = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "


def test_tables_that_another_role_owns(role: OrdinaryRole, sandbox: SandboxProcess, empty_database: str,
                                       tmp_path: Path) -> None:
    """The rights to rows suffice; without them nothing is written."""
    migrate(empty_database, "amocrm")
    role.administrator.execute("CREATE TABLE amocrm.their_own (id int)")
    person = CliInstallation(tmp_path, role.conninfo, sandbox)
    check_refused(person.call("sync"), ("sync",), f'GRANT USAGE ON SCHEMA "mirror" TO "{role.name}"; GRANT')
    role.administer("GRANT USAGE ON SCHEMA mirror, amocrm, amocrm_bi TO {role}")
    owner = role.administrator.info.user
    for seen, granted in ((False, "mirror"), (True, "amocrm"), (True, "")):
        if seen:
            role.administrator.execute(f'GRANT SELECT ON mirror.alembic_version, amocrm.alembic_version '
                                       f'TO "{role.name}"'.encode())
        for words in (("migrate",), ("doctor",), ("sync",), ("verify",)) if granted else ():
            check_refused(person.call(*words), words, f'{ALL_ROWS}"{granted}" TO' if seen else ALL_ROWS,
                          owner if seen else "another role")
            assert role.administrator.execute("SELECT FROM mirror.accounts").rowcount == 0
            assert not (tmp_path / "home" / "dagster" / "history").exists()
        role.administrator.execute(f'{ALL_ROWS}mirror TO "{role.name}"'.encode())
    role.administrator.execute(f'{ALL_ROWS}amocrm TO "{role.name}"; REVOKE ALL ON amocrm.their_own '
                               f'FROM "{role.name}"'.encode())
    for words in (("sync",), ("status",), ("views",)):
        done = person.call(*words)
        assert done.code == (0 if words == ("sync",) else 3), done.output
        assert done.output.count("could not be rebuilt") == 1, done.output
        assert f'GRANT CREATE ON SCHEMA "amocrm_bi" TO "{role.name}"' in done.output
    with psycopg.connect(empty_database) as connection:
        assert differences(connection, sandbox) == []
    check_views_of_the_owner(role, sandbox, person, empty_database)


def check_views_of_the_owner(role: OrdinaryRole, sandbox: SandboxProcess, person: CliInstallation,
                              administrator: str) -> None:
    """Views that the owner has built stay; one that has to change is named, with what lets the role do it."""
    owner = role.administrator.info.user
    assert migrate(administrator, "amocrm").views
    for more in (False, True):
        if more:
            role.administer('GRANT CREATE ON SCHEMA amocrm_bi TO {role}')
            sandbox.mutate({"op": "add_field", "list": "leads", "name": "Новое поле", "type": "text"})
        done = person.call("sync")
        assert done.code == 0 and done.output.count("could not be rebuilt") == more, done.output
        assert (f'GRANT "{owner}" TO "{role.name}"' in done.output) == more, done.output
    assert f"{owner} owns the views" in person.call("doctor").output
    assert person.call("doctor").code == 0


def test_a_migration_of_tables_that_another_role_owns(role: OrdinaryRole, sandbox: SandboxProcess,
                                                      empty_database: str, tmp_path: Path) -> None:
    migrate(empty_database, "amocrm")
    downgrade(empty_database, "amocrm", "-1")
    role.administer("GRANT USAGE, CREATE ON SCHEMA mirror, amocrm, amocrm_bi TO {role}",
                    "GRANT ALL ON ALL TABLES IN SCHEMA mirror, amocrm TO {role}")
    person = CliInstallation(tmp_path, role.conninfo, sandbox)
    for words in (("migrate",), ("doctor",), ("sync",)):
        check_refused(person.call(*words), words, f'GRANT "{role.administrator.info.user}" TO "{role.name}"',
                      "may not change the tables of the schema amocrm")
        assert any(pending_revisions(empty_database, "amocrm").values())
    role.administrator.execute(f'GRANT "{role.administrator.info.user}" TO "{role.name}"'.encode())
    assert person.call("migrate").code == 0
    role.administrator.execute(f'REVOKE "{role.administrator.info.user}" FROM "{role.name}"'.encode())
