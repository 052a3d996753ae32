"""Responses → pages: what counts as empty, how the next page is found, and which responses are not pages
(amocrm-api.md 1.3 to 1.5)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from pipelines.amocrm.errors import TransientError
from pipelines.amocrm.pagination import MAX_IDLE_REQUESTS, Page, halve_page_size, page, pages
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
@pytest.mark.parametrize("rows", [2, 40])
def test_a_list_that_ignores_page_is_one_page_whatever_its_next_says(next_: str, rows: int) -> None:
    """`leads/pipelines` and `sources` may carry a next although each page is the whole list."""
    def reply(path: str) -> Reply:
        return list_reply(*({"id": ident} for ident in range(rows)), next=next_.format(len(server.paths) + 1))

    with scripted_server(reply) as server:
        assert [len(each.records) for each in read(server)] == [rows]
    assert len(server.paths) <= 5


def numbered(rows: int, size: int, claim: Callable[[int, int], dict[str, Any]]) -> Callable[[str], Reply]:
    """Returns the answers of a list in pages of `size`; `claim` returns the links of a page, given its number
    and that of the last page."""
    def answer(path: str) -> Reply:
        number = int(dict(parse_qsl(urlsplit(path).query)).get("page", 1))
        shown = list(range((number - 1) * size, min(rows, number * size)))
        if not shown:
            return 204, {}, None
        return 200, {}, {"_links": claim(number, -(-rows // size)),
                         "_embedded": {"leads": [{"id": ident} for ident in shown]}}

    return answer


CLAIMS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "always": lambda number, last: {"next": {"href": f"?page={number + 1}"}},
    "missing": lambda number, last: {},
    "null": lambda number, last: {"next": None},
    "a number": lambda number, last: {"next": 7},
    "without a query": lambda number, last: {"next": {"href": "/leads"}} if number < last else {},
    "back to the first": lambda number, last: {"next": {"href": "?page=1"}},
    "right": lambda number, last: {"next": {"href": f"?page={number + 1}"}} if number < last else {},
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize(("rows", "size"), [(137, 100), (100, 50), (40, 20), (41, 20), (20, 20), (250, 250)])
def test_a_list_is_read_to_its_end_whatever_its_next_says(claim: str, rows: int, size: int) -> None:
    """Pages smaller than asked for, and without next although rows follow (live-facts 19, 43)."""
    with scripted_server(numbered(rows, size, CLAIMS[claim])) as server:
        found = [record["id"] for each in pages(client_of(server), "leads", [("limit", "250")], "leads")
                 for record in each.records]
    assert found == list(range(rows))
    assert len(server.paths) <= 2 * -(-rows // size) + 3


@pytest.mark.parametrize(("count", "by_offset", "found"), [
    (60, True, 60), (60, False, None), (21, False, 20), (20, False, 20), ("60", False, 20)])
def test_a_list_that_repeats_its_page_is_read_to_the_count_it_announces(count: Any, by_offset: bool,
                                                                        found: int | None) -> None:
    """The drive counts its files, and may page by offset only. A count that is a little higher (files that
    went meanwhile, or are hidden) is no proof."""
    def answer(path: str) -> Reply:
        offset = int(dict(parse_qsl(urlsplit(path).query)).get("offset", "0")) if by_offset else 0
        shown = [{"uuid": f"u{place}"} for place in range(offset, min(offset + 20, 60))]
        return 200, {}, {"_count": count, "_links": {}, "_embedded": {"files": shown}}

    with scripted_server(answer) as server:
        def met() -> int:
            walk = pages(client_of(server), "files", [("limit", "250")], "files")
            return len({record["uuid"] for each in walk for record in each.records})

        if found is None:
            with pytest.raises(TransientError, match="60 rows are announced, and 20 came"):
                met()
        else:
            assert met() == found
        assert len(server.paths) < 12


def test_an_empty_first_page_that_names_a_next_is_not_the_end() -> None:
    def answer(path: str) -> Reply:
        if "page=2" in path:
            return list_reply({"id": 2})
        return list_reply({"id": 1}) if len(server.paths) > 1 else list_reply(next="?page=2")

    with scripted_server(answer) as server:
        assert [record["id"] for each in read(server) for record in each.records] == [1]


def test_a_page_without_rows_that_names_a_next_for_ever_is_an_error() -> None:
    with (scripted_server(lambda path: list_reply(next="?page=2")) as server,
          pytest.raises(TransientError, match="a page without rows says that rows follow")):
        read(server)
    assert len(server.paths) == 2


def test_a_next_without_our_filter_keeps_it() -> None:
    def answer(path: str) -> Reply:
        return list_reply(*({"id": 1} for _ in range(2)), next="?page=2") if "page=2" not in path else (
            204, {}, None)

    with scripted_server(answer) as server:
        list(pages(client_of(server), "leads", [*ASKED, ("filter[id][]", "1")], "leads"))
    assert all("filter" in path and "order" in path for path in server.paths)


def test_a_walk_that_meets_no_new_row_names_the_list_and_its_pages() -> None:
    """Each page shows other rows, all of them met before."""
    def answer(path: str) -> Reply:
        number = len(server.paths)
        shown = range(40) if number == 1 else Random(number).sample(range(40), 20)
        return list_reply(*({"id": ident} for ident in shown), next=f"?page={number + 1}")

    with scripted_server(answer) as server, pytest.raises(TransientError,
                                                          match=r"leads does not end: \d+ pages"):
        read(server)
    assert len(server.paths) < 2 * MAX_IDLE_REQUESTS


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
        if empty_times > 1 and place == 1:
            with pytest.raises(TransientError, match="a page without rows says that rows follow"):
                read(server)
            assert len(server.paths) == 2
        elif empty_times > 1:  # the page after it is empty, too: the list ends
            assert [record["id"] for each in read(server) for record in each.records] == [1, 11]
            assert [page_number(path) for path in server.paths] == [1, 2, 2, 3, 3]
        else:
            assert [record["id"] for each in read(server) for record in each.records] == [1, 11, 2, 12]
