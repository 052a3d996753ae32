"""What holds the code together, read from the code itself: who imports whom, where settings come from, and how long things get."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.base import Extra, Listed
from pipelines.entities.registry import ENTITIES

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for folder in ("models", "pipelines", "sandbox") for path in (ROOT / folder).rglob("*.py")) + [ROOT / "alembic" / "env.py"]
# design.md 2: definitions → assets → sync → {extract, normalize, load} → entities → models
STAGES = (("models",), ("pipelines.entities.registry", "pipelines.entities.spec", "pipelines.history.capture"),
          ("pipelines.extract.strategies", "pipelines.normalize.normalizer", "pipelines.load.loader", "pipelines.history.rebuild", "pipelines.bi.builder"),
          ("pipelines.sync.entity_sync",), ("pipelines.sync.account_sync",), ("pipelines.orchestration.assets",), ("pipelines.orchestration.schedules", "pipelines.orchestration.checks"),
          ("pipelines.definitions",))
FRONT = {"pipelines.admin.manage_accounts", "pipelines.admin.grant_access", "pipelines.orchestration.account_processes", "pipelines.cli.authorize", "pipelines.cli.authorize", "pipelines.access.redirect_server",
         "pipelines.cli.app", "pipelines.cli.accounts", "pipelines.cli.views", "pipelines.cli.privacy", "pipelines.cli.views",
         "pipelines.cli.webhooks", "pipelines.webhooks.inbox_writer", "pipelines.cli.demo", "pipelines.cli.dev", "pipelines.webhooks.uninstall", "pipelines.cli.common",
         "pipelines.admin.doctor", "pipelines.orchestration.continuous_workers", "pipelines.webhooks.status", "pipelines.admin.rotate_keys", "pipelines.orchestration.launcher", "pipelines.webhooks.receiver",
         "pipelines.sync.helper_main", "pipelines.admin.status", "pipelines.orchestration.supervisor"}
ENGINE = ("extract", "source", "sweep", "spans", "chains", "claims", "paths", "readers", "normalize", "observe", "load", "statements", "shapes",
          "values", "restore", "history", "entity_sync", "sync", "assets", "hints", "hint_rules", "reread", "heed", "deletions", "whole_links",
          "compare", "verify", "learn", "scene", "singles", "forgotten", "forget", "bi", "wide", "deliveries", "drain", "tell", "beside", "second",
          "dictionary.from_models", "dictionary.from_database")
KNOW_THE_TUPLE = {"pipelines.entities.registry", "pipelines.orchestration.assets", "pipelines.orchestration.checks", "pipelines.access.permissions", "pipelines.sync.account_sync", "pipelines.admin.status",
                  "pipelines.verify.verification", "pipelines.erasure", "pipelines.sync.continuous", "pipelines.dictionary.origins"}
READ_THE_ENVIRONMENT = {"pipelines/settings.py", "pipelines/resources.py", "alembic/env.py"}
FORBIDDEN = {
    "a package registry": re.compile(r"index-url|trusted-host|https?://\S*(pypi|artifactory|nexus|simple/)"),
    "a path of somebody's machine": re.compile(r"/work/(main|shared)|/home/\w+/|/Users/\w+/"),
    "a token": re.compile(r"\beyJ[\w-]{20,}\.[\w-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY"),
}


def module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module(path): ast.parse(path.read_text()) for path in SOURCES}


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of every import, wherever it stands; no name for `import module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


def targets(name: str) -> set[str]:
    """The modules of ours that a module imports."""
    found = set()
    for source, imported in imports(MODULES[name]):
        found |= {candidate for candidate in (source, f"{source}.{imported}") if candidate in MODULES}
    return found - {name}


def reached(name: str) -> set[str]:
    found: set[str] = set()
    ahead = {name}
    while ahead:
        found |= ahead
        ahead = set().union(*(targets(each) for each in ahead)) - found
    return found - {name}


def package(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize(("alone", "others"), [("models", {"pipelines", "sandbox"}), ("sandbox", {"pipelines", "models"}), ("pipelines", {"tests"})])
def test_what_a_package_may_not_import(alone: str, others: set[str]) -> None:
    wrong = [(name, source) for name, tree in MODULES.items() if package(name) == alone for source, _ in imports(tree) if package(source) in others]
    assert wrong == []


@pytest.mark.parametrize("level", range(len(STAGES)))
def test_imports_run_one_way(level: int) -> None:
    later = {name for stage in STAGES[level + 1:] for name in stage} | FRONT
    if level < 5:
        later.add("pipelines.installation")
    for stage in STAGES[level]:
        members = [name for name in MODULES if name == stage or (stage == "models" and package(name) == "models")]
        assert members, f"{stage} is gone: move this test along"
        for name in members:
            assert reached(name) & later == set(), f"{name} reaches upwards"


def test_amocrm_knows_no_entity() -> None:
    for name in MODULES:
        if name.startswith("pipelines.amocrm"):
            outside = {each for each in reached(name) if not each.startswith("pipelines.amocrm")}
            assert outside <= {"pipelines", "pipelines.schema.json_text", "pipelines.amocrm.hosts"}, name


def test_only_who_must_knows_the_tuple_of_entities() -> None:
    assert {name for name, tree in MODULES.items() if ("pipelines.entities.registry", "ENTITIES") in imports(tree)} <= KNOW_THE_TUPLE


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_asks_no_entity_for_its_name(name: str) -> None:
    names = {entity.name for entity in ENTITIES}
    for node in ast.walk(MODULES[f"pipelines.{name}"]):
        if isinstance(node, ast.Compare | ast.MatchValue):
            said = {leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)}
            assert not said & names, f"line {node.lineno}: {ast.unparse(node)}"


def reads_environment(tree: ast.AST) -> list[int]:
    """Lines that look into os.environ. To hand it to a child process (`os.environ | {…}`) or to set a variable is not to read it."""
    harmless = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            harmless.add(node.left)
        elif isinstance(node, ast.Attribute) and node.attr == "setdefault":
            harmless.add(node.value)
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
            and isinstance(node.value, ast.Name) and node.value.id == "os" and node not in harmless]


def test_only_settings_read_the_environment() -> None:
    readers = {str(path.relative_to(ROOT)): reads_environment(MODULES[module(path)]) for path in SOURCES}
    assert {path: lines for path, lines in readers.items() if lines and path not in READ_THE_ENVIRONMENT} == {}
    assert readers["pipelines/settings.py"], "this test finds what it looks for"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_grows_too_long(path: Path) -> None:
    length = len(path.read_text().splitlines())
    assert length <= 300
    long = [(node.name, node.end_lineno - node.lineno + 1) for node in ast.walk(MODULES[module(path)])
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno and node.end_lineno - node.lineno >= 40]
    assert long == []


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_holds_what_should_not_leave_the_machine() -> None:
    found = [f"{path.relative_to(ROOT)}: {what}: {match.group()[:60]}" for path in tracked() if path != Path(__file__)
             for what, pattern in FORBIDDEN.items() for match in [pattern.search(path.read_text(errors="replace"))] if match]
    assert found == []


def test_what_is_locked_is_plain_names_and_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def test_what_is_declared_as_listed_is() -> None:
    """A table without the mirror's own columns would fail at its first sync."""
    assert [entity.name for entity in ENTITIES if not issubclass(entity.model, Listed)] == []
    children = [child.model for entity in ENTITIES for child in entity.children] + [entity.values for entity in ENTITIES if entity.values]
    assert [model.__tablename__ for model in children if not issubclass(model, Extra)] == []
    assert len({entity.name for entity in ENTITIES}) == len(ENTITIES)
