"""`doctor --report`: describes the answers of every list, and holds no value of the account."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.admin.shapes import Shape, kind_of, order_of
from pipelines.entities.registry import ENTITIES
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation

MIN_TEXT, MIN_NUMBER = 4, 10_000
"""Shorter texts and smaller numbers are among the words and measures of any report."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60, switches={"odd_keys": "on"}) as running:
        yield running


def atoms(value: Any, keys: bool) -> Iterator[Any]:
    """Every key (`keys`), or every value, inside a JSON value."""
    if isinstance(value, dict):
        yield from value if keys else ()
        for inner in value.values():
            yield from atoms(inner, keys)
    elif isinstance(value, list):
        for inner in value:
            yield from atoms(inner, keys)
    elif not keys:
        yield value


def is_distinctive(value: str) -> bool:
    """True if a text is more than a lower-case English word, which any report contains."""
    return not re.fullmatch(r"[a-z_/]+", value)


def leaks(report: str, truth: list[Any], words: set[str]) -> set[str]:
    """Values of the account that stand in the report: anywhere, or as a key or value of it if they are words
    that may be the API's own. `words`: those that are."""
    values = {str(value) for value in atoms(truth, keys=False)
              if (isinstance(value, str) and len(value) >= MIN_TEXT)
              or (isinstance(value, int | float) and not isinstance(value, bool) and value >= MIN_NUMBER)}
    return {value for value in values - words
            if (json.dumps(value)[1:-1] if is_distinctive(value) else json.dumps(value)) in report}


def test_a_report_describes_every_list_and_holds_no_value(sandbox: SandboxProcess,
                                                          installation: CliInstallation) -> None:
    path = installation.folder / "shapes.json"
    done = installation.call("doctor", "--report", str(path))
    assert done.code == 0, done.output
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text(encoding="utf-8")
    report = json.loads(text)

    lists = {each["list"]: each for each in report["lists"]}
    assert lists.keys() == {listing.path for entity in ENTITIES for listing in entity.listings}
    first = lists["leads"]["answers"][0]
    assert (first["status"], first["records"], first["headers"]["date"]) == (200, 60, "…")
    assert first["record"]["keys"]["price"]["types"]["integer"] > 0
    assert [each["records"] for each in lists["leads"]["answers"]][1:3] == [3, 3]
    assert lists["leads"]["answers"][4]["orders"]["id"] == "ascending"
    assert isinstance(report["clock_ahead_seconds"], int)

    truth = [record for path in sandbox.list_counts() for record in sandbox.truth(path)]
    words = {str(key) for key in atoms(truth, keys=True)} | {
        word for entity in ENTITIES for listing in entity.listings
        for word in (entity.name, *listing.path.split("/"), *entity.with_)} | set(Shape().kinds) | {
        "text", "list", "object", "number", "integer", "status", "local", "asked", "types", "items",
        "date"}
    assert leaks(text, truth, words) == set()
    for secret in (sandbox.admin_token, sandbox.client_secret, sandbox.url, str(sandbox.account_id)):
        assert secret not in text
    name = sandbox.truth("account")[0]["name"]
    assert leaks(text + json.dumps(name), truth, words) == {name}, "this test finds what it looks for"


def test_a_fault_of_the_account_is_told_before_a_report(sandbox: SandboxProcess,
                                                        installation: CliInstallation) -> None:
    path = installation.folder / "shapes.json"
    done = installation.call("doctor", "--report", str(path), AMOCRM_ACCESS_TOKEN="a.wrong.token")
    assert done.code == 1 and f"{path} is not written" in done.output
    assert not path.exists()


def test_keys_that_people_gave_are_left_out() -> None:
    shape = Shape()
    shape.add({"name": "Иван", "rights": {"1234567": {"view": "A"}, "Заявки": {"view": 1}}})
    described = json.dumps(shape.as_json(), ensure_ascii=False)
    assert "1234567" not in described and "Заявки" not in described and "Иван" not in described
    assert shape.as_json()["keys"]["rights"]["keys"]["<any key>"]["keys"]["view"]["types"] == {
        "integer": 1, "text": 1}


@pytest.mark.parametrize(("value", "kind"), [
    ("1790000000", "text of a number"), ("1 234,56", "text"), (0, "zero"), (-77, "negative integer"),
    (2**63, "integer beyond 64 bits"), (1790000000.5, "number with a fraction"), ([], "empty list"),
    ({}, "empty object"), (None, "null"), (True, "boolean"), ("", "empty text")])
def test_types_say_what_matters_to_a_parser(value: Any, kind: str) -> None:
    assert kind_of(value) == kind


def test_orders() -> None:
    assert [order_of(each) for each in ([1, 2], [2, 1], [1, 1], [1, 3, 2])] == [
        "ascending", "descending", "all the same", "none"]
