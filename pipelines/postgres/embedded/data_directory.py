"""Making a data folder for the embedded Postgres, and the settings it runs with."""

import os
import shutil
import tempfile
from pathlib import Path

from pipelines.postgres.embedded.binaries import ServerUser, server_major
from pipelines.postgres.embedded.errors import unavailable

# Not named like a schema of ours, or "$user" in the search_path would find that schema
# and hide a statement that forgot to say which account it means.
ROLE = "postgres"
DATABASE = "amocrm"

# No DETAIL and no statements in the log: they would carry customers' data there.
SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 256MB
max_wal_size = 2GB
maintenance_work_mem = 128MB
max_locks_per_transaction = 256
timezone = 'UTC'
log_timezone = 'UTC'
log_error_verbosity = terse
log_min_error_statement = fatal
log_checkpoints = off
"""
EPHEMERAL_SETTINGS = """\
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_connections = 200
"""


def initialize(data: Path, bindir: Path, user: ServerUser, password: str) -> None:
    """Into a draft folder, so that an interrupted initdb leaves nothing half made."""
    draft = data.with_name(f"{data.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    user.own(draft)
    with tempfile.NamedTemporaryFile("w", dir=data.parent) as secret:
        secret.write(password)
        secret.flush()
        user.own(Path(secret.name))
        made = user.run(
            bindir / "initdb",
            *("-D", draft, "-U", ROLE, "-A", "scram-sha-256", "-E", "UTF8"),
            *(f"--pwfile={secret.name}", *_locale(server_major(bindir, user) or 0)),
        )
    if made.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        raise unavailable(data.parent, made.stderr or made.stdout)
    with (draft / "postgresql.conf").open("a") as settings:
        settings.write("\ninclude_if_exists = 'mirror.conf'\n")
    draft.rename(data)


def write_settings(data: Path, port: int | None, ephemeral: bool) -> None:
    """Anew at each start; what a user sets with ALTER SYSTEM still wins."""
    settings = data / "mirror.conf"
    extra = EPHEMERAL_SETTINGS if ephemeral else ""
    settings.write_text(f"{SETTINGS}{extra}port = {port}\n")
    settings.chmod(0o644)  # root writes it, the server's user reads it


def _locale(major: int) -> list[str]:
    """Unicode-aware, sorted by code point, the same on every computer."""
    if major >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    ctype = "UTF-8" if os.uname().sysname == "Darwin" else "C.UTF-8"
    return ["--lc-collate=C", f"--lc-ctype={ctype}"]
