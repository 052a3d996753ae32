"""Responses → pages: what counts as empty, how the next page is found, and which responses are not pages
(amocrm-api.md 1.3 to 1.5)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from pipelines.amocrm.errors import TransientError
from pipelines.amocrm.pagination import Page, halve_page_size, page, pages
from sandbox.process import SandboxProcess
from tests.support.helpers import Reply, client_of, list_reply, scripted_server

ASKED = [("limit", "2"), ("with", "contacts"), ("order[id]", "asc")]


def read(server: Any, key: str = "leads") -> list[Page]:
    return list(pages(client_of(server), key, ASKED, key))


@pytest.mark.parametrize("reply", [(204, {}, None), (200, {}, {"_links": {}}),
                                   (200, {}, {"_links": {}, "_embedded": []}), (200, {}, []), list_reply(),
                                   (200, {}, {"_embedded": {"leads": None}})])
def test_every_form_of_an_empty_page_is_empty(reply: Reply) -> None:
    with scripted_server(lambda path: reply) as server:
        assert [(each.records, each.next) for each in read(server)] == [([], None)]


@pytest.mark.parametrize("body", [{"title": "Server is tired", "status": 500},
                                  {"_embedded": {"contacts": [{"id": 1}]}}, [{"id": 1}], "leads", 5,
                                  {"_embedded": {"leads": 7}}, {"_embedded": 7}, b"[" * 100_000])
def test_a_response_without_the_list_is_not_an_empty_page(body: Any) -> None:
    with scripted_server(lambda path: (200, {}, body)) as server, pytest.raises(
            TransientError, match="not what the API promises"):
        read(server)
    assert len(server.paths) == 3


def test_a_problem_body_is_not_a_record() -> None:
    with scripted_server(lambda path: (200, {}, {"title": "oops", "status": 403})) as server, pytest.raises(
            TransientError):
        page(client_of(server), "account", (), "", single=True)


def test_records_in_an_object_with_numeric_keys_are_read() -> None:
    with scripted_server(lambda path: (200, {},
                                       {"_embedded": {"leads": {"0": {"id": 1}, "7": {"id": 2}}}})) as server:
        assert [record["id"] for each in read(server) for record in each.records] == [1, 2]


@pytest.mark.parametrize("host",
                         ["https://shard152.amocrm.ru", "http://example.com", "", "ftp://127.0.0.1:1"])
def test_only_the_query_of_next_is_used(host: str) -> None:
    def answer(path: str) -> Reply:
        if "page=2" in path:
            return list_reply({"id": 3})
        return list_reply({"id": 1}, {"id": 2}, next=f"{host}/ajax/v4/leads?limit=2&page=2&order%5Bid%5D=asc")

    with scripted_server(answer) as server:
        assert [len(each.records) for each in read(server)] == [2, 1]
    assert server.paths[1] == "/api/v4/leads?limit=2&page=2&order%5Bid%5D=asc&with=contacts"


def test_page_count_is_used_if_there_is_no_next() -> None:
    def answer(path: str) -> Reply:
        number = int(path.partition("page=")[2] or 1)
        return 200, {}, {"_page": number, "_page_count": 3, "_links": {},
                         "_embedded": {"leads": [{"id": number}]}}

    with scripted_server(answer) as server:
        assert [each.records[0]["id"] for each in read(server)] == [1, 2, 3]


@pytest.mark.parametrize("next_", ["?page=1&limit=2", "?page={}&limit=2"])
def test_a_circular_next_is_refused(next_: str) -> None:
    def reply(path: str) -> Reply:
        return list_reply({"id": 1}, {"id": 2}, next=next_.format(len(server.paths) + 1))

    with scripted_server(reply) as server, pytest.raises(TransientError, match="circle"):
        read(server)
    assert len(server.paths) < 5


def test_an_empty_page_before_the_last_is_requested_again() -> None:
    def answer(path: str) -> Reply:
        if "page=2" not in path:
            return list_reply({"id": 1}, next="?page=2")
        return (204, {}, None) if len(server.paths) == 2 else list_reply({"id": 2})

    with scripted_server(answer) as server:
        assert [record["id"] for each in read(server) for record in each.records] == [1, 2]


@pytest.mark.parametrize(("asked", "wanted"), [(("250", "1"), ("125", "1")), (("250", "3"), ("125", "5")),
                                               (("125", "3"), ("62", "5")), (("20", "2"), ("16", "2"))])
def test_smaller_pages_start_no_later(asked: tuple[str, str], wanted: tuple[str, str]) -> None:
    found = dict(halve_page_size([("limit", asked[0]), ("page", asked[1])]))
    assert (found["limit"], found["page"]) == wanted
    assert (int(wanted[1]) - 1) * int(wanted[0]) <= (int(asked[1]) - 1) * int(asked[0])


def test_pages_that_are_too_large_are_halved() -> None:
    with SandboxProcess(scale=300) as sandbox:
        sandbox.fault("504", "page=3|leads", times=0, min_limit=60)
        found = [record["id"] for each in pages(client_of(sandbox), "leads", [("limit", "100")], "leads")
                 for record in each.records]
        assert set(found) == {record["id"] for record in sandbox.truth("leads")} and len(found) < 320


# Pages that do not show whether the list ends


FULL = [{"id": 1}, {"id": 2}]
"""As many records as `ASKED` asks for."""


def page_number(path: str) -> int:
    return int(dict(parse_qsl(urlsplit(path).query)).get("page", 1))


@pytest.mark.parametrize("links", [{}, {"next": None}, {"next": 2}, {"next": {}}, {"next": {"href": ""}}])
@pytest.mark.parametrize("later", [(204, {}, None), list_reply(), list_reply({"id": 3}), list_reply(*FULL)])
def test_a_full_page_without_next_is_looked_at_once_more(links: Any, later: Reply) -> None:
    """It is the last one only if the page after it is empty or short, or the list does not honour `page`."""
    def answer(path: str) -> Reply:
        if "page=2" in path:
            return later
        return 200, {}, {"_links": links, "_embedded": {"leads": FULL}}

    with scripted_server(answer) as server:
        found = [record["id"] for each in read(server) for record in each.records]
    assert found == ([1, 2, 3] if later == list_reply({"id": 3}) else [1, 2])
    assert server.paths[1] == server.paths[0] + "&page=2"


@pytest.mark.parametrize("links", [{}, {"next": None}, {"next": 2}])
def test_a_short_page_without_next_is_the_last_one(links: Any) -> None:
    with scripted_server(lambda path: (200, {}, {"_links": links,
                                                 "_embedded": {"leads": [{"id": 1}]}})) as server:
        assert [record["id"] for each in read(server) for record in each.records] == [1]
    assert len(server.paths) == 1


def test_a_full_page_without_next_in_the_middle_loses_nothing() -> None:
    """Page 2 of 5 names no next, at every reading."""
    def answer(path: str) -> Reply:
        number = page_number(path)
        records = [{"id": 2 * number - 1}, {"id": 2 * number}][:1 if number == 5 else 2]
        return list_reply(*records, **({"next": f"?page={number + 1}"} if number not in (2, 5) else {}))

    with scripted_server(answer) as server:
        assert [record["id"] for each in read(server) for record in each.records] == list(range(1, 10))


@pytest.mark.parametrize("empty_times", [1, 2, 9])
@pytest.mark.parametrize("place", [1, 2])
def test_a_page_without_records_that_names_a_next_is_no_end(place: int, empty_times: int) -> None:
    met = [0]

    def answer(path: str) -> Reply:
        number = page_number(path)
        if number == place and met[0] < empty_times:
            met[0] += 1
            return list_reply(next=f"?page={number + 1}")
        if number > 2:
            return 204, {}, None
        return list_reply({"id": number}, {"id": 10 + number}, **({"next": "?page=2"} if number == 1 else {}))

    with scripted_server(answer) as server:
        if empty_times > 1:
            with pytest.raises(TransientError, match="shows no records, but names a further page"):
                read(server)
            assert len(server.paths) <= 3
        else:
            assert [record["id"] for each in read(server) for record in each.records] == [1, 11, 2, 12]
