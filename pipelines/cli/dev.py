"""`amocrm-mirror dev`: Dagster's web server and daemon for the configured account, or for a sandbox if none
is configured. `amocrm-mirror code-server`: the definitions, for a Dagster that runs elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from typing import NoReturn

from pipelines.cli.demo import SCHEMA, demo_sandbox, demo_settings
from pipelines.cli.terminal.logs import is_json
from pipelines.config.settings import load_settings
from pipelines.errors import MissingExtraError
from pipelines.installation import Installation
from pipelines.orchestration.instance import check_configuration, dagster_home, prepare_instance
from pipelines.orchestration.launcher import DEFINITIONS
from pipelines.orchestration.supervisor import check_port_free
from pipelines.sync.runtime import stop

SHUTDOWN_GRACE_SECONDS = 30.0
"""Seconds that Dagster has to end; then it is killed."""


def serve(port: int) -> int:
    """Runs Dagster on `port` until Ctrl-C, which gives exit code 0. Returns the exit code."""
    require_web_server()
    settings = load_settings()
    check_port_free("127.0.0.1", port)
    if Installation(settings).base_url():
        return _run_dagster(Installation(settings), port, {})
    with demo_sandbox(Installation(load_settings(amocrm_schema=SCHEMA))) as sandbox:
        environment = {"AMOCRM_SCHEMA": SCHEMA, "AMOCRM_BASE_URL": sandbox.url,
                       "AMOCRM_ACCESS_TOKEN": sandbox.admin_token}
        sys.stderr.write(f"No account is configured: the assets read a sandbox on {sandbox.url}, into the "
                         f"schema {SCHEMA}.\n")
        return _run_dagster(Installation(demo_settings(sandbox)), port, environment)


def require_web_server() -> None:
    """Raises MissingExtraError if Dagster's web server is not installed."""
    if find_spec("dagster_webserver") is None:
        raise MissingExtraError("Dagster's web server is", "ui")


def _run_dagster(mirror: Installation, port: int, environment: dict[str, str]) -> int:
    prepare_instance(mirror).dispose()
    sys.stderr.write(f"Dagster: http://127.0.0.1:{port}  (Ctrl-C ends it; the account is the partition "
                     f"{mirror.account!r})\n")
    command = [sys.executable, "-W", "ignore", "-m", "dagster", "dev", "-m",
               DEFINITIONS, "-h", "127.0.0.1", "-p", str(port),
               *(["--log-format", "json"] if is_json() else [])]
    # In its own session, Dagster gets Ctrl-C once, from here, and ends its own child processes
    process = subprocess.Popen(
        command, env=os.environ | environment | {"DAGSTER_HOME": str(dagster_home(mirror))},
        start_new_session=True, preexec_fn=_restore_interrupts)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        process.terminate()
        stop(process, SHUTDOWN_GRACE_SECONDS)


def serve_code(host: str, port: int) -> NoReturn:
    """Replaces this process with Dagster's gRPC server for our definitions. No folder is put on its module
    path: runs that it starts find the same code, whatever the working folder holds."""
    settings = load_settings()
    check_port_free(host, port)
    if (home := settings.dagster_home or settings.mirror_home / "dagster").is_dir():
        check_configuration(home)
    sys.stderr.write(f"Dagster's code server: {host}:{port}  (Ctrl-C ends it)\n")
    sys.stderr.flush()
    _restore_interrupts()
    os.execv(sys.executable, [sys.executable, "-m", "dagster", "api", "grpc", "-m", DEFINITIONS,
                              "--empty-working-directory", "-h", host, "-p", str(port)])


def _restore_interrupts() -> None:
    """Restores the default handling of SIGINT in the child process. A shell starts background processes with
    SIGINT ignored, and Dagster, which handles SIGTERM as SIGINT, would then ignore both."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
