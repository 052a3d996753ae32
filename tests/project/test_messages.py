"""Messages are for people: no message is made from the name of a Python class, and none quotes an error's
repr, names a class or shows the query of a request. What commands print in other tests is checked where it is
recorded (`CommandResult`)."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from requests import Response

from pipelines.amocrm.responses import judge
from pipelines.config.settings import validate_schema_name
from pipelines.errors import describe_fault
from tests.support.commands import unfit_for_people

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


def sentences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields the texts with spaces, by line, of which messages are made; no docstrings."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
                and id(node) not in prose):
            yield node.lineno, node.value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_holds_a_class_or_a_query(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [(line, found) for line, text in sentences(tree) for found in unfit_for_people(text)] == []


@pytest.mark.parametrize("text", [
    "a TypeError arose", "got NoneType here", "psycopg.errors.DiskFull: no room", "GET leads?limit=250: no",
    "GET leads?with=contacts&page=2 failed", "no HTTPSConnectionPool(host='x')", "<class 'int'> came",
    "amoCRM refuses [{'code': 'x'}]", "see <Client object at 0x7f>", "a requests.exceptions.Timeout"])
def test_an_unfit_message_is_found(text: str) -> None:
    assert unfit_for_people(text)
    assert [line for line, each in sentences(ast.parse(f"raise Exception({text!r})"))
            if unfit_for_people(each)] == [1]


def test_the_message_of_a_failed_request_names_no_query_and_its_validation_errors() -> None:
    answer = Response()
    answer.status_code = 400
    answer._content = json.dumps({"status": 400, "detail": "Request validation failed", "validation-errors": [
        {"request_id": "0", "errors": [{"code": "NotSupportedChoice", "path": "filter.id",
                                        "detail": "is not valid"}]}]}).encode()
    failure = judge(answer, "GET leads?filter[id][]=77&limit=250")
    assert str(failure).startswith("GET leads: amoCRM refuses the request (400: Request validation failed; "
                                   "filter.id: is not valid: NotSupportedChoice).")
    assert unfit_for_people(str(failure)) == [] and failure.request.endswith("limit=250")


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
