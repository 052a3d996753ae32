"""What the documents say is what the program does: entities, tables, settings, commands."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

from models.base import AccountBase
from pipelines.cli.app import app
from pipelines.config.settings import Settings
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from sandbox.http.faults import FAULT_KINDS
from tests.support.commands import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COVERAGE = (REPOSITORY / "docs" / "coverage.md").read_text(encoding="utf-8")
ROWS = {row[0]: row for row in (re.findall(r"(?<=\| )(?:[^|]*?)(?= ?\|)", line)
                                for line in COVERAGE.splitlines() if line.startswith("| `"))}


def how(entity: Entity) -> str:
    if any(listing.per_parent and listing.per_parent.due_sql for listing in entity.listings):
        return "one by one"
    return f"by {entity.incremental.column}" if entity.incremental else "whole"


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.name)
def test_coverage_tells_of_each_entity(entity: Entity) -> None:
    row = ROWS[f"`{entity.name}`"]
    assert row[2].startswith(how(entity))
    children = {child.model.__tablename__ for child in entity.children} | (
        {entity.field_values.__tablename__} if entity.field_values else set())
    assert set(re.findall(r"`(\w+)`", row[3] if len(row) > 3 else "")) == children


def test_coverage_tells_of_every_table_and_of_no_other() -> None:
    assert set(ROWS) == {f"`{entity.name}`" for entity in ENTITIES}
    told = {name for row in ROWS.values() for cell in (row[0], row[-1])
            for name in re.findall(r"`(\w+)`", cell)}
    told |= set(re.findall(r"`(\w+)`",
                           COVERAGE[COVERAGE.index("## History"):COVERAGE.index("## Not mirrored")]))
    assert set(AccountBase.metadata.tables) <= told


def test_the_readme_tells_of_every_setting() -> None:
    settings = README[README.index("## Settings"):README.index("## What is mirrored")]
    told = {name for line in settings.splitlines() if line.startswith("| `")
            for name in re.findall(r"`([A-Z_]+)`", line.split("|")[1])}
    assert told == {name.upper() for name in Settings.model_fields}


def test_the_readme_tells_of_every_command_and_option() -> None:
    commands = README[README.index("## Commands"):README.index("## Settings")]
    known = get_command(app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `amocrm-mirror ([a-z]+)", commands, re.M)) == set(known)
    for name, option in re.findall(r"^\| `amocrm-mirror ([a-z]+)[^|]*?(--[a-z-]+)", commands, re.M):
        own = [known[name], *getattr(known[name], "commands", {}).values()]
        assert option in {word for command in own for parameter in command.params for word in parameter.opts}


def test_the_sandbox_page_tells_of_every_fault_and_option() -> None:
    page = (REPOSITORY / "docs" / "sandbox.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)`", page[page.index("**Faults**"):page.index("Each takes")])) == set(
        FAULT_KINDS)
    options = {parameter.opts[0]
               for parameter in get_command(app).commands["sandbox"].params}  # type: ignore[attr-defined]
    assert options <= set(re.findall(r"--[a-z-]+", page))


@pytest.mark.parametrize("name", ["wide_leads", "pipeline_on_a_day"])
def test_the_readme_shows_queries_that_the_demo_runs(name: str) -> None:
    query = (REPOSITORY / "pipelines" / "sql" / f"{name}.sql").read_text(encoding="utf-8").partition("\n")[2]
    assert query in README
