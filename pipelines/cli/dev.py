"""`amocrm-mirror dev`: Dagster's web server and daemon over the configured account, or over a sandbox where none is configured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pipelines.cli.demo import SCHEMA, sandbox_of, settings_for
from pipelines.config.settings import load_settings
from pipelines.installation import Mirror
from pipelines.orchestration.instance import dagster_home, prepare
from pipelines.orchestration.supervisor import refuse_taken

WORKSPACE = Path(__file__).resolve().parent.parent / "workspace.yaml"
LAST_WORDS = 30.0


def serve(port: int) -> int:
    """Until Ctrl-C, which is exit code 0."""
    settings = load_settings()
    refuse_taken("127.0.0.1", port)
    if Mirror(settings).base_url():
        return _serve(Mirror(settings), port, {})
    with sandbox_of(Mirror(load_settings(amocrm_schema=SCHEMA))) as sandbox:
        environment = {"AMOCRM_SCHEMA": SCHEMA, "AMOCRM_BASE_URL": sandbox.url, "AMOCRM_ACCESS_TOKEN": sandbox.admin_token}
        sys.stderr.write(f"No account is configured: the assets read a sandbox on {sandbox.url}, into the schema {SCHEMA}.\n")
        return _serve(Mirror(settings_for(sandbox)), port, environment)


def _serve(mirror: Mirror, port: int, environment: dict[str, str]) -> int:
    prepare(mirror).dispose()
    sys.stderr.write(f"Dagster: http://127.0.0.1:{port}  (Ctrl-C ends it; the account is the partition {mirror.account!r})\n")
    command = [sys.executable, "-W", "ignore", "-m", "dagster", "dev", "-w", str(WORKSPACE), "-h", "127.0.0.1", "-p", str(port)]
    # In a session of its own, Ctrl-C reaches it once, from here, and it ends its own children
    process = subprocess.Popen(command, env=os.environ | environment | {"DAGSTER_HOME": str(dagster_home(mirror))}, start_new_session=True,
                               preexec_fn=_hear_interrupts)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(process)


def _hear_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and then Dagster takes SIGTERM for it too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(LAST_WORDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
