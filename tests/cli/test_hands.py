"""What people do with their hands: interrupt, stop the server, answer wrongly, paste any address."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import typer
from typer.main import get_command

from pipelines.access.consent import Consent, parse_redirect
from pipelines.cli import app as module
from pipelines.cli import authorize, views
from pipelines.cli.app import app
from pipelines.cli.terminal.interrupts import NOTES, interrupted_note
from pipelines.config.settings import SettingsError, parse_account_address
from pipelines.errors import UsageError
from pipelines.installation import open_installation
from pipelines.migrate import migrate
from pipelines.postgres.embedded.server import EmbeddedPostgres
from pipelines.postgres.locks import sync_lock
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation, command_paths


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60) as running:
        yield running


# Ctrl-C


def test_every_command_has_its_own_words_for_ctrl_c() -> None:
    paths = [" ".join(path) for path in command_paths(get_command(app))]
    assert sorted(paths) == sorted(NOTES)


def test_the_note_is_that_of_the_running_command() -> None:
    assert interrupted_note(["accounts", "add", "acme", "acme"]) == NOTES["accounts add"]
    assert interrupted_note(["verify", "--repair"]) == NOTES["verify"]


def test_ctrl_c_before_the_command_begins_has_its_words_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """While its modules are imported, say: the library of the command line ends in silence there."""
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(views, "report_errors", interrupted)
    monkeypatch.setattr(module, "prepare_streams", lambda: None)
    monkeypatch.setattr(sys, "argv", ["amocrm-mirror", "views", "--all"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            module.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == f"amocrm-mirror: interrupted; {NOTES['views']}", "a text: exit code 1"


# postgres stop


def test_stopping_postgres_names_the_sync_that_runs(postgres_home: Path, tmp_path: Path) -> None:
    conninfo = EmbeddedPostgres(postgres_home).start()
    migrate(conninfo, "amocrm")
    person = CliInstallation(tmp_path, MIRROR_HOME=str(postgres_home))
    with closing(psycopg.connect(conninfo, autocommit=True)) as holder:
        holder.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES "
                       "('amocrm', 'amocrm', 'https://acme.amocrm.ru')")
        with sync_lock("amocrm").hold(holder):
            refused = person.call("postgres", "stop")
            assert refused.code == 1 and "a sync of amocrm is running" in refused.output
            assert "--yes" in refused.error and EmbeddedPostgres(postgres_home).status().running
    assert person.call("postgres", "stop").out == "stopped\n", "nothing runs"
    assert EmbeddedPostgres(postgres_home).start()
    assert person.call("postgres", "stop", "--yes").out == "stopped\n"


# auth


@pytest.mark.parametrize("pasted", [
    "acme", "acme.amocrm.ru", "https://acme.amocrm.ru/", "http://acme.amocrm.ru", "HTTPS://ACME.AMOCRM.RU/leads/",
    "https://acme.amocrm.ru/leads/detail/123?from=search#tab", "acme.amocrm.ru/dashboard/",
    " <https://acme.amocrm.ru/todo/line/> ", "https://me:secret@acme.amocrm.ru/", "acme.amocrm.ru:443",
    "https://acme.amocrm.ru:443/settings/widgets/?a=1"])
def test_any_page_of_the_account_names_it(pasted: str) -> None:
    assert parse_account_address(pasted) == "https://acme.amocrm.ru"


@pytest.mark.parametrize("pasted", ["", "https://example.com/", "https://www.amocrm.ru/", "acme amocrm ru",
                                    "https://amocrm.ru.evil.com/acme.amocrm.ru", "javascript:alert(1)"])
def test_other_pages_are_refused(pasted: str) -> None:
    with pytest.raises(SettingsError):
        parse_account_address(pasted)


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes prompts answer from a list; returns the list of answers, to be filled by the test."""
    answers: list[str] = []
    monkeypatch.setattr(authorize, "is_terminal", lambda: True)
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: answers.pop(0))
    monkeypatch.setattr(authorize, "prompt_secret", lambda *_: answers.pop(0))
    return answers


def test_a_wrong_answer_is_asked_again(at_a_terminal: list[str], sandbox: SandboxProcess, database: str,
                                       tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    CliInstallation(tmp_path, database, sandbox, AMOCRM_ACCESS_TOKEN="").apply_environment(monkeypatch)
    at_a_terminal += ["7", "1", "two words", "not-a-token", sandbox.admin_token]
    lines = list(authorize.authorize(open_installation(), False, False, None))
    said = capsys.readouterr().err
    assert any(line.startswith("Stored:") for line in lines) and at_a_terminal == []
    for words in ("there is no way '7': answer 1, 2 or 3", "characters that no token has",
                  "amoCRM refuses the token", "Received 11 characters",
                  f"Received {len(sandbox.admin_token):,} characters"):
        assert words in said
    assert sandbox.admin_token not in said and "not-a-token" not in said


def test_an_answer_without_the_account_s_name_asks_for_it(at_a_terminal: list[str],
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    granted = parse_redirect("code=secret&state=s", "s", "https://acme.amocrm.ru")
    assert granted == Consent("secret", "")
    at_a_terminal += ["nonsense!", "https://acme.amocrm.ru/leads/"]
    assert authorize._with_account(granted, "https://acme.amocrm.ru") == replace(
        granted, base_url="https://acme.amocrm.ru")
    assert "Account: https://acme.amocrm.ru" in capsys.readouterr().err
    at_a_terminal += ["other.amocrm.ru"]
    with pytest.raises(UsageError, match="access was given to https://other.amocrm.ru"):
        authorize._with_account(granted, "https://acme.amocrm.ru")


# Lists that an account does not have


def test_absent_lists_are_one_quiet_line(sandbox: SandboxProcess, database: str, tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, database, sandbox)
    sandbox.fault("404", match="/api/v4/bots", times=0)
    sandbox.fault("404", match="/api/v4/customers/notes", times=0)
    try:
        done = person.call("sync")
    finally:
        sandbox.clear_faults()
    assert done.code == 0, done.output
    lines = [line for line in done.error.splitlines() if "bots" in line or "segments" in line]
    assert lines[-1] in ("not in this account: bots, segments (`amocrm-mirror status` says why)",
                         "not in this account: segments, bots (`amocrm-mirror status` says why)")
    assert "404" not in done.error
    notes = next(line for line in person.call("status").out.splitlines() if line.startswith("notes "))
    assert " complete " in notes and "notes: " not in person.call("status").out
