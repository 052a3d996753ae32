"""MIRROR_SHARD: code locations of several databases live in one Dagster, and none takes another's names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sandbox.process import SandboxProcess
from tests.support.commands import INHERITED, REPOSITORY, CliInstallation
from tests.support.draws import first_of

NAMES = """
import json
from amocrm_mirror.definitions import defs
found = defs.get_repository_def()
print(json.dumps({
    "assets": [key.to_user_string() for key in found.asset_graph.get_all_asset_keys()],
    "jobs": [each.name for each in found.get_all_jobs() if not each.name.startswith("__")],
    "schedules": [each.name for each in found.schedule_defs],
    "sensors": [each.name for each in found.sensor_defs],
    "partitions": sorted({str(each.partitions_def.name)
                          for each in defs.resolve_all_asset_specs() if each.partitions_def}),
    "jobs of schedules": [each.job_name for each in found.schedule_defs]}))
"""


def load(folder: Path, shard: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", NAMES], cwd=folder, check=False, capture_output=True,
                          encoding="utf-8", env=INHERITED | {
                              "PYTHONPATH": str(REPOSITORY), "MIRROR_SHARD": shard,
                              "MIRROR_ALERT_WEBHOOK": "https://hooks.example.com/x"})


def names(folder: Path, shard: str) -> dict[str, list[str]]:
    done = load(folder, shard)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    assert all(found.values())
    return found


def test_two_shards_have_no_name_in_common(tmp_path: Path) -> None:
    plain, east, west = (names(tmp_path, shard) for shard in ("", "east", "west"))
    for kind in plain:
        assert not set(east[kind]) & set(west[kind]), kind
        assert not set(east[kind]) & set(plain[kind]), kind
        assert len(east[kind]) == len(plain[kind])
    assert "amocrm_east/leads" in east["assets"] and "amocrm_bi_east/leads" in east["assets"]
    assert set(east["jobs of schedules"]) <= set(east["jobs"])
    assert east["sensors"] == ["alerts_sensor_east"]
    assert plain["sensors"] == ["alerts_sensor"]


@pytest.mark.parametrize("shard", first_of(1, ["East", "a-b", "x" * 31, "восток"]))
def test_a_name_that_dagster_cannot_take_keeps_the_definitions_from_loading(shard: str,
                                                                            tmp_path: Path) -> None:
    done = load(tmp_path, shard)
    assert done.returncode == 1
    assert f"MIRROR_SHARD {shard!r} cannot be a part of names in Dagster" in done.stderr


@pytest.mark.slow
def test_a_sync_is_recorded_under_the_shard(database: str, tmp_path: Path) -> None:
    with SandboxProcess(scale=50) as sandbox:
        person = CliInstallation(tmp_path, database, sandbox, MIRROR_SHARD="east")
        done = person.run("sync", "--only", "tags")
    assert done.code == 0, done.output
    with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as instance:
        assert instance.get_dynamic_partitions("accounts_east") == ["amocrm"]
        [run] = instance.get_runs()
        assert run.tags["amocrm-mirror/shard"] == "east"
        event: Any = instance.get_latest_materialization_event(dg.AssetKey(["amocrm_east", "tags"]))
        assert event is not None
