"""A file is opened where there is a display, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY
from tests.support.webhooks import wait_until

OPEN = "import sys; from pathlib import Path; from pipelines.cli.terminal.browser import open_in_browser; " \
       "print(open_in_browser(Path(sys.argv[1])))"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems open a file in their own ways")
@pytest.mark.parametrize(("programs", "display", "opened"), [
    (["xdg-open"], ":9", True), (["xdg-open"], "", False), (["w3m"], "", False), ([], ":9", False)])
def test_a_file_is_opened_where_there_is_a_display(programs: list[str], display: str, opened: bool,
                                                   tmp_path: Path) -> None:
    for name in programs:
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "$1" > {tmp_path}/x; /bin/mv {tmp_path}/x {tmp_path}/{name}.opened\n'
            "/bin/sleep 2\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    page = tmp_path / "a report.html"
    done = subprocess.run([sys.executable, "-c", OPEN, page], capture_output=True, encoding="utf-8",
                          env={"PATH": str(tmp_path), "DISPLAY": display, "TERM": "xterm",
                               "PYTHONPATH": str(REPOSITORY)}, timeout=60, check=True)
    assert done.stdout == f"{opened}\n" and done.stderr == ""
    wait_until(lambda: not opened or list(tmp_path.glob("*.opened")))
    found = [path.read_text(encoding="utf-8") for path in tmp_path.glob("*.opened")]
    assert found == ([f"file://{tmp_path}/a%20report.html\n"] if opened else [])
