"""Many accounts in one database: each is added, synced, fails, is paused and removed without effect on the
others."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.commands import CliInstallation, CommandResult
from tests.support.embedded import has_ended
from tests.support.equality import differences
from tests.support.webhooks import wait_until

NAMES = ("whole", "blocked", "revoked", "failing", "resting")


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[dict[str, SandboxProcess]]:
    with SandboxProcess(scale=50, accounts=len(NAMES) + 1) as running:
        yield dict(zip((*NAMES, "stranger"), running.accounts, strict=True))


@pytest.fixture(scope="module")
def database(postgres_server: str, template_database: str) -> Iterator[str]:
    with temporary_database(postgres_server, template_database) as conninfo:
        yield conninfo


@pytest.fixture(scope="module")
def person(database: str, tmp_path_factory: pytest.TempPathFactory) -> CliInstallation:
    return CliInstallation(tmp_path_factory.mktemp("accounts"), database)


@pytest.fixture(scope="module")
def synced(person: CliInstallation, sandboxes: dict[str, SandboxProcess]) -> CommandResult:
    """The output of one sync of five new accounts: one is blocked, one revoked, one fails, one is paused."""
    for name in NAMES:
        sandbox = sandboxes[name]
        added = person.call("accounts", "add", name, sandbox.url, typed=sandbox.admin_token)
        assert added.code == 0 and f"id {sandbox.account_id}" in added.out, added.output
        assert sandbox.admin_token not in added.output
    sandboxes["blocked"].block()
    sandboxes["revoked"].revoke()
    sandboxes["failing"].fault("400", match="/api/v4/roles", times=0)
    assert person.call("accounts", "pause", "resting").code == 0
    return person.run("sync", "--all")


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as opened:
        yield opened


def one(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None


def listed(person: CliInstallation) -> dict[str, dict[str, Any]]:
    return {each["account"]: each for each in json.loads(person.call("accounts", "list", "--json").out)}


def test_a_failing_account_affects_no_other(synced: CommandResult, sandboxes: dict[str, SandboxProcess],
                                            connection: psycopg.Connection[Any]) -> None:
    assert synced.code == 1, synced.output
    lines = {line.partition(":")[0]: line for line in synced.error.splitlines() if ":" in line}
    assert "complete" in lines["whole"] and "rows changed" in lines["whole"]
    assert "left out: paused since" in lines["resting"]
    assert "blocked this account" in lines["blocked"] and "refuses the token" in lines["revoked"]
    assert "failed" in lines["failing"] and "roles: GET roles" in lines["failing"]
    assert [line.split()[:2] for line in synced.out.splitlines()[1:6]] == [
        ["blocked", "failed"], ["failing", "failed"], ["resting", "left"], ["revoked", "failed"],
        ["whole", "complete"]]
    reasons = {"blocked": lines["blocked"],
               "failing": f"failing: failed: {lines['failing'].split('rows changed; ')[1]}",
               "revoked": lines["revoked"]}
    assert synced.out.splitlines()[6:-1] == [
        *reasons.values()], "the whole reason of each, once more at the end"
    assert differences(connection, sandboxes["whole"], "whole") == []
    assert differences(connection, sandboxes["failing"], "failing",
                       {"leads", "contacts", "users", "pipelines"}) == []
    for name in ("blocked", "revoked", "resting"):
        assert one(connection, f"SELECT count(*) FROM {name}.leads") == 0
    assert one(connection, "SELECT count(DISTINCT key) FROM mirror.rate_budgets") in (
        0, 5), "unlimited, or a budget for each"


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes of accounts: children of the server process that the command starts."""
    found = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True,
                           check=True).stdout.split()
    parents = {int(pid): int(parent) for pid, parent in zip(found[::2], found[1::2], strict=True)}
    return [pid for pid, parent in parents.items() if parents.get(parent) == process.pid]


