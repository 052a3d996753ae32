"""A real Superset in an environment of its own (requirements/superset.txt): its database is SQLite, and it
asks the network for nothing but the mirror's Postgres."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from pipelines.postgres.embedded.postmaster import free_port
from tests.support.chromium import Chromium

CONFIG = """
SECRET_KEY = "of the tests, and of nothing else " * 2
SQLALCHEMY_DATABASE_URI = "sqlite:///{folder}/superset.db"
WTF_CSRF_ENABLED = False
TALISMAN_ENABLED = False
CONTENT_SECURITY_POLICY_WARNING = False
FEATURE_FLAGS = {{"ENABLE_TEMPLATE_PROCESSING": True}}
"""
USER, PASSWORD = "admin", "of-the-tests"
START_SECONDS, LOAD_SECONDS, SETTLE_SECONDS = 180, 90, 3
CHARTS_LOADING = "document.querySelectorAll('[data-test=\"loading-indicator\"], .loading').length"
CHARTS = "document.querySelectorAll('.dashboard-component-chart-holder').length"
BOTTOM = ("Math.max(...[...document.querySelectorAll('.dashboard-component-chart-holder')]"
          ".map(each => each.getBoundingClientRect().bottom), 1000)")
TALL = {"width": 1500, "height": 9000, "deviceScaleFactor": 1, "mobile": False}
"""A window in which all charts of a page are seen, and therefore asked for."""


@dataclass
class Superset:
    python: Path
    folder: Path
    address: str = ""
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        (self.folder / "superset_config.py").write_text(CONFIG.format(folder=self.folder), encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "FLASK_APP": "superset",
                "LC_ALL": "C.UTF-8", "SUPERSET_CONFIG_PATH": str(self.folder / "superset_config.py"),
                "SCARF_ANALYTICS": "false"}

    def run(self, *words: str | Path) -> str:
        done = subprocess.run([self.python.parent / "superset", *words], env=self.environment,
                              cwd=self.folder, check=False, capture_output=True, encoding="utf-8")
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "Traceback" not in said, said[said.find("Traceback"):][:12000]
        return said

    def set_up(self) -> None:
        self.run("db", "upgrade")
        self.run("init")
        self.run("fab", "create-admin", "--username", USER, "--password", PASSWORD, "--firstname", "A",
                 "--lastname", "B", "--email", "a@example.com")

    def rows(self, query: str) -> list[Any]:
        with sqlite3.connect(self.folder / "superset.db") as connection:
            return connection.execute(query).fetchall()

    def ids(self, table: str) -> dict[str, int]:
        """uuid → id of all charts (slices), dashboards, datasets (tables) or databases (dbs)."""
        rows = self.rows(f"SELECT uuid, id FROM {table}")
        return {str(uuid.UUID(bytes=each)): ident for each, ident in rows}

    @contextmanager
    def serving(self) -> Iterator[None]:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        with (self.folder / "server.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [self.python.parent / "superset", "run", "-p", str(port), "--with-threads"],
                env=self.environment, cwd=self.folder, stdout=log, stderr=log)
            try:
                self._log_in()
                yield
            finally:
                process.terminate()
                process.wait(30)

    def _log_in(self) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                assert requests.get(f"{self.address}/health", timeout=10).ok
                break
            except requests.ConnectionError:
                assert time.monotonic() < end, (self.folder / "server.log").read_text(encoding="utf-8")
                time.sleep(0.5)
        token = self.call("POST", "security/login", {"username": USER, "password": PASSWORD,
                                                     "provider": "db"})["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        done = self.session.request(method, f"{self.address}/api/v1/{path}", json=body, timeout=120)
        assert done.ok, f"{path}: {done.status_code} {done.text[:3000]}"
        return done.json()


class DashboardTab(Chromium):
    """A tab that is logged in, and keeps what its pages ask for charts. `asked`: the bodies of the
    requests."""

    def __init__(self, profile: Path, superset: Superset) -> None:
        super().__init__(profile)
        self.superset, self.asked = superset, list[dict[str, Any]]()

    def _next(self) -> dict[str, Any]:
        event = super()._next()
        if event.get("method") == "Network.requestWillBeSent":
            request = event["params"]["request"]
            if "/api/v1/chart/data" in request["url"] and request["method"] == "POST":
                self.asked.append(json.loads(request["postData"]))
        return event

    def log_in(self) -> None:
        self.open(f"{self.superset.address}/login/")
        self.value(f"fetch('/login/', {{method: 'POST', body: new URLSearchParams({{username: '{USER}', "
                   f"password: '{PASSWORD}'}})}}).then(done => {{ window.code = done.status; }})")
        end = time.monotonic() + LOAD_SECONDS
        while self.value("window.code") is None and time.monotonic() < end:
            time.sleep(0.1)
        assert self.value("window.code") == 200
        self.send_command("Emulation.setDeviceMetricsOverride", **TALL)

    def open_dashboard(self, slug: str, charts: int, picture: Path) -> None:
        """Opens a dashboard, waits until all of its charts are drawn, and takes a picture of it. A page that
        stays empty, as it may while the machine is busy, is opened once more."""
        if not (self._is_drawn(slug, charts) or self._is_drawn(slug, charts)):
            said = self.value("document.body.innerText")
            raise AssertionError(f"{slug}: {self.value(CHARTS)} of {charts} charts: {said[:1000]}")
        self.send_command("Emulation.setDeviceMetricsOverride", **TALL | {
            "height": int(self.value(BOTTOM)) + 20})
        self.screenshot(picture)
        self.send_command("Emulation.setDeviceMetricsOverride", **TALL)

    def _is_drawn(self, slug: str, charts: int) -> bool:
        self.open(f"{self.superset.address}/superset/dashboard/{slug}/")
        end, quiet = time.monotonic() + LOAD_SECONDS, 0.0
        while time.monotonic() < end and quiet < SETTLE_SECONDS:
            time.sleep(0.25)
            is_drawn = self.value(CHARTS) >= charts and not self.value(CHARTS_LOADING)
            quiet = quiet + 0.25 if is_drawn else 0.0
        return quiet >= SETTLE_SECONDS
