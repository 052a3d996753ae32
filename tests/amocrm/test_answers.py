"""The one judgement of answers: status, content type and body shape, on every list of the registry
(docs/architecture.md, "Errors are named by what to do")."""

from __future__ import annotations

import json
from typing import Any

import pytest
from requests import Response

from pipelines.amocrm.errors import (
    AccessRevokedError,
    AmoError,
    BadRequestError,
    BlockedError,
    GoneError,
    NoRightsError,
    NotOfferedError,
    NotPaidError,
    PageTooLargeError,
    ThrottledError,
    TransientError,
)
from pipelines.amocrm.responses import judge
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Listing

LISTINGS = [listing for entity in ENTITIES for listing in entity.listings]
PAGE, PROBLEM = "text/html; charset=utf-8", "application/problem+json"
HTML = "<html><body><h1>404</h1></body></html>"
SYSTEM_ERRORS = ("Произошла системная ошибка, повторите попытку", "A system error occurred, please repeat",
                 "Internal error. Try again later", "Error del sistema, inténtelo de nuevo",
                 "Ocorreu um erro de sistema, tente novamente")


def problem(status: int, detail: str = "", **more: Any) -> str:
    return json.dumps({"title": "Ошибка", "status": status, "detail": detail} | more)


def answer(status: int, content_type: str, body: str) -> Response:
    response = Response()
    response.status_code, response._content = status, body.encode()
    response.headers["Content-Type"] = content_type
    return response


PASSING = [*((status, PAGE, HTML) for status in (302, 400, 401, 404, 405, 408, 410, 422, 425, 426, 500, 502)),
           *((status, PROBLEM, problem(status)) for status in (408, 500, 502, 503)),
           *((status, "", "") for status in (400, 404, 405, 422, 425, 426, 500)),
           *((400, PROBLEM, problem(400, text)) for text in SYSTEM_ERRORS),
           (201, PROBLEM, problem(201)), (202, "", ""), (203, PROBLEM, "{}"), (206, PAGE, HTML),
           (401, "text/plain", "Unauthorized"), (401, PROBLEM, "[]"), (407, PAGE, HTML), (511, PAGE, HTML),
           (404, PAGE, problem(404)), (404, PROBLEM, "  \n" + HTML), (404, PROBLEM, "[]"),
           (404, PROBLEM, '"gone"'), (404, "text/plain", "404 page not found"), (418, "text/plain", "teapot")]
ROWS: list[tuple[int, str, str, type[AmoError]]] = [
    *((*row, TransientError) for row in PASSING),
    (429, PAGE, HTML, ThrottledError), (429, PROBLEM, problem(429), ThrottledError),
    (504, PAGE, HTML, PageTooLargeError), (403, PAGE, HTML, BlockedError), (403, "", "", BlockedError),
    (401, PROBLEM, problem(401), AccessRevokedError), (401, "", "", AccessRevokedError),
    (403, PROBLEM, problem(403), NoRightsError), (403, "application/json", problem(403), NoRightsError),
    (400, PROBLEM, problem(400, SYSTEM_ERRORS[0], **{"validation-errors": [{"errors": [1]}]}),
     BadRequestError),
    (400, PROBLEM, problem(400, "Bad filter"), BadRequestError), (414, PAGE, HTML, BadRequestError)]
DECLINABLE: list[tuple[int, str, str, type[AmoError]]] = [
    (402, PROBLEM, problem(402), NotPaidError), (402, PAGE, HTML, NotPaidError),
    (404, PROBLEM, problem(404), GoneError), (404, "application/json", problem(404), GoneError),
    (405, PROBLEM, problem(405), BadRequestError), (422, PROBLEM, problem(422), BadRequestError),
    (425, PROBLEM, problem(425), BadRequestError), (426, PROBLEM, problem(426), BadRequestError)]
"""Answers that mean another thing where the list may be declined with their status."""


@pytest.mark.parametrize(("status", "content_type", "body", "error"), ROWS)
def test_an_answer_means_the_same_for_every_list(status: int, content_type: str, body: str,
                                                 error: type[AmoError]) -> None:
    for listing in LISTINGS:
        found = judge(answer(status, content_type, body), f"GET {listing.path}", listing.declines)
        assert type(found) is error and found.status == status, listing.path
        assert str(found).startswith(f"GET {listing.path}: ")


@pytest.mark.parametrize(("status", "content_type", "body", "error"), DECLINABLE)
def test_a_list_is_declined_as_documented_only(status: int, content_type: str, body: str,
                                               error: type[AmoError]) -> None:
    for listing in LISTINGS:
        found = judge(answer(status, content_type, body), f"GET {listing.path}", listing.declines)
        declined = TransientError if content_type == PAGE else NotOfferedError  # a web page declines nothing
        assert type(found) is (declined if status in listing.declines else error), listing.path


OF_CUSTOMERS = {402, 403, 404, 405, 422, 425, 426}


def documented_declines(listing: Listing) -> set[int]:
    """Returns the statuses with which amoCRM documents that it may decline the list (amocrm-api.md 0, 1.6 and
    the sections of section 3), written down a second time."""
    path = listing.path
    if path.startswith("customers"):
        return OF_CUSTOMERS
    if path in ("leads/loss_reasons", "bots", "talks", "catalogs/{}/custom_fields/groups"):
        return {403, 404, 405}
    if path == "webhooks":
        return {402, 403}
    if path.startswith("catalogs") or path in ("users", "roles", "sources", "website_buttons", "files",
                                               "chats/templates", "files/{}/links", "talks/{}"):
        return {403}
    return set()


def test_what_every_account_has_cannot_be_declined() -> None:
    for listing in LISTINGS:
        assert listing.declines == documented_declines(listing), listing.path
    every = {listing.path for listing in LISTINGS if not listing.declines}
    assert every >= {"account", "leads", "contacts", "companies", "tasks", "events", "events/types",
                     "leads/pipelines", "leads/unsorted", "leads/notes", "contacts/notes", "leads/tags",
                     "leads/custom_fields", "contacts/custom_fields/groups", "widgets"}


@pytest.mark.parametrize("text", ["<html>", ""])
def test_messages_say_what_to_do_and_show_no_page(text: str) -> None:
    found = judge(answer(404, PAGE, HTML + text), "GET leads")
    assert "web page" in str(found) and "<" not in str(found)
