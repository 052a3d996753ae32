"""Envelopes, pagination, filters, orders and rights of lists, compared with the control plane's truth."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sandbox.account.lists import LISTS
from tests.sandbox.client import Client  # type: ignore[import-not-found, unused-ignore]

WITH = {spec.path: ",".join(spec.with_) for spec in LISTS}
PLAIN = [spec for spec in LISTS
         if "{" not in spec.path and spec.path not in ("files", "talks", "customers/segments")]


def canonical(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@pytest.mark.parametrize("spec", PLAIN, ids=lambda spec: spec.path)
def test_a_walk_collects_the_truth(api: Client, spec: Any) -> None:
    truth = api.sandbox.truth(spec.path)
    assert truth, "the company has at least one of everything"
    walked = api.rows(spec.path, limit=50, **{"with": WITH[spec.path]})
    assert canonical(walked) == canonical(truth)


@pytest.mark.parametrize("kind", ["custom_fields", "custom_fields/groups", "elements"])
def test_lists_under_a_catalog(api: Client, kind: str) -> None:
    for catalog in api.ids("catalogs"):
        path = f"catalogs/{catalog}/{kind}"
        assert canonical(api.rows(path, **{"with": "invoice_link"})) == canonical(api.sandbox.truth(path))
    assert api.get(f"catalogs/1/{kind}").status_code == 404


def test_the_envelope_of_a_middle_page(api: Client) -> None:
    response = api.get("leads", limit=50, page=2, **{"order[id]": "asc"})
    body = response.json()
    assert response.headers["content-type"] == "application/hal+json"
    assert (body["_page"] == 2 and set(body["_links"]) == {"self", "next", "first", "prev"}
            and "_total_items" not in body)
    query = parse_qs(urlsplit(body["_links"]["next"]["href"]).query)
    assert query == {"limit": ["50"], "page": ["3"], "order[id]": ["asc"]}
    hosts = {urlsplit(link["href"]).netloc for page in range(2, 5)
             for link in api.get("leads", limit=50, page=page).json()["_links"].values()}
    assert "shard152.amocrm.ru" in hosts and not any(host.startswith("127.0.0.1") for host in hosts)


def test_directories_have_totals(api: Client) -> None:
    fields = api.get("leads/custom_fields").json()
    assert (
        fields["_total_items"] > 50 and fields["_page_count"] == 2 and "last" in fields["_links"]
        and len(fields["_embedded"]["custom_fields"]) == 50
    )
    assert api.get("leads/pipelines").json()["_total_items"] == len(api.sandbox.truth("leads/pipelines"))


def test_no_content_is_204(api: Client) -> None:
    for path, params in (("leads", {"page": 999}), ("leads/1", {}), ("leads", {"filter[id]": 1}),
                         ("tasks", {"page": 99}), ("leads/1/links", {})):
        response = api.get(path, **params)
        assert (response.status_code, response.content) == (204, b""), path
    assert api.get("leads/no_such_thing").status_code in (204, 404)
    assert api.get("talks/1").status_code == api.get("widgets/none").status_code == api.get(
        "leads/1/subscriptions").status_code == 404


def test_bad_requests_are_problems(api: Client) -> None:
    response = api.get("leads", limit="many")
    assert (response.status_code == 400
            and response.json()["validation-errors"][0]["errors"][0]["path"] == "limit")
    assert response.headers["content-type"] == "application/problem+json"
    assert api.send("DELETE", "leads", []).status_code == 405
    assert api.get("events", **{"filter[entity_id]": 1}).status_code == 400


@pytest.mark.parametrize("path", ["leads", "contacts", "companies", "customers"])
@pytest.mark.parametrize("name", ["updated_at", "created_at"])
def test_ranges_take_both_ends(api: Client, path: str, name: str) -> None:
    times = sorted(row[name] for row in api.sandbox.truth(path))
    low, high = times[len(times) // 4], times[len(times) // 2]
    found = api.rows(path, limit=50, **{f"filter[{name}][from]": low, f"filter[{name}][to]": high})
    assert sorted(row[name] for row in found) == [moment for moment in times if low <= moment <= high]


def test_filters_by_value(api: Client) -> None:
    truth = api.sandbox.truth("leads")
    user, lead = truth[20]["responsible_user_id"], truth[30]
    assert set(api.ids("leads", **{"filter[responsible_user_id]": user})) == {
        row["id"] for row in truth if row["responsible_user_id"] == user}
    assert api.ids("leads", **{"filter[id][]": [truth[0]["id"], truth[5]["id"], 1]}) == [
        truth[0]["id"], truth[5]["id"]]
    status = {"filter[statuses][0][pipeline_id]": lead["pipeline_id"],
              "filter[statuses][0][status_id]": lead["status_id"]}
    assert set(api.ids("leads", **status)) == {
        row["id"] for row in truth
        if (row["pipeline_id"], row["status_id"]) == (lead["pipeline_id"], lead["status_id"])}  # fmt: skip


def test_raw_and_encoded_brackets_mean_the_same(api: Client) -> None:
    ident = api.sandbox.truth("leads")[7]["id"]
    raw = api.session.get(f"{api.sandbox.url}/api/v4/leads?filter[id][0]={ident}")
    encoded = api.session.get(f"{api.sandbox.url}/api/v4/leads?filter%5Bid%5D%5B%5D={ident}")
    assert raw.json()["_embedded"] == encoded.json()["_embedded"]


def test_scalar_updated_at(api: Client) -> None:
    assert api.get("leads", **{"filter[updated_at]": 1}).status_code == 204
    tasks = api.sandbox.truth("tasks")
    moment = sorted(task["updated_at"] for task in tasks)[len(tasks) // 2]
    assert set(api.ids("tasks", **{"filter[updated_at]": moment})) == {task["id"] for task in tasks
                                                                       if task["updated_at"] >= moment}


@pytest.mark.parametrize(("path", "name"), [("leads", "updated_at"), ("leads", "created_at"),
                                            ("tasks", "complete_till"), ("contacts", "updated_at")])
def test_orders(api: Client, path: str, name: str) -> None:
    for direction in ("asc", "desc"):
        found = [row[name] for row in api.rows(path, limit=100, **{f"order[{name}]": direction})]
        assert found == sorted(found, reverse=direction == "desc") and len(found) == len(
            api.sandbox.truth(path))


@pytest.mark.parametrize("spec", [spec for spec in PLAIN if spec.limit and spec.path != "events"],
                         ids=lambda spec: spec.path)
@pytest.mark.parametrize("order", [{}, {"order[no_such_field]": "desc"}, {"order[id]": "sideways"}],
                         ids=["none", "field", "direction"])
def test_an_unknown_order_is_updated_at_ascending(api: Client, spec: Any, order: dict[str, str]) -> None:
    """live-facts.md 15 and 16; incoming leads are always newest first."""
    rows = api.rows(spec.path, limit=50, **order)
    times = [row.get("updated_at", 0) for row in rows]
    if spec.path == "leads/unsorted":
        times = [-row["created_at"] for row in rows]
    assert times == sorted(times) and rows


@pytest.mark.parametrize("spec", [spec for spec in PLAIN if spec.filters], ids=lambda spec: spec.path)
def test_an_unknown_filter_is_ignored(api: Client, spec: Any) -> None:
    """live-facts.md 17."""
    assert api.rows(spec.path, limit=50, **{"filter[no_such_field]": 1}) == api.rows(spec.path, limit=50)


def test_with_reveals_its_part_only(api: Client) -> None:
    lead = next(row for row in api.sandbox.truth("leads") if row["_embedded"]["loss_reason"])
    bare, some = api.get(f"leads/{lead['id']}").json(), api.get(f"leads/{lead['id']}",
                                                                **{"with": "loss_reason,contacts"}).json()
    assert set(bare["_embedded"]) == {"tags", "companies"} and "source_id" not in bare
    assert set(some["_embedded"]) == {"tags", "companies", "contacts", "loss_reason"} and isinstance(
        some["_embedded"]["loss_reason"], list)
    assert "_embedded" not in api.get("users").json()["_embedded"]["users"][0]
    assert "_embedded" not in api.get("account").json() and "drive_url" not in api.get("account").json()
    assert api.get("account",
                   **{"with": "users_groups,drive_url"}).json()["drive_url"] == f"{api.sandbox.url}/drive"


def test_a_manager_sees_own_rows_only(api: Client) -> None:
    me = api.sandbox.manager_id
    manager = type(api)(api.sandbox, api.sandbox.manager_token)
    for path in ("leads", "contacts", "companies", "tasks"):
        truth = api.sandbox.truth(path)
        assert set(manager.ids(path, limit=250)) == {row["id"] for row in truth if row["responsible_user_id"]
                                                     == me} != {row["id"] for row in truth}
    other = next(row for row in api.sandbox.truth("leads") if row["responsible_user_id"] != me)
    assert manager.get(f"leads/{other['id']}").status_code == 204
    assert 0 < len(manager.rows("events", limit=100)) < len(api.sandbox.truth("events"))
    for path in ("users", "roles", "webhooks", "sources", "website_buttons", "chats/templates",
                 "contacts/chats"):
        response = manager.get(path)
        assert (response.status_code == 403
                and response.headers["content-type"] == "application/problem+json"), path
    assert manager.get("account").json()["current_user_id"] == me


def test_sublists(api: Client) -> None:
    note = api.sandbox.truth("leads/notes")[0]
    owner = note["entity_id"]
    expected = {row["id"] for row in api.sandbox.truth("leads/notes") if row["entity_id"] == owner}
    assert set(api.ids(f"leads/{owner}/notes")) == set(api.ids("leads/notes",
                                                               **{"filter[entity_id][]": owner})) == expected
    bought = api.sandbox.truth("customers/transactions")[0]
    assert bought["id"] in api.ids(f"customers/{bought['customer_id']}/transactions")
    assert api.get(
        f"customers/{bought['customer_id']}/transactions/{bought['id']}").json()["price"] == bought["price"]


def test_links(api: Client) -> None:
    lead = next(row for row in api.sandbox.truth("leads")
                if len(row["_embedded"]["contacts"]) == 2 and row["_embedded"]["companies"])
    rows = api.get(f"leads/{lead['id']}/links").json()["_embedded"]["links"]
    linked = {(row["to_entity_type"], row["to_entity_id"]) for row in rows}
    assert linked >= {("contacts", ref["id"]) for ref in lead["_embedded"]["contacts"]} | {
        ("companies", lead["_embedded"]["companies"][0]["id"])}
    assert [row["metadata"]["main_contact"] for row in rows if row["to_entity_type"] == "contacts"] == [
        True, False]
    mass = api.get("leads/links", **{"filter[entity_id][]": [lead["id"], 1]}).json()["_embedded"]["links"]
    assert mass == [{"entity_id": lead["id"], "entity_type": "leads"} | row for row in rows]
    assert api.get("leads/links").status_code == 400


def test_events_are_newest_first_and_filtered(api: Client) -> None:
    times = [row["created_at"] for row in api.rows("events", limit=100)]
    assert times == sorted(times, reverse=True)
    assert len(api.get("events", limit=250).json()["_embedded"]["events"]) == 100
    chat = api.rows("events", **{"filter[type]": "incoming_chat_message"})[0]
    assert chat["entity_type"] == "lead"
    assert chat["id"] in api.ids("events", **{"filter[entity][]": "contact", "limit": 100})
    assert chat["id"] not in api.ids("events", **{"filter[entity][]": "lead", "limit": 100})
    assert api.get(f"events/{chat['id']}", **{"with": "lead_name"}).json()["_embedded"]["entity"]["name"]


def test_status_events_form_a_chain_that_ends_at_the_record(api: Client) -> None:
    leads = {row["id"]: row for row in api.sandbox.truth("leads")}
    last: dict[int, dict[str, Any]] = {}
    for event in sorted(api.sandbox.truth("events"), key=lambda event: (event["created_at"], event["id"])):
        if event["type"] == "lead_status_changed":
            if event["entity_id"] in last:
                assert event["value_before"] == last[event["entity_id"]]["value_after"]
            last[event["entity_id"]] = event
    assert len(last) > 100
    for ident, event in last.items():
        status = event["value_after"][0]["lead_status"]
        assert (status["id"], status["pipeline_id"]) == (leads[ident]["status_id"],
                                                         leads[ident]["pipeline_id"])


def test_the_drive(api: Client) -> None:
    files = {row["uuid"]: row for row in api.sandbox.truth("files")}
    live = api.get("/drive/v1.0/files", limit=250).json()
    assert {row["uuid"] for row in live["_embedded"]["files"]} == {uuid for uuid, row in files.items()
                                                                   if not row["is_trashed"]}
    assert live["_count"] == len(live["_embedded"]["files"])
    deleted = api.get("/drive/v1.0/files", **{"filter[deleted]": 1}).json()["_embedded"]["files"]
    assert {row["uuid"] for row in deleted} == {uuid for uuid, row in files.items() if row["is_trashed"]}
    held = api.sandbox.truth("leads/files")[0]
    listed = api.get(f"leads/{held['entity_id']}/files", limit=1).json()
    assert listed["_embedded"]["files"][0]["id"] >= held["id"]
    entities = api.get(f"files/{held['file_uuid']}/links").json()["entities"]
    assert ("leads", held["entity_id"]) in {(row["entity_type"], row["id"]) for row in entities}
    assert api.get("/drive/v1.0/files/00000000-0000-0000-0000-000000000000").status_code == api.get(
        "leads/1/files").status_code == 404


def test_the_same_seed_gives_the_same_bytes(start: Callable[..., Client]) -> None:
    first, second, other = (start(seed=seed, now="2026-11-22T12:00:00+00:00").sandbox for seed in (3, 3, 4))
    kinds = first.list_counts()
    assert kinds == second.list_counts()
    for path in set(kinds) - {"account"}:
        assert first.truth_lines(path) == second.truth_lines(path), path
    assert first.truth_lines("leads") != other.truth_lines("leads")
    assert first.client_id == second.client_id != other.client_id
