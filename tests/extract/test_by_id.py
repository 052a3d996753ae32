"""Records by id: what an answer says of the ids that it lacks."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from pipelines.amocrm.errors import TransientError
from pipelines.extract.by_id import IdQuery, answers_by_id
from tests.support.helpers import Reply, list_reply, scripted_server
from tests.support.lists import source_of

HERE, GONE = list(range(1, 41)), [41, 42]


def absent_ids(server: Any) -> tuple[list[int], set[int]]:
    """Asks for every id, of which one answer without it would do. Returns the absent ones, and those whose
    record came."""
    found = list(answers_by_id(IdQuery(source_of(server, limit=250), lambda _: True), HERE + GONE))
    return (sorted(ident for each in found for ident in each.absent_ids),
            {record["id"] for each in found for record in each.page.records})


@pytest.mark.parametrize("gone", [(204, {}, None), (404, {}, {"status": 404, "title": "Not Found"})])
def test_what_a_page_with_a_further_one_lacks_is_not_absent(gone: Reply) -> None:
    """The server gives pages of 15 rows, whatever is asked for."""
    def answer(path: str) -> Reply:
        parts = urlsplit(path)
        ident = parts.path.rpartition("/")[2]
        if ident.isdigit():
            return (200, {}, {"id": int(ident), "_links": {}}) if int(ident) in HERE else gone
        asked = [int(value) for name, value in parse_qsl(parts.query) if name == "filter[id][]"]
        shown = [ident for ident in asked if ident in HERE]
        return list_reply(*({"id": ident} for ident in shown[:15]),
                          **({"next": f"{path}&page=2"} if len(shown) > 15 else {}))

    with scripted_server(answer) as server:
        assert absent_ids(server) == (GONE, set(HERE))


@pytest.mark.parametrize("reply", [(404, {"Content-Type": "text/html"}, b"<html>404</html>"), (404, {}, None),
                                   (400, {}, {"status": 400, "detail": "system error, please repeat"})])
def test_a_foreign_answer_settles_no_id(reply: Reply) -> None:
    def answer(path: str) -> Reply:
        return reply if "filter" not in path else (403, {}, {"status": 403})

    with scripted_server(answer) as server, pytest.raises(TransientError):
        absent_ids(server)
