"""The image's steps, in a plain Debian root instead of a container: the Dockerfile's COPY and RUN lines as
they stand, then the program as a user that is in no list of users, with one folder to write into."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY

pytestmark = pytest.mark.slow
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
STEPS = [(found[1], found[2]) for line in DOCKERFILE.splitlines()
         if (found := re.match(r"(FROM|WORKDIR|COPY|RUN|ENV) +(.*)", line))]
SETTINGS = dict(each.split("=", 1) for kind, words in STEPS if kind == "ENV" for each in shlex.split(words))
NEEDED = "python3,python3-venv,ca-certificates"
"""What the image that ours is built from has and a bare Debian has not."""
STRANGER = {"folder": "/data", "user": "54321:0", **SETTINGS,
            "PATH": "/opt/amocrm-mirror/bin:/usr/bin:/bin"}
SERVER_AND_DEMO = """
run() { user=$1; shift; mkdir -p /data/$user; chown $user:0 /data/$user
        setpriv --reuid=$user --regid=0 --clear-groups env HOME=/data/$user MIRROR_HOME=/data/$user "$@"; }
export DATABASE_URL=$(run 10001 amocrm-mirror postgres url)
export DAGSTER_DATABASE_URL=$(echo "$DATABASE_URL" | sed s/^postgresql:/postgresql+psycopg2:/)
run 54321 amocrm-mirror demo --scale 50; code=$?
unset DATABASE_URL; run 10001 amocrm-mirror postgres stop; exit $code"""
"""The image's user has the Postgres that every container needs; the user without a name has DATABASE_URL."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def test_this_test_reads_every_step_of_the_dockerfile() -> None:
    kinds = [kind for kind, _ in STEPS]
    assert kinds.count("FROM") == 2 and kinds.count("RUN") == 3 and kinds.count("COPY") >= 8
    assert SETTINGS["MIRROR_HOME"] == "/data"


def archive() -> tuple[str, str]:
    """Address and release of the Debian archive that this machine uses."""
    listed = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)",
                             "Created-By: Packages"], check=False, capture_output=True, encoding="utf-8")
    found = [line.split() for line in listed.stdout.splitlines() if re.fullmatch(r"\S+ [a-z]+", line)]
    if not found:
        pytest.skip("apt knows no Debian archive here")
    return found[0][0], found[0][1]


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A Debian of its essential packages and Python. Not in memory, where no device files may be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root: debootstrap and chroot")
    if not shutil.which("debootstrap"):
        pytest.skip("debootstrap is not installed (Debian: apt install debootstrap)")
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("this machine gives no namespaces of its own")
    address, release = archive()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="mirror-debian-") as place:
        yield bootstrapped(Path(place) / "root", address, release)


def bootstrapped(folder: Path, address: str, release: str) -> Path:
    folder.mkdir()
    folder.parent.chmod(0o755)
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={NEEDED}", release, folder, address], check=False,
        capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", CERTIFICATES):
        if Path(name).is_file():
            shutil.copyfile(name, folder / name.lstrip("/"))
    return folder


def inside(root: Path, command: str, folder: str = "/", user: str = "0:0", **more: str) -> str:
    """Runs a shell command in the root, in namespaces that end with it. Returns its output; fails with it."""
    settings = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root",
                "LANG": "C.UTF-8"} | more
    enter = " && ".join([
        f"mount -t proc proc {root}/proc", f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
        f"mkdir -p {root}/dev/shm", f"mount -t tmpfs -o mode=1777 tmpfs {root}/dev/shm",
        f"exec env -i {shlex.join(f'{name}={value}' for name, value in settings.items())} "
        f"{shutil.which('chroot')} --userspec={user} {root} sh -c "
        + shlex.quote(f"cd {folder} && {command.strip()}")])
    done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter],
                          check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}"
    return done.stdout


def copy(root: Path, words: list[str], folder: str) -> None:
    """COPY: a folder's content goes into the target, a file into it or to its name."""
    *sources, target = words
    for name in sources:
        source, place = REPOSITORY / name, root / str(Path(folder) / target).lstrip("/")
        if source.is_dir():
            shutil.copytree(source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place = place / source.name if target.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)


def registry() -> dict[str, str]:
    """What pip needs here to reach its registry. Certificates are where Debian has them."""
    given = {name: value for name, value in os.environ.items()
             if name.startswith("PIP_") or name.lower() in ("https_proxy", "http_proxy", "no_proxy")}
    return given | ({"PIP_CERT": CERTIFICATES} if "PIP_CERT" in given else {})


def test_the_image_s_steps_make_a_mirror_that_runs_as_any_user(root: Path) -> None:
    folder = "/"
    for kind, words in STEPS:
        if kind == "WORKDIR":
            folder = words
            (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif kind == "COPY" and not words.startswith("--from=build"):
            copy(root, words.split(), folder)
        elif kind == "RUN":
            inside(root, words, folder, **registry())
    assert inside(root, "amocrm-mirror --version", **STRANGER).startswith("amocrm-mirror ")
    before = {path for path in root.rglob("*") if not path.is_relative_to(root / "data")}
    shown = inside(root, SERVER_AND_DEMO, **STRANGER | {"user": "0:0"})
    assert "Postgres: the one of DATABASE_URL" in shown and "Demo done in" in shown, shown[-3000:]
    after = {path for path in root.rglob("*") if not path.is_relative_to(root / "data")}
    assert {str(path.relative_to(root)) for path in after - before} == set(), "it writes into its folder only"
    refused = inside(root, "amocrm-mirror demo || true", **STRANGER)
    assert "need a user with a name: set DATABASE_URL" in refused, "as docs/deploy.md says"
