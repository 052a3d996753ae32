"""The architecture, read from the code itself: which package imports which, where settings come from, and how
long files get."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.base import EntityTable, Extra
from pipelines.entities.registry import ENTITIES

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("amocrm_mirror", "models", "pipelines", "sandbox", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")) + [
    ROOT / "alembic" / "env.py"]
LAYERS: tuple[str | tuple[str, ...], ...] = (
    ("amocrm_mirror", "models"),
    ("pipelines.errors", "pipelines.cursors", "pipelines.schema"),
    "pipelines.amocrm",
    ("pipelines.entities", "pipelines.config"),
    ("pipelines.accounts", "pipelines.normalize"),
    ("pipelines.access", "pipelines.extract", "pipelines.postgres"),
    ("pipelines.load", "pipelines.webhooks", "pipelines.history", "pipelines.bi",
     "pipelines.installation", "pipelines.failed_migrations"),
    ("pipelines.dictionary", "pipelines.erasure", "pipelines.migrate", "pipelines.monitoring"),
    "pipelines.sync",
    "pipelines.alerts",
    ("pipelines.verify", "pipelines.orchestration"),
    ("pipelines.admin", "pipelines.definitions"),
    "pipelines.assistant",
    "pipelines.cli",
)
"""Lowest first. A package imports only packages of layers before its own."""
LEVELS = {name: level for level, layer in enumerate(LAYERS)
          for name in ([layer] if isinstance(layer, str) else layer)}
MAX_MODULES = 12
"""Modules in a folder, `__init__` not counted."""
READ_THE_ENVIRONMENT = {"pipelines/config/settings.py", "pipelines/config/home.py",
                        "pipelines/installation.py", "alembic/env.py"}
FORBIDDEN = {
    "a package registry": re.compile(r"index-url|trusted-host|https?://\S*(pypi|artifactory|nexus|simple/)"),
    "a path of one machine": re.compile(r"/work/(main|shared)|/home/\w+/|/Users/\w+/"),
    "a token": re.compile(r"\beyJ[\w-]{20,}\.[\w-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY"),
}


def module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of every import, type-only ones included; the name is empty for `import module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


def imported_modules(name: str) -> set[str]:
    """This project's modules that a module imports. `from package import submodule` imports the submodule."""
    pairs = imports(MODULES[name])
    return {f"{source}.{what}" if f"{source}.{what}" in MODULES else source
            for source, what in pairs} & set(MODULES) - {name}


USES = {name: imported_modules(name) for name in MODULES}


