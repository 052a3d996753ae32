"""The command line: what each command does, its exit code, and one message that says what to do for each
wrong use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from typer.main import get_command

from pipelines.entities.registry import ENTITIES
from pipelines.postgres.embedded.postmaster import free_port
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.commands import CliInstallation, CommandResult, offered_entities

COMMANDS = ["auth", "keys", "demo", "migrate", "sync", "verify", "status", "doctor", "dev", "postgres",
            "prune", "sandbox", "grants", "forget", "accounts", "dictionary", "serve", "views", "webhooks",
            "history", "alerts", "code-server", "dbt", "mcp", "metrics", "report", "dashboards"]
BAD_ID = {"op": "create", "list": "leads/loss_reasons", "record": {"id": "не число", "name": "Без номера"}}

@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60) as running:
        yield running


@pytest.fixture(scope="module")
def mirrored(sandbox: SandboxProcess, postgres_server: str, template_database: str,
             tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliInstallation]:
    """A mirror that was synced once, for tests that change nothing."""
    with temporary_database(postgres_server, template_database) as database:
        installation = CliInstallation(tmp_path_factory.mktemp("mirrored"), database, sandbox)
        assert installation.call("sync").code == 0
        yield installation


@pytest.fixture
def installation(sandbox: SandboxProcess, database: str, tmp_path: Path) -> CliInstallation:
    return CliInstallation(tmp_path, database, sandbox)


def refused(done: CommandResult, code: int, *words: str) -> None:
    assert "Traceback" not in done.output
    assert done.code == code, done.output
    for word in words:
        assert word in done.output
    assert done.error.startswith("amocrm-mirror: ")


# What each command does


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, tmp_path: Path) -> None:
    done = CliInstallation(tmp_path).call(command, "--help", COLUMNS="200")
    assert done.code == 0 and f"Example: amocrm-mirror {command}" in done.output


def test_every_command_is_in_the_list_above(tmp_path: Path) -> None:
    from pipelines.cli.app import app
    assert sorted(get_command(app).commands) == sorted(COMMANDS)  # type: ignore[attr-defined]


def test_a_new_installation_from_nothing_to_status(sandbox: SandboxProcess, empty_database: str,
                                                   tmp_path: Path) -> None:
    """In separate processes, with the settings in .env: doctor, migrate, sync with piped output, status for
    people and programs."""
    variables = CliInstallation(tmp_path, empty_database, sandbox).environment
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()),
                                   encoding="utf-8")
    person = CliInstallation(tmp_path)
    person.environment = {}
    checked = person.run("doctor")
    assert (checked.code, checked.error) == (0, "")
    assert "NO" not in checked.out
    assert f"id {sandbox.account_id}" in checked.out
    assert person.run("migrate").code == 0
    synced = person.run("sync")
    assert synced.code == 0, synced.output
    lines = synced.error.splitlines()
    assert {line.split(":")[0] for line in lines if "records," in line} == {each.name for each in ENTITIES}
    assert "\x1b" not in synced.error + synced.out
    assert lines[-1].startswith("Sync complete.")
    status = person.run("status", "--json")
    assert status.code == 0
    found = json.loads(status.out)
    states = {each["entity"]: each["state"] for each in found["entities"]}
    assert states == {each.name: "complete" if each.name in offered_entities(sandbox) else "skipped"
                      for each in ENTITIES}
    assert {each["entity"]: each["rows"] for each in found["entities"]}["leads"] == len(
        sandbox.truth("leads"))


def test_status_for_people(sandbox: SandboxProcess, mirrored: CliInstallation) -> None:
    done = mirrored.call("status")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["amocrm", "in", "schema", "amocrm"]
    table = {line.split()[0]: line for line in lines[2:len(ENTITIES) + 2]}
    assert list(table) == [each.name for each in ENTITIES]
    assert {name for name, line in table.items() if " complete " in line} == offered_entities(sandbox)
    assert lines[1].split()[-6:] == ["state", "how", "requests", "complete", "to", "lag"]
    found = {each["entity"]: each for each in json.loads(mirrored.call("status", "--json").out)["entities"]}
    assert (found["leads"]["in_quarantine"], found["leads"]["requests"] > 0,
            bool(found["leads"]["watermark"])) == (0, True, True)
    assert "customers" in found["segments"]["reason"]


def test_only_the_named_entities_are_read(installation: CliInstallation) -> None:
    done = installation.call("sync", "--only", "tags, users")
    assert done.code == 0
    found = json.loads(installation.call("status", "--json").out)
    assert {each["entity"] for each in found["entities"] if each["state"] == "complete"} == {"tags", "users"}
    assert found["exit_code"] == 3, "what was never read is not complete"


def test_migrate_prints_what_it_did(empty_database: str, tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, empty_database)
    first, second = person.call("migrate"), person.call("migrate")
    assert (first.code, second.code) == (0, 0)
    assert first.out.count("(was empty)") == 2
    assert second.out == first.out.replace(" (was empty)", "")


def test_postgres_status_starts_nothing(tmp_path: Path) -> None:
    done = CliInstallation(tmp_path).call("postgres", "status")
    assert done.code == 0
    assert done.out.startswith("stopped; port None")


def test_sandbox_serves_until_it_is_terminated(tmp_path: Path) -> None:
    port = free_port()
    process = CliInstallation(tmp_path).start("sandbox", "--port", str(port), "--scale", "50", "--switch",
                                              "filter_option=ignore")
    assert process.stdout
    assert process.stdout.readline().strip() == f"sandbox listening on http://127.0.0.1:{port}"
    second = CliInstallation(tmp_path).run("sandbox", "--port", str(port), "--scale", "50")
    assert (second.code, second.error) == (2, f"sandbox: port {port} is in use\n")
    process.terminate()
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0


# Exit code 3: done, but incomplete


def test_a_record_without_a_usable_id_is_reported_and_kept(database: str, tmp_path: Path) -> None:
    with SandboxProcess(scale=60) as own:
        own.mutate(BAD_ID)
        person = CliInstallation(tmp_path, database, own)
        synced, status = person.call("sync"), person.call("status")
        assert synced.code == status.code == 3
        assert "1 records could not become rows" in synced.output
        assert "mirror.quarantine" in synced.output
        assert "1 records in quarantine" in status.output
        assert "loss_reasons" in status.out.splitlines()[-1]
        assert "GET leads/loss_reasons" in status.out.splitlines()[-1]
        found = json.loads(person.call("status", "--json").out)
        assert (found["exit_code"], found["quarantined"], len(found["quarantine"])) == (3, 1, 1)
        with psycopg.connect(database) as connection:
            row = connection.execute("SELECT count(*) FROM amocrm.loss_reasons").fetchone()
        assert row and row[0] >= len(own.truth("leads/loss_reasons")) - 1, "the other records are stored"


def test_a_list_that_lost_too_much_is_reported(installation: CliInstallation, database: str) -> None:
    assert installation.call("sync", "--only", "tags").code == 0
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO amocrm.tags (entity_type, id, name, _synced_at) "
                           "SELECT 'leads', 900000 + n, 'gone', now() FROM generate_series(1, 400) n")
    done = installation.call("sync", "--only", "tags")
    assert done.code == 3
    assert "leads/tags: 400 of" in done.output
    assert "--allow-mass-delete" in done.output
    assert "tags: incomplete" in done.output
    assert installation.call("status").code == 3
    assert installation.call("sync", "--only", "tags", "--allow-mass-delete").code == 0


# What a person gets wrong


@pytest.mark.parametrize(("name", "value", "word"), [
    ("AMOCRM_BASE_URL", "https://example.com", "https://<subdomain>.amocrm.ru"),
    ("AMOCRM_BASE_URL", "not a url", "https://<subdomain>.amocrm.ru"),
    ("AMOCRM_BASE_URL", "http://acme.amocrm.ru", "must use https"),
    ("AMOCRM_BASE_URL", "", "set AMOCRM_BASE_URL"),
    ("AMOCRM_ACCESS_TOKEN", "", "set AMOCRM_ACCESS_TOKEN"),
    ("AMOCRM_SCHEMA", "public", "choose another name"),
    ("AMOCRM_SCHEMA", "a" * 60, "shorten it to at most 59"),
    ("AMOCRM_SCHEMA", "Acme-1", "lower-case"),
    ("AMOCRM_REQUESTS_PER_SECOND", "fast", "must be a number"),
    ("DATABASE_URL", "mysql://host/base", "postgresql://user:password@host:5432/database"),
    ("MIRROR_KEY", "short", "Fernet.generate_key()"),
])
def test_wrong_settings_are_refused(name: str, value: str, word: str, installation: CliInstallation) -> None:
    refused(installation.call("sync", **{name: value}), 2, word)


@pytest.mark.parametrize(("words", "word"), [
    (("sync", "--only", "leads,deals"), "there is no entity deals. There are: accounts,"),
    (("sync", "--only", "leds"), "there is no entity leds (did you mean leads?). There are: accounts,"),
    (("postgres", "restart"), "there is no action 'restart': use start, stop"),
])
def test_wrong_arguments_are_refused(words: tuple[str, ...], word: str,
                                     installation: CliInstallation) -> None:
    refused(installation.call(*words), 2, word)


@pytest.mark.parametrize("words", [("sync", "--fast"), ("synk",), ("sandbox", "--scale", "3")])
def test_wrong_options_are_refused(words: tuple[str, ...], installation: CliInstallation) -> None:
    done = installation.call(*words)
    assert done.code == 2
    assert "Usage:" in done.error


def test_a_home_that_cannot_be_created_is_reported(installation: CliInstallation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused(installation.call("sync", MIRROR_HOME=str(tmp_path / "file")), 1, "MIRROR_HOME")


def test_a_damaged_key_file_is_reported(installation: CliInstallation, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mirror.key").write_text("nonsense", encoding="utf-8")
    refused(installation.call("sync"), 2, "mirror.key", "restore the file")


def test_a_damaged_dagster_configuration_is_reported(installation: CliInstallation, tmp_path: Path) -> None:
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry: 7\n", encoding="utf-8")
    refused(installation.call("sync", DAGSTER_HOME=str(tmp_path / "dagster")), 1, "dagster.yaml")


def test_status_before_the_first_migration(sandbox: SandboxProcess, empty_database: str,
                                           tmp_path: Path) -> None:
    refused(CliInstallation(tmp_path, empty_database, sandbox).call("status"), 1,
            "run `amocrm-mirror migrate`")


def test_tables_of_another_program(sandbox: SandboxProcess, empty_database: str, tmp_path: Path) -> None:
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE SCHEMA amocrm CREATE TABLE invoices (id int)")
    refused(CliInstallation(tmp_path, empty_database, sandbox).call("sync"), 1, "not ours",
            "another AMOCRM_SCHEMA")


@pytest.mark.parametrize("token", ["no-token-at-all", "revoked"])
def test_a_dead_token_is_reported(token: str, database: str, tmp_path: Path) -> None:
    with SandboxProcess(scale=50) as own:
        person = CliInstallation(tmp_path, database, own)
        if token == "revoked":
            own.revoke()
        else:
            person.environment["AMOCRM_ACCESS_TOKEN"] = token
        done = person.call("sync")
        refused(done, 1, "set AMOCRM_ACCESS_TOKEN")
        assert person.environment["AMOCRM_ACCESS_TOKEN"] not in done.output
        assert person.call("doctor").code == 1


def test_a_token_of_another_account_is_refused(mirrored: CliInstallation) -> None:
    with SandboxProcess(scale=50, seed=7) as other, psycopg.connect(mirrored.environment["DATABASE_URL"],
                                                                    autocommit=True) as connection:
        connection.execute("UPDATE mirror.accounts SET account_id = account_id + 1")
        done = mirrored.call("sync", AMOCRM_BASE_URL=other.url, AMOCRM_ACCESS_TOKEN=other.admin_token)
        connection.execute("UPDATE mirror.accounts SET account_id = account_id - 1")
    refused(done, 1, "holds amoCRM account", "Nothing was changed", "another AMOCRM_SCHEMA")


def test_a_manager_s_token_syncs_what_it_may_see(sandbox: SandboxProcess,
                                                         installation: CliInstallation) -> None:
    done = installation.call("sync", AMOCRM_ACCESS_TOKEN=sandbox.manager_token)
    assert done.code == 0, done.output
    assert "users: skipped: users: the token has no right to it (403" in done.output
    assert "roles: skipped: roles: the token has no right to it (403" in done.output
    checked = installation.call("doctor", AMOCRM_ACCESS_TOKEN=sandbox.manager_token)
    assert checked.code == 0
    assert "is not an administrator" in checked.output


def test_doctor_finds_a_wrong_database_address_and_account(installation: CliInstallation) -> None:
    wrong = installation.call(
        "doctor", DATABASE_URL=make_conninfo(installation.environment["DATABASE_URL"], dbname="nowhere"))
    assert wrong.code == 1
    assert "NO Postgres: connection failed" in wrong.output
    assert "→ Start the server" in wrong.output
    nothing = installation.call("doctor", AMOCRM_BASE_URL="")
    assert nothing.code == 1
    assert "set AMOCRM_BASE_URL" in nothing.output
    far = installation.call("doctor", AMOCRM_BASE_URL=f"http://127.0.0.1:{free_port()}")
    assert far.code == 1
    assert "the connection failed" in far.output
    assert "opens in a browser" in far.output
