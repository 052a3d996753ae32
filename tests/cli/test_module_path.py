"""A folder of the user's that is called `models` or `pipelines` hides nothing of ours; where a process has
loaded one already, the message says so."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.postgres.embedded.postmaster import free_port
from tests.support.commands import INHERITED, REPOSITORY, CommandResult, wait_for

CRASHING = "raise RuntimeError('the user has a package of this name')\n"
HIDING = ("models", "pipelines", "sandbox")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("theirs")
    for name in HIDING:
        (made / name).mkdir()
        (made / name / "__init__.py").write_text(CRASHING, encoding="utf-8")
    return made


def start(folder: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    """Starts Python in the user's folder, which is first on its module path."""
    environment = INHERITED | {"PYTHONPATH": f"{folder}:{REPOSITORY}", "MIRROR_HOME": str(folder / "home"),
                               "DAGSTER_DISABLE_TELEMETRY": "1"} | more
    return subprocess.Popen([sys.executable, *words], cwd=folder, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(folder: Path, *words: str, **more: str) -> CommandResult:
    return wait_for(start(folder, *words, **more))


def test_the_command_finds_its_own_packages(folder: Path) -> None:
    done = run(folder, "-m", "amocrm_mirror", "--version")
    assert (done.code, done.error) == (0, "")
    without = run(folder, "-m", "pipelines.cli", "--version")
    assert "the user has a package of this name" in without.error, "this test can fail"


def test_the_code_server_serves_our_definitions(folder: Path) -> None:
    port = free_port()
    server = start(folder, "-m", "amocrm_mirror", "code-server", "--port", str(port))
    try:
        deadline = time.monotonic() + 90
        check = ("-m", "dagster", "api", "grpc-health-check", "-p", str(port))
        while run(folder, *check).code:
            assert server.poll() is None, server.communicate()
            assert time.monotonic() < deadline
            time.sleep(1)
    finally:
        server.terminate()
    done = wait_for(server, 60)
    assert f"Dagster's code server: 127.0.0.1:{port}" in done.error
    assert "Error" not in done.error


def test_a_package_that_is_loaded_already_is_named(folder: Path) -> None:
    done = run(folder, "-c", "import sys, types; theirs = types.ModuleType('models'); "
               "theirs.__file__ = '/srv/shop/models.py'; sys.modules['models'] = theirs; "
               "from amocrm_mirror.__main__ import main; main()")
    assert done.code == 1
    assert done.error == (
        "amocrm-mirror cannot start in this process: /srv/shop/models.py is loaded under the name 'models', "
        "which is also a package of amocrm-mirror. Nothing was changed. Run it in a process of its own: "
        "`amocrm-mirror code-server`, and in workspace.yaml a grpc_server with its host and port; or rename "
        "that folder\n")
