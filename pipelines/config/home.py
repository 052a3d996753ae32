"""The folder of local data (MIRROR_HOME): where it is, and how files are written there."""

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

from pipelines.errors import UsageError


def default_home() -> Path:
    """Returns the folder of the embedded Postgres and the key file when MIRROR_HOME is not set."""
    if os.geteuid() == 0:
        return Path("/var/lib/amocrm-mirror")
    if sys.platform == "darwin":
        return _user_home() / "Library" / "Application Support" / "amocrm-mirror"
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    base = data if data.is_absolute() else _user_home() / ".local" / "share"
    return base / "amocrm-mirror"


def _user_home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise UsageError(f"the user with id {os.geteuid()} has neither a name nor a home folder on this "
                         "machine: set MIRROR_HOME to a folder that this user may write, for example "
                         "MIRROR_HOME=/var/lib/amocrm-mirror") from None


def expand_home(path: Path) -> Path:
    """Returns the path with `~` replaced. Raises ValueError if there is no such user or home folder."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{str(path)!r} begins with the home folder of a user that this machine does not "
                         "know: write the whole path") from None


def make_home(home: Path) -> None:
    """Creates the folder, for its owner only; root's is passable for others, because Postgres never runs as
    root."""
    home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600, overwrite: bool = True) -> None:
    """Writes a file that is complete or absent, also after a crash. It keeps the owner of the file that it
    replaces; `mode` holds its permissions, less the umask.

    With `overwrite` False an existing file stays: of several processes, the first wins. A link stays a link,
    and its file is replaced. A device or a pipe (/dev/stdout, /dev/null) is written into, not replaced.
    """
    if overwrite and path.exists():
        if not path.is_file():
            path.write_bytes(content)
            return
        path = path.resolve()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            with suppress(FileNotFoundError, PermissionError):
                before = path.stat()
                os.chown(draft, before.st_uid, before.st_gid)
            draft.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the names of new and renamed files durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
