"""`sync --all`: what its processes share, and what is printed about those that fail."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.config.settings import load_settings
from pipelines.installation import Installation
from pipelines.orchestration.instance import open_instance

MANY = 6


def remember(home: Path, name: str, begin: Any, said: Any) -> None:
    begin.wait()
    try:
        open_instance(Installation(load_settings(mirror_home=home, amocrm_schema=name)), name).dispose()
        said.put("")
    except Exception as reason:
        said.put(f"{type(reason).__name__}: {reason}")


def test_processes_that_create_dagster_s_storage_at_once_do_not_break_it(tmp_path: Path) -> None:
    """SQLite files that several processes create at once stay broken: "more than one head present", for every
    account, permanently."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.orchestration.launcher"])
    begin, said = context.Barrier(MANY), context.Queue()
    processes = [context.Process(target=remember, args=(tmp_path / "home", f"a{number}", begin, said))
                 for number in range(MANY)]
    for process in processes:
        process.start()
    assert [said.get(timeout=300) for _ in processes] == [""] * MANY
    for process in processes:
        process.join(60)
    with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as instance:
        assert set(instance.get_dynamic_partitions("accounts")) == {f"a{number}" for number in range(MANY)}
