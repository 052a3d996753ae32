"""Python environments of their own, for tools that read what the mirror writes and that it does not need."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def environment_with(name: str, packages: Sequence[str], folders: pytest.TempPathFactory) -> Path:
    """Returns the python of a new environment in which these packages are installed. TEST_VENV_<NAME> names
    one that has them already."""
    if ready := os.environ.get(f"TEST_VENV_{name.upper()}"):
        return Path(ready) / "bin" / "python"
    folder = folders.mktemp(name) / "env"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    done = subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet",
                           "--disable-pip-version-check", *packages], check=False, capture_output=True,
                          encoding="utf-8")
    if done.returncode:
        pytest.fail(f"{', '.join(packages)} could not be installed: {done.stderr[-2000:]}")
    return folder / "bin" / "python"
