"""The sandbox answers any request, however odd, without failing itself (no 500)."""

import random
import socket
from collections.abc import Callable

from sandbox.account.lists import LISTS
from sandbox.account.switches import SWITCHES
from tests.sandbox.client import Client  # type: ignore[import-not-found, unused-ignore]

PATHS = [spec.path.replace("{catalog}", "11803").replace("{pipeline}", "6820154") for spec in LISTS]
KEYS = ["page", "limit", "with", "query", "order[id]", "order[updated_at]", "id[]", "language_code",
        "before_id"]
FILTERS = ["id", "updated_at", "created_at", "name", "entity", "entity_id", "type", "statuses",
           "custom_fields_values", "category", "uuid", "date"]
KEYS += [f"filter[{name}]{tail}" for name in FILTERS
         for tail in ("", "[]", "[from]", "[to]", "[0][pipeline_id]")]
VALUES = ["", "0", "1", "-1", "9" * 20, "asc", "desc", "a,b", "contacts,leads", "%", "'", "lead", "1.5",
          "\x00", "ё", "only_deleted"]
TAILS = [
    "",
    "/1",
    "/abc",
    "/99999999999999999999",
    "/1/links",
    "/1/notes",
    "/1/files",
    "/links",
    "/1/subscriptions",
    "/summary",
    "/custom_fields",
    "/",
]


def test_no_request_breaks_it(start: Callable[..., Client]) -> None:
    rng, own = random.Random(4), start()
    for number in range(900):
        if number % 30 == 0:
            switch = rng.choice([switch for switch in SWITCHES
                                 if len(switch.values) > 1 and switch.values[0] != "set"])
            own.sandbox.switch(**{switch.name: rng.choice(switch.values)})
        path = rng.choice(PATHS) + rng.choice(TAILS)
        params = {rng.choice(KEYS): rng.choice(VALUES) for _ in range(rng.randrange(4))}
        response = own.get(path, **params)
        assert response.status_code < 500, (path, params)
        assert response.status_code != 204 or not response.content
        if response.status_code in (200, 400) and "json" in response.headers["content-type"]:
            response.content.decode("utf-8")


def test_invalid_writes_do_not_break_it(own: Client) -> None:
    bodies: list[object] = [None, [], {}, [1], "x", [{"id": "x"}], [{"id": 1}], {"custom_fields_values": 5},
                            [{"to_entity_id": 1}]]
    for path in ("leads", "leads/1", "contacts/1/link", "tasks", "webhooks", "leads/notes",
                 "catalogs/1/elements", "events"):
        for method in ("POST", "PATCH", "DELETE", "PUT"):
            for body in bodies:
                assert own.send(method, path, body).status_code < 500, (method, path, body)


def test_raw_sockets(own: Client) -> None:
    host, port = own.sandbox.url.removeprefix("http://").split(":")
    token = own.sandbox.admin_token
    with socket.create_connection((host, int(port)), 5) as raw:
        request = f"GET /api/v4/account HTTP/1.1\r\nhost: x\r\nAUTHORIZATION: bearer {token}\r\n\r\n"
        raw.sendall((request + request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).encode())
        received = b""
        while chunk := raw.recv(65536):
            received += chunk
    assert received.count(b"HTTP/1.1 200 OK") == 2, "two requests of one segment, then the end"
    with socket.create_connection((host, int(port)), 5) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
