"""What a person sees of a batch in Dagster's web UI, in a real browser. With SCREENSHOTS=folder the pictures
are kept there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.installation import open_installation
from pipelines.orchestration.batches.plan import batch_config
from pipelines.orchestration.batches.side_by_side import Batch
from pipelines.postgres.embedded.postmaster import free_port
from sandbox.process import SandboxProcess
from tests.orchestration.test_dev import descendants
from tests.support.chromium import Chromium, chromium_path
from tests.support.commands import CliInstallation
from tests.support.dagster_web import DagsterWeb

NAMES = ("blocked", "idle", "moved")
SECONDS = 90


@pytest.fixture
def person(empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliInstallation]:
    made = CliInstallation(tmp_path, empty_database, AMOCRM_BATCH_ACCOUNTS="50")
    made.apply_environment(monkeypatch)
    yield made
    for process in made.processes:
        for pid in descendants(process.pid) if process.poll() is None else ():
            os.kill(pid, 9)
    made.stop()


def show(browser: Chromium, address: str, texts: list[str], picture: Path) -> str:
    """Opens a page, waits until it shows the texts, keeps a picture; returns what it shows."""
    browser.open(address)
    deadline, shown = time.monotonic() + SECONDS, ""
    while not all(text in shown for text in texts):
        assert time.monotonic() < deadline, (texts, shown)
        time.sleep(0.5)
        shown = str(browser.value("document.body.innerText"))
    time.sleep(1)  # the graph is drawn after its words are there
    browser.screenshot(picture)
    return shown


@pytest.mark.slow
def test_the_graph_the_timeline_a_batch_and_a_failed_account(person: CliInstallation, tmp_path: Path) -> None:
    chromium_path()
    pictures = Path(os.environ.get("SCREENSHOTS", str(tmp_path)))
    with SandboxProcess(scale=30, accounts=len(NAMES)) as running:
        for name, sandbox in zip(NAMES, running.accounts, strict=True):
            assert person.call("accounts", "add", name, sandbox.url, typed=sandbox.admin_token).code == 0
        assert {each.state for each in Batch(open_installation(), [], 3).sync(NAMES)} == {"complete"}
        blocked, _, moved = running.accounts
        blocked.block()
        moved.mutate({"op": "patch", "list": "leads", "id": moved.truth("leads")[0]["id"],
                      "set": {"price": 77}})
        port = free_port()
        person.start("dev", "--port", str(port))
        server = DagsterWeb(port, "moved")
        node = server.assets()[0]
        run, status = server.run_job(node, "sync_moving_batch", batch_config("moving", NAMES),
                                     {"amocrm-mirror/batch": "moving"})
        assert status == "FAILURE"
        site = f"http://127.0.0.1:{port}"
        with Chromium(tmp_path / "profile") as browser:
            show(browser, f"{site}/asset-groups/", ["customers", "reference"], pictures / "graph.png")
            show(browser, f"{site}/overview/activity/timeline", ["sync_moving_batch"],
                 pictures / "timeline.png")
            shown = show(browser, f"{site}/runs/{run}", ["1 of 3 accounts failed"], pictures / "batch.png")
            show(browser, f"{site}/assets/amocrm/leads?view=events", ["moved"], pictures / "account.png")
    assert "blocked: " in shown and "`amocrm-mirror doctor`" in shown
