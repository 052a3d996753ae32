"""Switches for unconfirmed behaviours, each with more than one value (API section 6)."""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.sandbox.client import Client  # type: ignore[import-not-found, unused-ignore]


def fields(rows: list[dict[str, Any]], type_: str) -> list[Any]:
    return [value for row in rows for field in row["custom_fields_values"] or []
            if field["field_type"] == type_ for value in field["values"] or []]


def test_every_switch_is_described(own: Client) -> None:
    listed = own.sandbox.control("GET", "switches")
    assert len(listed) > 50 and all(item["meaning"] and item["allowed"] and item["value"] == item["default"]
                                    for item in listed)
    assert {item["row"] for item in listed} >= set(range(1, 56)) - {6, 9, 10, 22, 24, 35, 40, 49, 52} - {
        44, 45, 46, 54, 55}


def test_filter_option(own: Client) -> None:
    window = {"filter[updated_at][from]": 1, "filter[updated_at][to]": 2, "limit": 250}
    assert own.get("leads", **window).status_code == 204
    own.sandbox.switch(filter_option="ignore")
    assert len(own.rows("leads", **window)) == 60
    assert own.get("account", **{"with": "is_api_filter_enabled"}).json()["is_api_filter_enabled"] is False
    assert own.get("tasks",
                   **{"filter[updated_at][to]": 2}).status_code == 204, "tasks are not part of the option"
    own.sandbox.switch(filter_option="refuse")
    assert own.get("leads", **window).status_code == 403


def test_filter_inclusive(own: Client) -> None:
    moment = own.sandbox.truth("contacts")[5]["updated_at"]
    one = {"filter[updated_at][from]": moment, "filter[updated_at][to]": moment}
    for position, status in (("both", 200), ("from", 204), ("to", 204), ("none", 204)):
        own.sandbox.switch(filter_inclusive=position)
        assert own.get("contacts", **one).status_code == status, position


def test_paging_switches(start: Callable[..., Client]) -> None:
    own = start(scale=300)
    assert len(own.get("leads", limit=500).json()["_embedded"]["leads"]) == 250
    own.sandbox.switch(limit_over_max="fallback50", max_page=2, custom_fields_cap=250)
    assert len(own.get("leads", limit=500).json()["_embedded"]["leads"]) == 50
    assert own.get("leads", page=2).status_code == 200 and own.get("leads", page=3).status_code == 400
    assert len(own.get("leads/custom_fields", limit=250).json()["_embedded"]["custom_fields"]) > 50
    own.sandbox.switch(max_page=0, max_filter_ids=2)
    assert own.get("leads", **{"filter[id][]": [1, 2, 3]}).status_code == 400


def test_orders(own: Client) -> None:
    own.sandbox.switch(default_order="asc")
    ascending = own.ids("leads")
    own.sandbox.switch(default_order="desc")
    assert own.ids("leads") == ascending[::-1]
    own.sandbox.switch(default_order="shuffled", events_order="asc", customers_order="honour")
    shuffled = own.ids("leads")
    assert shuffled not in (ascending, ascending[::-1]) and sorted(shuffled) == ascending
    times = [row["created_at"] for row in own.rows("events", limit=100)]
    assert times == sorted(times)
    moments = [row["updated_at"] for row in own.rows("customers", **{"order[updated_at]": "desc"})]
    assert moments == sorted(moments, reverse=True)


def test_pages_smaller_than_asked_for_and_what_they_link_to(own: Client) -> None:
    own.sandbox.switch(page_rows=20)
    truth = {row["id"] for row in own.sandbox.truth("leads")}
    first = own.get("leads", limit=250).json()
    assert len(first["_embedded"]["leads"]) == 20 and "next" in first["_links"]
    assert set(own.ids("leads", limit=250)) == truth
    own.sandbox.switch(next_link="missing")
    assert "next" not in own.get("leads", limit=250).json()["_links"]
    own.sandbox.switch(next_link="always", past_end="last")
    last = own.get("leads", page=3).json()
    assert own.get("leads", page=999).json()["_embedded"] == last["_embedded"] and "next" in last["_links"]
    assert "next" in own.get("leads/pipelines").json()["_links"]


def test_ignored_orders_and_filters(own: Client) -> None:
    own.sandbox.switch(id_order="ignore", free_filters="ignore", unsorted_order="honour")
    found = own.rows("tasks", limit=250, **{"order[id]": "desc", "filter[id]": 1})
    assert [row["updated_at"] for row in found] == sorted(row["updated_at"] for row in found)
    assert len(found) == len(own.sandbox.truth("tasks"))
    times = [row["created_at"] for row in own.rows("leads/unsorted", **{"order[created_at]": "asc"})]
    assert times == sorted(times)


