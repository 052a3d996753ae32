"""Virtual environments for the tools that we are compared with, created on first use from locked versions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.arena import FOLDER
from benchmarks.measure import BenchmarkError

PACKAGES = {"dlt": ["dlt[postgres]"], "singer": ["singer-sdk", "meltanolabs-target-postgres"]}


def ensure_environment(name: str) -> Path:
    """Creates the environment if missing or if its lock file has changed; returns its folder of programs."""
    folder, lock = FOLDER / ".envs" / name, FOLDER / "contenders" / f"{name}-constraints.txt"
    ready = folder / "ready"
    if not ready.exists() or ready.read_text(encoding="utf-8") != lock.read_text(encoding="utf-8"):
        sys.stderr.write(f"installing {', '.join(PACKAGES[name])} into {folder} …\n")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        result = subprocess.run([*pip, "--constraint", str(lock), *PACKAGES[name]], check=False,
                                capture_output=True, text=True)
        if result.returncode:
            raise BenchmarkError(f"pip could not install {name}: {result.stderr[-2000:]}")
        ready.write_text(lock.read_text(encoding="utf-8"), encoding="utf-8")
    return folder / "bin"


def versions(name: str) -> str:
    """Locked versions of the tool's packages for reports, e.g. "dlt 1.2.3"."""
    locked = dict(line.split("==")
                  for line in (FOLDER / "contenders" / f"{name}-constraints.txt").read_text(
                      encoding="utf-8").splitlines()
                  if "==" in line)
    return ", ".join(f"{package} {locked[package]}"
                     for package in (wanted.split("[")[0] for wanted in PACKAGES[name]))
