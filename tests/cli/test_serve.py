"""`amocrm-mirror serve`, as a user runs it: a change in amoCRM is a row at once, a part that dies is
restarted, and nothing is left running."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psycopg
import pytest
import requests

from benchmarks.measure import children
from pipelines.postgres.embedded.postmaster import free_port
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation, wait_for
from tests.support.webhooks import is_known, is_listening, wait_until


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def command_of(pid: int) -> str:
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_text(encoding="utf-8").replace("\0", " ") if path.exists() else ""


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks its processes up in /proc")
def test_a_change_becomes_a_row_whichever_part_dies(database: str, tmp_path: Path) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with SandboxProcess(scale=30) as sandbox, psycopg.connect(database, autocommit=True) as connection:
        installation = CliInstallation(tmp_path, database, sandbox)
        assert installation.call("sync", "--only", "leads").code == 0
        lead = sandbox.truth("leads")[0]["id"]

        def becomes(price: int) -> None:
            sandbox.mutate({"op": "patch", "list": "leads", "id": lead, "set": {"price": price}})
            wait_until(lambda: connection.execute("SELECT 1 FROM amocrm.leads WHERE id = %s AND price = %s",
                                                  [lead, price]).fetchone())

        metrics = free_port()
        process = installation.start("--log-format", "json", "serve", "--no-dagster", "--port",
                                     str(port), "--metrics-port", str(metrics), "--report")
        try:
            wait_until(lambda: is_listening(base))
            subscribed = installation.call("webhooks", "subscribe", "--url", base)
            assert subscribed.code == 0, subscribed.output
            [destination] = [hook["destination"] for hook in sandbox.truth("webhooks")
                             if hook["destination"].startswith(base)]
            wait_until(lambda: is_known(destination))
            becomes(111)
            parts = children(process.pid)
            assert len(parts) == 3
            for part in parts:
                os.kill(part, signal.SIGKILL)
            wait_until(lambda: len(children(process.pid)) == 3
                       and not set(children(process.pid)) & set(parts))
            wait_until(lambda: is_listening(base)
                       and requests.get(f"{base}/health", timeout=60).status_code == 200)
            becomes(222)
            parts = children(process.pid)
            words = ("metrics", "webhooks drain", "webhooks serve")
            assert sorted(word for part in parts for word in words
                          if f" {word}" in command_of(part)) == list(words)
            wait_until(lambda: requests.get(f"http://127.0.0.1:{metrics}/health/drain",
                                            timeout=60).status_code == 200)
            assert requests.get(f"http://127.0.0.1:{metrics}/health/receiver", timeout=60).status_code == 200
            shown = requests.get(f"http://127.0.0.1:{metrics}/metrics", timeout=60).text
            assert 'amocrm_mirror_drain_running{account="amocrm"} 1.0' in shown
            report = requests.get(f"http://127.0.0.1:{metrics}/report", timeout=60)
            assert report.status_code == 200 and report.text.startswith("<!doctype html>")
            for path in ("metrics", "report"):
                assert requests.get(f"{base}/{path}", timeout=60).status_code == 404, "a public port"
            process.send_signal(signal.SIGTERM)
            done = wait_for(process)
            lines = [json.loads(line) for line in done.error.splitlines()]
            assert len({line["run"] for line in lines}) == 1, "one id in the lines of all parts"
            assert any(line["message"].startswith("receiver on http") for line in lines)
            assert any(line["message"] == "draining" for line in lines)
            assert done.code == 0 and "Traceback" not in done.error, done.output
            assert not any(map(alive, parts))
        finally:
            installation.stop()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks its processes up in /proc")
def test_its_parts_end_with_it(database: str, tmp_path: Path) -> None:
    installation = CliInstallation(tmp_path, database)
    serving = installation.start("serve", "--no-dagster", "--port", str(free_port()),
                                 "--metrics-port", str(free_port()))
    wait_until(lambda: len(children(serving.pid)) == 3)
    parts = children(serving.pid)
    serving.kill()
    serving.communicate()
    wait_until(lambda: not any(map(alive, parts)))
