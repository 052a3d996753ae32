"""The services of deploy/compose.yaml as processes of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from psycopg.conninfo import conninfo_to_dict

from pipelines.postgres.embedded.postmaster import free_port
from tests.support.commands import INHERITED, REPOSITORY, CommandResult

DEPLOY = REPOSITORY / "deploy"
VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")
PROGRAMS = Path(sys.executable).parent


class Stack:
    """The services of compose.yaml with this machine's addresses, ports and folders in place of theirs."""

    def __init__(self, folder: Path, database: str, variables: dict[str, str],
                 settings: dict[str, str]) -> None:
        self.folder, self.processes = folder, dict[str, subprocess.Popen[bytes]]()
        self.ports = {name: free_port() for name in ("8780", "8781", "4000", "3000", "6379")}
        server = conninfo_to_dict(database)
        address = f"postgres:{server['password']}@127.0.0.1:{server['port']}"
        self.changes = {
            "amocrm:secret@postgres:5432/amocrm": f"{address}/{server['dbname']}",
            "amocrm:secret@postgres:5432/dagster": f"{address}/{server['dbname']}_dagster",
            "redis:6379": f"127.0.0.1:{self.ports['6379']}", "host: code": "host: 127.0.0.1",
            "/data": str(folder / "data"), "/opt/dagster": str(folder / "dagster"),
            **{port: str(free) for port, free in self.ports.items() if port != "6379"}}
        variables |= {"POSTGRES_PASSWORD": "secret"}
        text = VARIABLE.sub(lambda each: variables.get(each[1], each[2] or ""),
                            (DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
        self.services: dict[str, Any] = yaml.safe_load(self.localized(text))["services"]
        self.settings = settings
        for name in ("data", "dagster"):
            (folder / name).mkdir()
        [configuration] = re.findall(r"- \./(\S+\.yaml):/opt/dagster/dagster.yaml:ro", text)
        for name, source in {"workspace.yaml": "workspace.yaml", "dagster.yaml": configuration}.items():
            (folder / "dagster" / name).write_text(
                self.localized((DEPLOY / source).read_text(encoding="utf-8")), encoding="utf-8")

    def localized(self, text: str) -> str:
        theirs = "|".join(map(re.escape, self.changes))
        return re.sub(theirs, lambda each: self.changes[each[0]], text)

    def environment(self, service: str) -> dict[str, str]:
        image = {"HOME": str(self.folder / "data"), "MIRROR_HOME": str(self.folder / "data"),
                 "DAGSTER_HOME": str(self.folder / "dagster")}
        own: dict[str, str] = self.services[service]["environment"]
        return INHERITED | image | self.settings | own | {
            "PATH": f"{PROGRAMS}:{INHERITED['PATH']}", "PYTHONPATH": str(REPOSITORY)}

    def run(self, service: str, *command: str) -> CommandResult:
        """Runs a command as `docker compose run --rm` does; without one, the service's own."""
        done = subprocess.run(command or self.services[service]["command"], cwd=self.folder / "data",
                              env=self.environment(service), check=False, capture_output=True,
                              encoding="utf-8")
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def start_one(self, service: str, name: str = "", before: Sequence[str] = ()) -> None:
        """Starts a service without waiting for it. `name`: its own, where there are several; `before`: words
        that go before its command."""
        with (self.folder / f"{name or service}.log").open("wb") as log:
            self.processes[name or service] = subprocess.Popen(
                [*before, *self.services[service]["command"]], cwd=self.folder / "data", stdout=log,
                stderr=log, env=self.environment(service), start_new_session=True)

    def start(self, *services: str) -> None:
        """Starts services, and waits until each is healthy."""
        for service in services:
            self.start_one(service)
        for service in services:
            check, deadline = self.services[service].get("healthcheck", {}), time.monotonic() + 180
            command = check["test"][1:] if "test" in check else [*map(self.localized, IMAGE_CHECK)]
            while not check.get("disable") and self.run(service, *command).code:
                assert time.monotonic() < deadline, self.log(service)
                assert self.processes[service].poll() is None, self.log(service)
                time.sleep(1)

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def image_check() -> list[str]:
    """The health check of the image, which the service `serve` has."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    [found] = re.findall(r"HEALTHCHECK .*\\\n +CMD (\[.*\])", text)
    parsed: list[str] = yaml.safe_load(found)
    return parsed


IMAGE_CHECK = image_check()