def package(name: str) -> str:
    """"pipelines.load" of "pipelines.load.loader", "models" of "models.crm"."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "pipelines" else parts[0]


@pytest.mark.parametrize(("top", "others"), [
    ("models", {"amocrm_mirror", "pipelines", "sandbox", "tests", "benchmarks"}),
    ("sandbox", {"pipelines", "models", "tests", "benchmarks"}), ("pipelines", {"tests", "benchmarks"})])
def test_top_level_folders_import_one_way(top: str, others: set[str]) -> None:
    """Benchmarks and tests are on one level: the lane `accounts` uses the tests' comparison of mirror and
    account, and a test reads process trees as the lanes do."""
    wrong = [(name, source) for name, tree in MODULES.items() if name.split(".")[0] == top
             for source, _ in imports(tree) if source.split(".")[0] in others]
    assert wrong == []


def test_imports_run_one_way_through_the_layers() -> None:
    upward = [(name, used) for name, uses in USES.items() if name.startswith("pipelines.") for used in uses
              if package(used) != package(name) and not used.startswith("sandbox") and used != "pipelines"
              and LEVELS[package(used)] >= LEVELS[package(name)]]
    assert upward == []


def test_every_package_of_pipelines_has_a_layer() -> None:
    assert {package(name) for name in MODULES if name.startswith("pipelines.")} == set(LEVELS) - {
        "amocrm_mirror", "models"}


def test_no_circle_of_files() -> None:
    """Removes modules that import nothing that is left, until nothing changes: what stays is part of a
    circle, or imports one."""
    left = dict(USES)
    while leaves := [name for name, uses in left.items() if not uses & left.keys()]:
        for name in leaves:
            del left[name]
    assert sorted(left) == []


def test_no_folder_grows_too_large() -> None:
    sizes = Counter(path.parent for path in SOURCES
                    if path.name != "__init__.py" and path.is_relative_to(ROOT))
    assert {str(folder.relative_to(ROOT)): size for folder, size in sizes.items() if size > MAX_MODULES} == {}


PACKAGES = sorted(path for folder in ("amocrm_mirror", "pipelines", "sandbox")
                  for path in (ROOT / folder).rglob("__init__.py"))


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_a_package_says_what_belongs_there_and_holds_no_code(path: Path) -> None:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)


def test_one_name_has_one_home() -> None:
    """No module lends the names of another: `from x import y` names the module that defines y."""
    lent = []
    for name, tree in MODULES.items():
        for source, what in imports(tree):
            if source in MODULES and f"{source}.{what}" not in MODULES and what in {
                    alias.asname or alias.name for node in ast.walk(MODULES[source])
                    if isinstance(node, ast.ImportFrom) for alias in node.names}:
                lent.append((name, source, what))
    assert lent == []


ENGINE = sorted(name for name in MODULES if package(name) in {f"pipelines.{each}" for each in (
    "schema", "amocrm", "extract", "normalize", "load", "sync", "history", "verify", "bi", "webhooks",
    "dictionary", "orchestration")}
    or name in ("pipelines.erasure", "pipelines.cursors", "pipelines.entities.spec"))


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_never_asks_for_an_entity_by_name(name: str) -> None:
    names = {entity.name for entity in ENTITIES}
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Compare | ast.MatchValue):
            compared = {leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)}
            assert not compared & names, f"line {node.lineno}: {ast.unparse(node)}"


def reads_environment(tree: ast.AST) -> list[int]:
    """Lines that read os.environ. To pass it to a child process (`os.environ | {…}`) or to set a variable is
    not to read it."""
    harmless = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            harmless.add(node.left)
        elif isinstance(node, ast.Attribute) and node.attr == "setdefault":
            harmless.add(node.value)
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute)
            and node.attr in ("environ", "getenv", "environb") and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and node not in harmless]


def test_only_settings_read_the_environment() -> None:
    readers = {str(path.relative_to(ROOT)): reads_environment(MODULES[module(path)]) for path in SOURCES
               if not path.is_relative_to(ROOT / "benchmarks")}
    assert {path: lines for path, lines in readers.items()
            if lines and path not in READ_THE_ENVIRONMENT} == {}
    assert any(readers[path] for path in READ_THE_ENVIRONMENT), "this test finds what it looks for"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    long = [(node.name, node.end_lineno - node.lineno + 1) for node in ast.walk(MODULES[module(path)])
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
            and node.end_lineno - node.lineno >= 40]
    assert long == []


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8",
                            check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_holds_what_should_not_leave_the_machine() -> None:
    found = [f"{path.relative_to(ROOT)}: {what}: {match.group()[:60]}" for path in tracked()
             if path != Path(__file__)
             for what, pattern in FORBIDDEN.items()
             for match in [pattern.search(path.read_text(encoding="utf-8", errors="replace"))] if match]
    assert found == []


LOCK_LINE = re.compile(
    r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[A-Za-z0-9.+!]+( ; [a-z_ '=<>!.0-9()A-Z-]+)? \\"  # name, version, marker
    r"|    --hash=sha256:[0-9a-f]{64}( \\)?|    #( via| +)[^:]*|#[^:]*(following command:)?")


@pytest.mark.parametrize("name", ["runtime", "development"])
def test_what_is_locked_is_names_versions_markers_and_hashes(name: str) -> None:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 1000
    assert [line for line in lines if not LOCK_LINE.fullmatch(line)] == []


def test_tables_of_entities_have_the_columns_of_the_mirror() -> None:
    """A table without the mirror's own columns would fail at its first sync."""
    assert [entity.name for entity in ENTITIES if not issubclass(entity.model, EntityTable)] == []
    children = [child.model for entity in ENTITIES for child in entity.children] + [
        entity.field_values for entity in ENTITIES if entity.field_values]
    assert [model.__tablename__ for model in children if not issubclass(model, Extra)] == []
    assert len({entity.name for entity in ENTITIES}) == len(ENTITIES)
