"""Runs amocrm-mirror's commands as a user does, each installation with its own folder, database and
account."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.entities.registry import ENTITIES
from sandbox.process import SandboxProcess

UNFIT = re.compile(
    r"\b[A-Z]\w*(?:Error|Exception|Warning)\b|\bNoneType\b|<class |\bTraceback\b|\bobject at 0x|"
    r"\b(?:psycopg|requests|urllib3|sqlalchemy|pydantic|oauthlib|pipelines)\.[A-Za-z_]|"
    r"HTTPS?ConnectionPool|Max retries|[?&](?:limit|page|with|order|filter)\b[^ ]*=|\[\{'")
"""What no message holds: a type or a repr of Python, a class of a library, the query of a request."""
REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "pipelines.cli"]
INHERITED = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ", "TEST_PG_BINDIR")
             if name in os.environ}


def unfit_for_people(text: str) -> list[str]:
    """Returns the parts of a text that no message to people may hold."""
    return [found.group() for found in UNFIT.finditer(text)]


@cache
def root_command() -> Any:
    return get_command(app)


def check_parses(words: list[str]) -> None:
    """Fails for a command or an option that amocrm-mirror does not have. Runs nothing."""
    command: Any = root_command()
    while words and (sub := getattr(command, "commands", {}).get(words[0])):
        command, words = sub, words[1:]
    assert not getattr(command, "commands", {}), f"no such command: {words}"
    command.make_context("amocrm-mirror", list(words))


@dataclass(frozen=True)
class CommandResult:
    """The exit code and the output of a command."""

    code: int
    out: str
    error: str

    @property
    def output(self) -> str:
        """Both streams on one line, so that `in` finds a sentence that was wrapped."""
        return " ".join((self.out + " " + self.error).split())


class CliInstallation:
    """A folder, a database and an account to run commands in. `run` starts a process; `call` runs the command
    in this process, which saves the second of a start."""

    def __init__(self, folder: Path, database: str = "", sandbox: SandboxProcess | None = None,
                 **more: str) -> None:
        self.folder = folder
        self.environment = {"MIRROR_HOME": str(folder / "home"), "DATABASE_URL": database,
                            "AMOCRM_REQUESTS_PER_SECOND": "unlimited", "AMOCRM_LANG": "en"}
        if sandbox:
            self.environment |= {"AMOCRM_BASE_URL": sandbox.url, "AMOCRM_ACCESS_TOKEN": sandbox.admin_token}
        self.environment |= more
        self.processes: list[subprocess.Popen[str]] = []

    def stop(self) -> None:
        """Kills what a failed test left behind."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def apply_environment(self, monkeypatch: pytest.MonkeyPatch) -> CliInstallation:
        """Sets this process's environment and working folder to the installation's, for functions that are
        called without a command."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(self.folder)
        return self

    def process_environment(self, more: dict[str, str]) -> dict[str, str]:
        return INHERITED | {"PYTHONPATH": str(REPOSITORY)} | self.environment | more

    def start(self, *words: str, typed: str | None = None, **more: str) -> subprocess.Popen[str]:
        """Starts a command in a process. `typed`: its standard input; `more`: environment variables."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as given:
            given.write(typed or "")
            given.seek(0)
            self.processes.append(subprocess.Popen(
                [*COMMAND, *words], cwd=self.folder, env=self.process_environment(more),
                encoding="utf-8", errors="replace", stdin=given, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE))
        return self.processes[-1]

    def run(self, *words: str, **more: str) -> CommandResult:
        return wait_for(self.start(*words, **more))

    def call(self, *words: str, typed: str | None = None, **more: str) -> CommandResult:
        """Runs a command in this process. `typed`: its standard input; `more`: environment variables."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            result = CliRunner().invoke(app, words, env=self.environment | more, input=typed)
        finally:
            os.chdir(before)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        is_json = result.stdout.lstrip().startswith(("{", "["))  # for programs
        said = result.stderr if is_json else result.stdout + result.stderr
        assert unfit_for_people(said) == [], said
        return CommandResult(result.exit_code, result.stdout, result.stderr)


def command_paths(group: Any, *before: str) -> Iterator[tuple[str, ...]]:
    """Yields the names of every command below a group, subcommands with their groups."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from command_paths(command, *before, name)
        else:
            yield (*before, name)


def offered_entities(sandbox: SandboxProcess) -> set[str]:
    """Returns the names of the entities that the sandbox's account offers."""
    account = sandbox.truth("account")[0]
    return {each.name for each in ENTITIES
            if not (each.unavailable_because(account) or each.doubtful_because(account))}


def wait_for(process: subprocess.Popen[str], seconds: float = 120) -> CommandResult:
    out, error = process.communicate(timeout=seconds)
    return CommandResult(process.returncode, out, error)
