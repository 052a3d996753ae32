"""Webhook delivery as amoCRM does it: which answers are retried, and when a destination is disabled."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.sandbox.client import Client  # type: ignore[import-not-found, unused-ignore]

HOUR = 1.2


class Destination:
    """HTTP server that answers with `status` and records what it receives."""

    def __init__(self) -> None:
        self.status, self.came = 200, list[tuple[float, dict[str, list[str]]]]()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                outer.came.append((time.monotonic(), form))
                self.send_response_only(outer.status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/h"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02},
                         daemon=True).start()


@pytest.fixture
def destination() -> Iterator[Destination]:
    made = Destination()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def api(own: Client, destination: Destination) -> Client:
    own.sandbox.switch(webhook_hour=str(HOUR))
    hook = {"destination": destination.url,
            "settings": ["add_lead", "update_lead", "note_contact", "delete_task", "restore_company"]}
    assert own.send("POST", "webhooks", hook).status_code == 201
    return own


def until(true: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lead(api: Client) -> int:
    return int(api.sandbox.truth("leads")[0]["id"])


def priced(api: Client, price: int = 1) -> None:
    api.sandbox.mutate({"op": "patch", "list": "leads", "id": lead(api), "set": {"price": price}})


@pytest.mark.parametrize(("status", "tries"), [(200, 1), (404, 3), (503, 5)])
def test_deliveries_are_retried_by_the_answer(api: Client, destination: Destination, status: int,
                                              tries: int) -> None:
    destination.status = status
    priced(api)
    until(lambda: api.sandbox.delivery_counts()["delivered" if status == 200 else "failed"] == 1)
    assert (len(destination.came), api.sandbox.delivery_counts()["answers"]) == (tries, {str(status): tries})
    gaps = [later - earlier
            for (earlier, _), (later, _) in zip(destination.came, destination.came[1:], strict=False)]
    assert all(gap >= wait * HOUR for gap, wait in zip(gaps, (1 / 12, 1 / 4, 1 / 4, 1), strict=False))


def test_a_hundred_bad_answers_disable_a_webhook_until_it_is_subscribed_again(
        api: Client, destination: Destination) -> None:
    destination.status = 503
    for number in range(30):
        priced(api, number)
    until(lambda: next(hook for hook in api.rows("webhooks")
                       if hook["destination"] == destination.url)["disabled"])
    sent = api.sandbox.delivery_counts()["sent"]
    assert sum(api.sandbox.delivery_counts()["answers"].values()) > 100
    priced(api, 77)
    assert api.sandbox.delivery_counts()["sent"] == sent
    destination.status = 200
    assert api.send("POST", "webhooks",
                    {"destination": destination.url, "settings": ["update_lead"]}).json()["disabled"] is False
    priced(api, 78)
    until(lambda: destination.came[-1][1].get("leads[update][0][price]") == ["78"])


def test_deliveries_contain_the_records(api: Client, destination: Destination) -> None:
    contact, company, task = (api.sandbox.truth(path)[0]["id"] for path in ("contacts", "companies", "tasks"))
    api.sandbox.mutate(
        {"op": "create", "list": "contacts/notes", "record": {"entity_id": contact, "params": {"text": "x"}}},
        {"op": "delete", "list": "companies", "id": company},
        {"op": "restore", "list": "companies", "id": company}, {"op": "delete", "list": "tasks", "id": task})
    until(lambda: api.sandbox.delivery_counts()["waiting"] == 0)
    said = [form for _, form in destination.came]
    assert [form["contacts[note][0][note][element_id]"] for form in said
            if "contacts[note][0][note][id]" in form] == [[str(contact)]]
    assert [form["contacts[restore][0][type]"] for form in said if "contacts[restore][0][id]" in form] == [
        ["company"]]
    assert [form["task[delete][0][id]"] for form in said if "task[delete][0][id]" in form] == [[str(task)]]
    assert {form["account[subdomain]"][0] for form in said} == {"uralkedr"}


def test_the_digital_pipeline_delivers_once(api: Client, destination: Destination) -> None:
    destination.status = 503
    statuses = [status["id"] for status in api.sandbox.truth("leads/pipelines")[0]["_embedded"]["statuses"]
                if status["type"] == 0]
    api.sandbox.switch(webhook_delivery="lose")
    api.sandbox.digital_pipeline(destination.url, lead(api), statuses[1])
    until(lambda: api.sandbox.delivery_counts()["failed"] == 1)
    assert [form["leads[status][0][status_id]"] for _, form in destination.came] == [[str(statuses[1])]]
    with pytest.raises(RuntimeError, match="not on this computer"):
        api.sandbox.deliver("http://192.0.2.1/", "a=1")
