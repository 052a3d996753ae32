"""What is installed: the declared dependencies, the lock, and the wheel and sdist that a user gets."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.migrate import INI
from tests.support.commands import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: [Requirement(line) for line in lines]
          for name, lines in PROJECT["optional-dependencies"].items()}
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"]]
LOCKS = {"runtime": ("embedded", "ui", "dagster-postgres", "celery", "k8s", "metrics", "mcp"),
         "development": ("embedded", "ui", "dagster-postgres", "celery", "dev")}
"""Lock file → the extras that it holds besides the dependencies."""
PACKAGES = ("amocrm_mirror", "models", "pipelines", "sandbox")
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[\w,-]+\])?==(\S+?)(?: ; (.+?))? \\$", re.M)


@cache
def locked(name: str) -> dict[str, str]:
    """Returns distribution → version of a lock file, as it applies to this Python and system."""
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {canonicalize_name(package): number for package, number, marker in PIN.findall(text)
            if not marker or Marker(marker).evaluate()}


def unmet(name: str, wanted: list[Requirement]) -> list[str]:
    """Returns the requirements that a lock file does not meet, and those of what is installed here, of what
    that requires, and so on."""
    missing, seen = list[str](), set[str]()
    queue = [(requirement, "pyproject.toml") for requirement in wanted]
    while queue:
        requirement, because = queue.pop()
        package = canonicalize_name(requirement.name)
        number = locked(name).get(package)
        if number is None or not requirement.specifier.contains(number, prereleases=True):
            missing.append(f"{requirement} of {because}: locked is {number}")
        if (key := f"{package}{sorted(requirement.extras)}") in seen:
            continue
        seen.add(key)
        try:
            lines = requires(package) or []
        except PackageNotFoundError:
            continue
        for each in map(Requirement, lines):
            if not each.marker or any(each.marker.evaluate({"extra": extra})
                                      for extra in {"", *requirement.extras}):
                queue.append((each, package))
    return missing


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_all_that_is_declared_and_all_that_this_requires(name: str) -> None:
    wanted = DEPENDENCIES + [requirement for extra in LOCKS[name] for requirement in EXTRAS[extra]]
    assert unmet(name, wanted) == []
    assert unmet(name, [Requirement("rich<1"), Requirement("not-locked")]), "this test can fail"


def test_runtime_and_development_lock_the_same_versions() -> None:
    runtime, development = locked("runtime"), locked("development")
    assert {name: number for name, number in development.items() if runtime.get(name, number) != number} == {}
    assert not runtime.keys() & {"pytest", "mypy", "ruff", "hypothesis"}, "no tools of development"


def test_every_extra_is_in_the_lock_of_the_image() -> None:
    assert set(LOCKS["runtime"]) | {"dev"} == set(EXTRAS)


def test_what_the_program_imports_is_declared() -> None:
    """A package that only another package's requirements bring may go with its next version."""
    declared = {canonicalize_name(requirement.name) for requirement in [
        *DEPENDENCIES, *(each for extra in LOCKS["runtime"] for each in EXTRAS[extra])]}
    owners = packages_distributions()
    undeclared = set()
    for path in [each for folder in PACKAGES for each in (REPOSITORY / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                     else [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            for top in {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, *PACKAGES}:
                if not {canonicalize_name(owner) for owner in owners.get(top, [])} & declared:
                    undeclared.add(top)
    assert undeclared == set()


def test_every_dependency_has_an_upper_bound_or_a_reason() -> None:
    """cryptography brings security fixes with each major version; tzdata has no interface."""
    unbounded = {requirement.name for requirement in DEPENDENCIES
                 if not any(bound.operator in ("<", "==", "~=") for bound in requirement.specifier)}
    assert unbounded == {"cryptography", "tzdata"}


def test_the_migrations_of_a_checkout_are_those_at_its_top() -> None:
    assert INI == REPOSITORY / "alembic.ini"


# A fresh environment


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    """Runs a program without this checkout's environment. Returns its output; fails with it."""
    inherited = {name: value for name, value in os.environ.items()
                 if not name.startswith(("PYTHON", "VIRTUAL_ENV", "AMOCRM_", "MIRROR_", "DATABASE_URL"))}
    done = subprocess.run(command, cwd=cwd, env=inherited | more, check=False, encoding="utf-8",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1200)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of what git knows, and the wheel that is built from it."""
    checkout, folder = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, checkout / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=checkout)
    return folder


def tracked(*folders: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=REPOSITORY, capture_output=True,
                            encoding="utf-8", check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


@pytest.mark.slow
def test_wheel_and_sdist_hold_every_file_of_the_program(distributions: Path) -> None:
    [wheel], [sdist] = distributions.glob("*.whl"), distributions.glob("*.tar.gz")
    wanted = {*tracked(*PACKAGES), *(f"pipelines/migrations/{name}" for name in tracked("alembic*"))}
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert held == wanted
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*tracked(*PACKAGES, "alembic*", "requirements"), "README.md", "LICENSE", "setup.py"} <= names


@pytest.mark.slow
def test_an_installed_wheel_runs_the_demo_from_an_empty_folder(distributions: Path, postgres_home: Path,
                                                               tmp_path: Path) -> None:
    """Installs as the image does: what is locked, with hashes, then the wheel alone."""
    [wheel] = distributions.glob("*.whl")
    binaries, empty = tmp_path / "env" / "bin", tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=empty)
    run(binaries / "pip", "install", "--quiet", "--require-hashes", "-r",
        REPOSITORY / "requirements" / "runtime.txt", cwd=empty)
    run(binaries / "pip", "install", "--quiet", "--no-deps", wheel, cwd=empty)
    run(binaries / "pip", "check", cwd=empty)
    command = binaries / "amocrm-mirror"
    assert run(command, "--version", cwd=empty) == f"amocrm-mirror {PROJECT['version']}\n"
    assert "demo" in run(command, "--help", cwd=empty)
    try:
        shown = run(command, "demo", "--scale", "50", cwd=empty, MIRROR_HOME=str(postgres_home))
        assert "Demo done in" in shown
        assert shown.splitlines()[-1] == "  amocrm-mirror grants --account amocrm_demo"
        assert f"  {postgres_home}/demo-report.html\n" in shown
        assert "</html>" in (postgres_home / "demo-report.html").read_text(encoding="utf-8")
        assert ".venv" not in shown
        assert f"Your shell does not find amocrm-mirror by its name: it is {command}" in shown
        again = run(command, "migrate", cwd=empty, MIRROR_HOME=str(postgres_home),
                    AMOCRM_SCHEMA="amocrm_demo")
        assert "(was" not in again, "the demo had migrated"
        assert list(empty.iterdir()) == []
        look_around(binaries, tmp_path, postgres_home)
    finally:
        run(command, "postgres", "stop", cwd=empty, MIRROR_HOME=str(postgres_home))


def look_around(binaries: Path, folder: Path, home: Path) -> None:
    """The rest of docs/start.md, as it stands there: what one looks at after the demo, and how it goes."""
    page = (REPOSITORY / "docs" / "start.md").read_text(encoding="utf-8")
    looked, removed = (re.findall(r"^    (amocrm-mirror .*?) *#", page[page.index(heading):], re.M)
                       for heading in ("## Look around", "## Leave no trace"))
    [query] = re.findall(r"```sql\n(.*?)```", page, re.S)
    path = f"{binaries}:{os.environ['PATH']}"
    for line in looked[:looked.index("amocrm-mirror dev")]:
        given = query if "psql" in line else ""
        shown = run("bash", "-euc", f"{line} <<'END'\n{given}\nEND", cwd=folder, PATH=path,
                    MIRROR_HOME=str(home))
        assert ("rows)" in shown) is ("psql" in line)
    assert (folder / "report.html").is_file() and (folder / "dictionary").is_dir()
    run("bash", "-euc", f"echo y | {removed[0]}", cwd=folder, PATH=path, MIRROR_HOME=str(home))
    left = run("bash", "-euc", "echo '\\dn' | amocrm-mirror postgres psql", cwd=folder, PATH=path,
               MIRROR_HOME=str(home))
    assert "mirror" in left and "amocrm_demo" not in left


def test_the_version_is_that_of_pyproject() -> None:
    assert version("amocrm-mirror") == PROJECT["version"]
