"""The documents agree with the program: entities, tables, settings, commands."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

from models.base import AccountBase
from pipelines.cli.app import app
from pipelines.config.settings import Settings
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity, Phase
from sandbox.http.faults import FAULT_KINDS
from tests.support.commands import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
SETTINGS = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
COVERAGE = (REPOSITORY / "docs" / "coverage.md").read_text(encoding="utf-8")
ROWS = {row[0]: row for row in (re.findall(r"(?<=\| )(?:[^|]*?)(?= ?\|)", line)
                                for line in COVERAGE.splitlines() if line.startswith("| `"))}


def reading_mode(entity: Entity) -> str:
    """How docs/coverage.md describes the way in which the entity is read."""
    if entity.phase is Phase.DETAILS and not entity.incremental:
        return "one by one"
    return f"by {entity.incremental.column}" if entity.incremental else "whole"


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.name)
def test_coverage_page_describes_each_entity(entity: Entity) -> None:
    row = ROWS[f"`{entity.name}`"]
    assert row[2].startswith(reading_mode(entity))
    children = {child.model.__tablename__ for child in entity.children} | (
        {entity.field_values.__tablename__} if entity.field_values else set())
    assert set(re.findall(r"`(\w+)`", row[3] if len(row) > 3 else "")) == children


def test_coverage_page_names_every_table_and_no_other() -> None:
    assert set(ROWS) == {f"`{entity.name}`" for entity in ENTITIES}
    named = {name for row in ROWS.values() for cell in (row[0], row[-1])
             for name in re.findall(r"`(\w+)`", cell)}
    named |= set(re.findall(r"`(\w+)`",
                            COVERAGE[COVERAGE.index("## History"):COVERAGE.index("## Not mirrored")]))
    assert set(AccountBase.metadata.tables) <= named


def test_settings_page_lists_every_setting() -> None:
    listed = {name for line in SETTINGS.splitlines() if line.startswith("| `")
              for name in re.findall(r"`([A-Z_]+)`", line.split("|")[1])}
    assert listed == {name.upper() for name in Settings.model_fields}


def test_commands_page_lists_every_command_with_existing_options() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `amocrm-mirror ([a-z-]+)", COMMANDS, re.M)) == set(commands)
    for name, option in re.findall(r"^\| `amocrm-mirror ([a-z-]+)[^|]*?(--[a-z-]+)", COMMANDS, re.M):
        own = [commands[name], *getattr(commands[name], "commands", {}).values()]
        assert option in {word for command in own for parameter in command.params for word in parameter.opts}


def test_commands_page_and_readme_show_existing_options_only() -> None:
    root = get_command(app)
    commands = root.commands.values()  # type: ignore[attr-defined]
    every = [root, *(each for command in commands
                     for each in (command, *getattr(command, "commands", {}).values()))]
    options = {word for command in every for parameter in command.params for word in parameter.opts}
    used = {option for page in (COMMANDS, README)
            for line in re.findall(r"amocrm-mirror ([^`\n#]*)", page)
            for option in re.findall(r"(?<!\S)\[?(--[a-z-]+)", line)}
    assert used <= options


def test_sandbox_page_lists_every_fault_and_option() -> None:
    page = (REPOSITORY / "docs" / "sandbox.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)`", page[page.index("**Faults**"):page.index("Each takes")])) == set(
        FAULT_KINDS)
    options = {parameter.opts[0]
               for parameter in get_command(app).commands["sandbox"].params}  # type: ignore[attr-defined]
    assert options <= set(re.findall(r"--[a-z-]+", page))


@pytest.mark.parametrize("name", ["wide_leads", "pipeline_on_a_day"])
def test_readme_shows_the_queries_that_the_demo_runs(name: str) -> None:
    file = REPOSITORY / "pipelines" / "cli" / "sql" / f"{name}.sql"
    assert file.read_text(encoding="utf-8").partition("\n")[2] in README
