"""Creates the data folder of the embedded Postgres and writes its settings."""

import os
import shutil
import tempfile
from pathlib import Path

from pipelines.postgres.embedded.binaries import ServerUser, server_major
from pipelines.postgres.embedded.errors import unavailable_error

# Must differ from our schemas' names: else "$user" in the search_path would find such a schema, and a
# statement without a schema would silently use that account's tables.
ROLE = "postgres"
DATABASE = "amocrm"

# The log gets no DETAIL and no statements: they contain customers' data.
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
    """Runs initdb in a draft folder and renames it: an interruption leaves no incomplete data folder."""
    draft = data.with_name(f"{data.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    user.chown(draft)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=data.parent) as secret:
        secret.write(password)
        secret.flush()
        user.chown(Path(secret.name))
        result = user.run(
            bindir / "initdb",
            *("-D", draft, "-U", ROLE, "-A", "scram-sha-256", "-E", "UTF8"),
            *(f"--pwfile={secret.name}", *_locale_options(server_major(bindir, user) or 0)),
        )
    if result.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        raise unavailable_error(data.parent, result.stderr or result.stdout)
    with (draft / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write("\ninclude_if_exists = 'mirror.conf'\n")
    draft.rename(data)


def write_settings(data: Path, port: int | None, ephemeral: bool) -> None:
    """Writes mirror.conf, at each start. Settings that a user makes with ALTER SYSTEM take precedence."""
    settings = data / "mirror.conf"
    extra = EPHEMERAL_SETTINGS if ephemeral else ""
    settings.write_text(f"{SETTINGS}{extra}port = {port}\n", encoding="utf-8")
    settings.chmod(0o644)  # written by root, read by the server's user


def _locale_options(major: int) -> list[str]:
    """Locale options of initdb: Unicode-aware, sorted by code point, the same on every computer."""
    if major >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    ctype = "UTF-8" if os.uname().sysname == "Darwin" else "C.UTF-8"
    return ["--lc-collate=C", f"--lc-ctype={ctype}"]
