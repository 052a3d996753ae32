"""Messages are for people: no message is made from the name of a Python class, and none quotes an error's
repr."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.config.settings import validate_schema_name
from pipelines.errors import describe_fault

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "pipelines").rglob("*.py"))
TYPE_NAMES = {"__name__", "__qualname__", "__class__"}
CODE_LOOKUPS = {"pipelines/dictionary/origins.py", "pipelines/normalize/reader.py"}
"""Files that look code up by its name, and show none to people."""


def type_names(tree: ast.AST) -> Iterator[int]:
    """Yields the lines that take the name of an error's class, or an error's repr, for a text."""
    errors = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in TYPE_NAMES:
            yield node.lineno
        if (isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
                and isinstance(node.value, ast.Name) and node.value.id in errors):
            yield node.lineno


@pytest.mark.parametrize("path", [each for each in SOURCES
                                  if str(each.relative_to(ROOT)) not in CODE_LOOKUPS],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_names_a_python_type(path: Path) -> None:
    assert list(type_names(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_the_search_finds_what_it_looks_for() -> None:
    code = "try:\n    pass\nexcept ValueError as reason:\n    print(f'{type(reason).__name__}: {reason!r}')\n"
    assert list(type_names(ast.parse(code))) == [4, 4]


def test_an_unexpected_error_names_its_place_and_quotes_nothing() -> None:
    try:
        validate_schema_name(7)  # type: ignore[arg-type]
        raise AssertionError("a schema's name is a text")
    except TypeError as reason:
        message = describe_fault(reason)
    assert message.startswith("an unexpected error arose in pipelines/config/settings.py, line ")
    assert "TypeError" not in message and "please report it" in message