def test_a_killed_process_affects_no_other_and_ctrl_c_ends_all(synced: CommandResult, person: CliInstallation,
                                                               sandboxes: dict[str, SandboxProcess],
                                                               connection: psycopg.Connection[ Any]) -> None:
    for name in ("whole", "failing"):
        sandboxes[name].latency(1500)
        sandboxes[name].reset_stats()
    process = person.start("sync", "--all", "--full")
    try:
        wait_until(lambda: all(sandboxes[name].stats()["requests"] for name in ("whole", "failing"))
                   and len(children(process)) == 2)
        victim, other = children(process)
        os.kill(victim, signal.SIGKILL)
        assert process.stderr
        while "killed by SIGKILL; what had landed is kept" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=120)[1]
    finally:
        for name in ("whole", "failing"):
            sandboxes[name].latency(0)
    assert process.returncode == 1 and "interrupted; what had landed is kept" in " ".join(rest.split())
    assert has_ended(other)
    assert one(connection, "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
                           "WHERE locktype = 'advisory' AND datname = current_database()") == 0


def test_refused_accounts_are_asked_at_most_once_an_hour(synced: CommandResult, person: CliInstallation,
                                                         sandboxes: dict[ str, SandboxProcess]) -> None:
    for sandbox in sandboxes.values():
        sandbox.reset_stats()
    again = person.run("sync", "--all", "--only", "tags", "--at-once", "2")
    assert again.code == 1 and "it is asked again after an hour" in again.output, again.output
    asked = {name: sandboxes[name].stats()["requests"] > 0 for name in NAMES}
    assert asked == {"whole": True, "failing": True, "blocked": False, "revoked": False, "resting": False}
    found = listed(person)
    assert found["whole"]["standing"] == "synced" and found["blocked"]["standing"].startswith(
        "blocked by amoCRM")
    assert (found["revoked"]["standing"].startswith("without access since")
            and found["resting"]["standing"].startswith("paused since"))
    shown = person.call("status", "--account", "revoked")
    assert shown.code == 1 and "The account is without access since" in shown.output


def test_a_paused_account_is_skipped_until_it_is_resumed(synced: CommandResult, person: CliInstallation,
                                                         sandboxes: dict[str, SandboxProcess],
                                                         connection: psycopg.Connection[Any]) -> None:
    refused = person.call("sync", "--account", "resting", "--only", "tags")
    assert refused.code == 1 and "accounts resume resting" in refused.output
    assert person.call("verify", "--account", "resting", "--only", "tags").code == 1
    assert "resumed" in person.call("accounts", "resume", "resting").out
    assert "was not paused" in person.call("accounts", "resume", "resting").out
    assert person.call("sync", "--account", "resting", "--only", "tags").code == 0
    assert person.call("verify", "--account", "resting", "--only", "tags").code == 0
    assert differences(connection, sandboxes["resting"], "resting", {"tags"}) == []
    assert "was paused already" not in person.call("accounts", "pause", "resting").out


def test_a_new_token_ends_a_revocation(synced: CommandResult, person: CliInstallation,
                                       sandboxes: dict[str, SandboxProcess]) -> None:
    assert person.call("sync", "--account", "revoked", "--only", "tags").code == 1
    given = person.call("auth", "--account", "revoked", typed=sandboxes["revoked"].token()["access_token"])
    assert given.code == 0, given.output
    assert person.call("sync", "--account", "revoked", "--only", "tags").code == 0


@pytest.mark.parametrize(("name", "address", "code", "words"), [
    ("whole", "https://other.amocrm.ru", 2, "there is an account 'whole' already"),
    ("amocrm_demo", "https://other.amocrm.ru", 2, "is the demo's"),
    ("mirror", "https://other.amocrm.ru", 2, "reserved"),
    ('x"; DROP SCHEMA whole CASCADE; --', "https://other.amocrm.ru", 2, "is not a schema name"),
    ("amocrm_all", "other", 2, "reserved"), ("public", "other", 2, "reserved"),
    ("whole_bi", "other", 2, "reserved"), ("a" * 63, "other", 2, "at most 59"),
    ("кедр", "other", 2, "is not a schema name"), ("who's", "other", 2, "is not a schema name"),
    ("x.y", "other", 2, "is not a schema name"),
    ("other", "https://amocrm.ru.evil.example", 2, "is not the address"),
    ("other", "ftp://other.amocrm.ru", 2, "must use https")])
