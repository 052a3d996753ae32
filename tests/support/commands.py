"""amocrm-mirror as a person runs it: with a folder, a database and an account of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.entities.registry import ENTITIES
from sandbox.process import SandboxProcess

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "pipelines.cli.app"]
INHERITED = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ", "TEST_PG_BINDIR") if name in os.environ}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    error: str

    @property
    def said(self) -> str:
        """Both streams on one line each, as `in` wants them."""
        return " ".join((self.out + " " + self.error).split())


class Installation:
    """`run` is a process of its own; `call` the same command line in this process, which saves the second of its start."""

    def __init__(self, folder: Path, database: str = "", sandbox: SandboxProcess | None = None, **more: str) -> None:
        self.folder = folder
        self.environment = {"MIRROR_HOME": str(folder / "home"), "DATABASE_URL": database, "AMOCRM_REQUESTS_PER_SECOND": "unlimited"}
        if sandbox:
            self.environment |= {"AMOCRM_BASE_URL": sandbox.url, "AMOCRM_ACCESS_TOKEN": sandbox.admin_token}
        self.environment |= more
        self.started: list[subprocess.Popen[str]] = []

    def end(self) -> None:
        """Kills what a failed test left behind."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> Installation:
        """For what is called in this process without a command line."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(self.folder)
        return self

    def variables(self, more: dict[str, str]) -> dict[str, str]:
        return INHERITED | {"PYTHONPATH": str(REPOSITORY)} | self.environment | more

    def start(self, *words: str, typed: str | None = None, **more: str) -> subprocess.Popen[str]:
        """`typed` comes on standard input."""
        with tempfile.TemporaryFile("w+") as given:
            given.write(typed or "")
            given.seek(0)
            self.started.append(subprocess.Popen([*COMMAND, *words], cwd=self.folder, env=self.variables(more), text=True, stdin=given,
                                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return self.started[-1]

    def run(self, *words: str, **more: str) -> Done:
        return finished(self.start(*words, **more))

    def call(self, *words: str, typed: str | None = None, **more: str) -> Done:
        """`typed` comes on standard input."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            result = CliRunner().invoke(app, words, env=self.environment | more, input=typed)
        finally:
            os.chdir(before)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)


def offered(sandbox: SandboxProcess) -> set[str]:
    """The names of the entities that the sandbox's account has."""
    account = sandbox.truth("account")[0]
    return {each.name for each in ENTITIES if not (each.unless and each.unless(account))}


def finished(process: subprocess.Popen[str], seconds: float = 120) -> Done:
    out, error = process.communicate(timeout=seconds)
    return Done(process.returncode, out, error)
