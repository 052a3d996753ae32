"""Rate limit, block, fault injection and latency of the sandbox."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.sandbox.client import Client  # type: ignore[import-not-found, unused-ignore]


def within_a_second(own: Client, times: int) -> list[requests.Response]:
    """Returns `times` answers received within one second, alone in it.

    If the machine needed longer, the answers prove nothing and the requests are sent again.
    """
    for _ in range(20):
        own.sandbox.block(False)
        time.sleep(1.05)
        began = time.monotonic()
        answers = [own.get("account") for _ in range(times)]
        if time.monotonic() - began < 1:
            return answers
    raise AssertionError(f"this machine cannot send {times} requests within a second")


def test_the_rate_is_a_sliding_second(start: Callable[..., Client]) -> None:
    own = start(rate=5)
    answers = within_a_second(own, 9)
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 4
    assert (answers[-1].headers["content-type"].startswith("text/html")
            and "Retry-After" not in answers[-1].headers)
    time.sleep(1.05)
    assert own.get("account").status_code == 200
    own.sandbox.switch(retry_after_header="on")
    assert within_a_second(own, 6)[-1].headers["Retry-After"] == "1"
    assert (own.sandbox.stats()["max_requests_in_a_second"] >= 8
            and own.sandbox.stats()["by_status"]["429"] >= 4)


def test_excess_leads_to_a_block_of_everything(start: Callable[..., Client]) -> None:
    own = start(rate=1, switches={"block_after": "5"})
    codes = [answer.status_code for answer in within_a_second(own, 8)]
    assert codes == [200] + [429] * 5 + [403] * 2
    blocked = requests.post(f"{own.sandbox.url}/oauth2/access_token", json={}, timeout=60)
    assert blocked.status_code == 403 and "nginx" in blocked.text
    own.sandbox.block(False)
    time.sleep(1.05)
    assert own.get("account").status_code == 200


@pytest.mark.parametrize(("kind", "status"), [("429", 429), ("500", 500), ("502", 502), ("503", 503),
                                              ("504", 504), ("403html", 403), ("401", 401)])
def test_status_faults(own: Client, kind: str, status: int) -> None:
    own.sandbox.fault(kind, match="/leads", times=2, after=1, retry_after=3)
    answers = [own.get("leads", limit=1) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, status, status, 200]
    assert answers[1].headers["Retry-After"] == "3"
    assert own.get("account").status_code == 200


def test_broken_answers(own: Client) -> None:
    own.sandbox.fault("reset")
    with pytest.raises(requests.ConnectionError):
        own.get("account")
    own.sandbox.fault("truncate")
    with pytest.raises(requests.RequestException):
        own.get("leads").json()
    own.sandbox.fault("garbage")
    with pytest.raises(ValueError):
        own.get("leads").json()
    own.sandbox.fault("html200")
    assert own.get("leads").headers["content-type"].startswith("text/html")
    own.sandbox.fault("stall", seconds=30)
    with pytest.raises(requests.RequestException):
        own.session.get(f"{own.sandbox.url}/api/v4/leads", timeout=0.3)
    assert own.get("leads").status_code == 200


def test_slowness(own: Client) -> None:
    def took() -> float:
        begun = time.monotonic()
        own.get("account")
        return time.monotonic() - begun

    own.sandbox.fault("slow", seconds=1)
    assert took() >= 1
    own.sandbox.latency(120)
    assert 0.12 <= min(took() for _ in range(5)) < 1, "the fault was for one request"


def test_heavy_requests_time_out(own: Client) -> None:
    own.sandbox.fault("504", times=0, min_limit=100)
    assert own.get("leads", limit=250).status_code == 504 and own.get("leads", limit=50).status_code == 200
    own.sandbox.clear_faults()
    assert own.get("leads", limit=250).status_code == 200


def test_random_faults_are_seeded(start: Callable[..., Client]) -> None:
    seen: list[Any] = []
    for _ in range(2):
        own = start()
        own.sandbox.fault("500", times=0, probability=0.5, seed=9)
        seen.append([own.get("account").status_code for _ in range(20)])
    assert seen[0] == seen[1] and set(seen[0]) == {200, 500}


def test_statistics(own: Client) -> None:
    own.get("leads")
    own.get("leads/21600000")
    own.sandbox.stats()
    assert own.sandbox.stats()["by_path"] == {"GET /api/v4/leads": 1, "GET /api/v4/leads/{id}": 1}
    assert own.sandbox.stats()["user_agents"] == {"test/1": 2}
    own.sandbox.reset_stats()
    assert own.sandbox.stats()["requests"] == 0


def test_the_control_plane_refuses_invalid_requests(own: Client) -> None:
    with pytest.raises(RuntimeError, match="allowed"):
        own.sandbox.fault("nonsense")
    with pytest.raises(RuntimeError, match="allowed"):
        own.sandbox.switch(filter_option="maybe")
    with pytest.raises(RuntimeError, match="allowed"):
        own.sandbox.mutate({"op": "explode"})