@pytest.mark.parametrize("skew", [-86400, 2400])
def test_the_clock_of_the_account(start: Callable[..., Client], skew: int) -> None:
    own = start(scale=20, switches={"clock_skew": str(skew)})
    date = parsedate_to_datetime(own.get("account").headers["Date"]).timestamp()
    assert date - time.time() == pytest.approx(skew, abs=5)
    times = [row["updated_at"] for row in own.sandbox.truth("leads")]
    assert sum(at > date for at in times) <= 2, "two edge cases lie in the future"
    assert max(at for at in times if at <= date) > date - 30 * 86400


def test_empty_lists(own: Client) -> None:
    own.sandbox.switch(empty_list=200)
    answer = own.get("tasks", page=99)
    assert answer.status_code == 200 and answer.json()["_embedded"] == {"tasks": []}


def test_shapes_of_leads(own: Client) -> None:
    asked = {"with": "loss_reason,contacts,source,source_id,catalog_elements,is_price_modified_by_robot",
             "limit": 250}
    own.sandbox.switch(minor_units="absent", loss_reason_shape="object", loss_reason_none="0",
                       numeric_form="number", date_form="string")
    rows = own.rows("leads", **asked)
    assert (not any("price_with_minor_units" in row for row in rows)
            and all(row["loss_reason_id"] is not None for row in rows))
    assert {type(row["_embedded"]["loss_reason"]) for row in rows} == {dict, type(None)}
    assert {type(value["value"]) for value in fields(rows, "numeric")} <= {int, float} and {
        type(value["value"]) for value in fields(rows, "date")
    } == {str}
    own.sandbox.switch(omit_attributes=0.3)
    assert len({len(row) for row in own.rows("leads", **asked)}) > 3
    assert any("price_with_minor_units" in row for row in own.sandbox.truth("leads")), "the truth stays whole"


def test_truncated_links(start: Callable[..., Client]) -> None:
    own = start(scale=200)
    lead = max(own.sandbox.truth("leads"), key=lambda row: len(row["_embedded"]["contacts"]))
    own.sandbox.switch(embedded_truncate=50, links_truncate="paged")
    assert len(own.get(f"leads/{lead['id']}", **{"with": "contacts"}).json()["_embedded"]["contacts"]) == 50
    pages = [own.get(f"leads/{lead['id']}/links", page=page).json() for page in (1, 2)]
    rows = [row for page in pages for row in page["_embedded"]["links"]]
    assert len(pages[0]["_embedded"]["links"]) == 50 and pages[0]["_total_items"] == len(rows) > 60


@pytest.mark.parametrize("mode", ["disabled", "unavailable"])
def test_customers_off(own: Client, mode: str) -> None:
    own.sandbox.switch(customers_mode=mode)
    for status in (402, 403, 422, 425, 426, 204):
        own.sandbox.switch(customers_off_status=status)
        assert own.get("customers").status_code == own.get("customers/transactions").status_code == status
    assert own.get("account").json()["customers_mode"] == mode and own.sandbox.truth("customers") == []


def test_customers_modes(own: Client) -> None:
    assert own.get("customers/segments").status_code == 422 and own.get(
        "customers/statuses").status_code == 200
    own.sandbox.switch(customers_mode="segments")
    assert own.get("customers/segments").status_code == 200 and own.get(
        "customers/statuses").status_code == 422
    assert len(own.rows("customers/segments")) == len(own.sandbox.truth("customers/segments")) == 3


def test_missing_endpoints_and_agents(own: Client) -> None:
    own.sandbox.switch(loss_reasons_endpoint=404, bots=403, require_user_agent="on", hide_archived="on",
                       unsorted_status="without")
    assert own.get("leads/loss_reasons").status_code == 404 and own.get("bots").status_code == 403
    pipelines = own.rows("leads/pipelines")
    assert not any(pipeline["is_archive"] for pipeline in pipelines)
    assert not any(status["type"] == 1 for pipeline in pipelines
                   for status in pipeline["_embedded"]["statuses"])
    own.session.headers["User-Agent"] = ""
    assert own.get("account").status_code == 403


def test_nasty_bytes(own: Client) -> None:
    assert own.get("leads", limit=250).json()
    own.sandbox.switch(nasty="on")
    body = own.get("leads", limit=250).content
    assert b"\\ud83d" in body and b"1e400" in body


def test_drive_paging(own: Client) -> None:
    own.sandbox.switch(drive_paging="offset", drive_deleted="inclusive")
    everything = own.get("/drive/v1.0/files", limit=5, **{"filter[deleted]": 1}).json()
    assert (everything["_count"] == len(own.sandbox.truth("files"))
            and "offset=5" in everything["_links"]["next"]["href"])
