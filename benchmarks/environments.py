"""Environments of their own for the tools that we are compared with: made on first use, from locked versions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.arena import FOLDER
from benchmarks.measure import Failed

WANTED = {"dlt": ["dlt[postgres]"], "singer": ["singer-sdk", "meltanolabs-target-postgres"]}


def environment(name: str) -> Path:
    """The folder of the environment's programs."""
    folder, lock = FOLDER / ".envs" / name, FOLDER / "contenders" / f"{name}-constraints.txt"
    ready = folder / "ready"
    if not ready.exists() or ready.read_text() != lock.read_text():
        sys.stderr.write(f"installing {', '.join(WANTED[name])} into {folder} …\n")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, "--constraint", str(lock), *WANTED[name]], check=False, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"pip could not install {name}: {done.stderr[-2000:]}")
        ready.write_text(lock.read_text())
    return folder / "bin"


def versions(name: str) -> str:
    """"dlt 1.2.3", for reports."""
    locked = dict(line.split("==") for line in (FOLDER / "contenders" / f"{name}-constraints.txt").read_text().splitlines() if "==" in line)
    return ", ".join(f"{package} {locked[package]}" for package in (wanted.split("[")[0] for wanted in WANTED[name]))
