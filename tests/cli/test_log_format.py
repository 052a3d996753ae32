"""`--log-format json`: every line on standard error is a JSON object with one id, and the result stays where
it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=30) as started:
        yield started


def parsed(error: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in error.splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
        assert line["level"] in ("info", "warning", "error")
        assert line["message"]
    assert len({line["run"] for line in lines}) == 1
    return lines


def test_a_sync_is_lines_with_one_id_and_names_its_run(database: str, tmp_path: Path,
                                                       sandbox: SandboxProcess) -> None:
    installation = CliInstallation(tmp_path, database, sandbox)
    done = installation.run("--log-format", "json", "sync", "--only", "tags,leads")
    assert done.code == 0, done.output
    lines = parsed(done.error)
    ended = {line["list"]: line for line in lines if "list" in line}
    assert ended.keys() == {"tags", "leads"}
    assert (ended["leads"]["state"], ended["leads"]["records"]) == ("complete", len(sandbox.truth("leads")))
    assert lines[-1]["message"].startswith("Sync complete. ")
    with psycopg.connect(database) as connection:
        runs = connection.execute("SELECT DISTINCT run_id FROM mirror.sync_runs").fetchall()
    assert runs == [(lines[-1]["sync_run"],)]


def test_an_error_is_a_line_too_and_the_given_id_is_used(tmp_path: Path) -> None:
    done = CliInstallation(tmp_path, "postgresql://nobody@127.0.0.1:1/none").run(
        "status", MIRROR_LOG_FORMAT="json", MIRROR_RUN_ID="job-7", AMOCRM_BASEURL="x")
    assert done.code == 1
    misspelt, refused = parsed(done.error)
    assert (misspelt["run"], misspelt["level"]) == ("job-7", "error")
    assert "AMOCRM_BASEURL" in misspelt["message"]
    assert "127.0.0.1" in refused["message"]


def test_the_result_stays_text(database: str, tmp_path: Path) -> None:
    done = CliInstallation(tmp_path, database).run("--log-format", "json", "status", "--json")
    assert json.loads(done.out)["account"] == "amocrm"
    assert done.error == ""


@pytest.mark.parametrize(("name", "value"), [("MIRROR_LOG_FORMAT", "xml"), ("MIRROR_RUN_ID", "a b")])
def test_wrong_settings_are_one_sentence(database: str, tmp_path: Path, name: str, value: str) -> None:
    done = CliInstallation(tmp_path, database).call("status", **{name: value})
    assert done.code == 2
    assert done.output.startswith(f"amocrm-mirror: {name}: ")