def test_invalid_accounts_are_not_added(name: str, address: str, code: int, words: str, synced: CommandResult,
                                        person: CliInstallation, connection: psycopg.Connection[Any]) -> None:
    before = one(connection, "SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace")
    refused = person.call("accounts", "add", name, address, typed="a-token")
    assert (refused.code == code and words in refused.output
            and "Traceback" not in refused.output), refused.output
    assert one(connection, "SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace") == before


def test_an_account_without_access_leaves_nothing(synced: CommandResult, person: CliInstallation,
                                                  sandboxes: dict[str, SandboxProcess],
                                                  connection: psycopg.Connection[Any]) -> None:
    refused = person.call("accounts", "add", "newcomer", sandboxes["whole"].url, typed="mistyped.token.x")
    assert refused.code == 1 and "Nothing was changed" in refused.output
    assert "newcomer" not in listed(person) and one(connection, "SELECT to_regnamespace('newcomer')") is None


@pytest.mark.parametrize("words", [("sync",), ("verify",), ("status",), ("doctor",), ("auth",), ("migrate",),
                                   ("prune",), ("grants",), ("forget", "--list"), ("views",), ("dictionary",),
                                   ("webhooks", "rotate")])
def test_every_command_reports_an_unknown_account(words: tuple[str, ...], synced: CommandResult,
                                                  person: CliInstallation) -> None:
    refused = person.call(*words, "--account", "nobody")
    assert (refused.code == 2 and "there is no account 'nobody' here, but" in refused.output
            and "whole" in refused.output)


def test_all_and_account_exclude_each_other(person: CliInstallation) -> None:
    assert person.call("sync", "--all", "--account", "whole").code == 2
    assert person.call("grants", "--all", "--account", "whole").code == 2


def test_another_account_cannot_take_a_kept_schema(synced: CommandResult, person: CliInstallation,
                                                   sandboxes: dict[str, SandboxProcess],
                                                   connection: psycopg.Connection[Any]) -> None:
    sandbox, other = sandboxes["failing"], sandboxes["stranger"]
    rows = one(connection, "SELECT count(*) FROM failing.leads")
    kept = person.call("accounts", "remove", "failing", "--keep-data", "--yes")
    assert kept.code == 0 and "its tables stay in failing" in kept.out
    assert ("failing" not in listed(person)
            and one(connection, "SELECT count(*) FROM mirror.tokens WHERE account = 'failing'") == 0)
    refused = person.call("accounts", "add", "failing", other.url, typed=other.admin_token)
    assert refused.code == 1 and "holds another amoCRM account" in refused.output
    direct = person.call("sync", "--only", "accounts", AMOCRM_SCHEMA="failing", AMOCRM_BASE_URL=other.url,
                         AMOCRM_ACCESS_TOKEN=other.admin_token)
    assert direct.code == 1 and f"holds amoCRM account {sandbox.account_id}" in direct.output
    assert one(connection, "SELECT count(*) FROM failing.leads") == rows == 50
    connection.execute("DELETE FROM mirror.accounts WHERE name = 'failing'")
    assert person.call("accounts", "add", "failing", sandbox.url, typed=sandbox.admin_token).code == 0


def test_removing_lists_the_data_and_asks(synced: CommandResult, person: CliInstallation,
                                          connection: psycopg.Connection[Any]) -> None:
    said_no = person.call("accounts", "remove", "blocked", typed="n\n")
    assert (said_no.code == 1 and re.search(r"blocked, blocked_bi \(\d\d tables", said_no.output)
            and "blocked" in listed(person))
    connection.execute(
        "CREATE SCHEMA theirs; CREATE VIEW theirs.report AS SELECT count(*) FROM blocked.leads")
    held = person.call("accounts", "remove", "blocked", "--yes")
    assert held.code == 1 and "theirs.report would be dropped" in held.output and "blocked" in listed(person)
    connection.execute("DROP SCHEMA theirs CASCADE")
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('amocrm-mirror sync blocked', 0))")
        assert "is running" in person.call("accounts", "remove", "blocked", "--yes").output
    assert person.call("accounts", "remove", "blocked", "--yes").code == 0
    assert one(connection, "SELECT to_regnamespace('blocked')") is None and "blocked" not in listed(person)
    assert one(connection, "SELECT count(*) FROM whole.leads") == 50
    assert person.call("accounts", "remove", "blocked", "--yes").code == 2


