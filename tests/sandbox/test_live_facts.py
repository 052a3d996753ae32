"""What live accounts do (docs/coverage.md, "Known from live accounts"): every row of the collected table is a
record, an answer, a switch or a fault of the sandbox. One check per row, by its number."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from sandbox.account.switches import BY_NAME
from sandbox.dataset.channels import _metadata
from sandbox.http.faults import FAULT_KINDS, Fault
from sandbox.webhooks import outbox
from tests.sandbox.client import Client  # type: ignore[import-not-found, unused-ignore]

ROWS = 52
SWITCHES = {1: "talks_list", 3: "talk_events", 4: "talk_contact_place", 5: "odd_keys", 7: "filter_inclusive",
            13: "limit_over_max", 15: "default_order", 17: "free_filters", 18: "next_link", 19: "next_link",
            20: "only_deleted_flag", 24: "webhook_echo", 25: "webhook_settings", 43: "page_rows",
            45: "rate_unit", 46: "block_after", 51: "empty_list"}
"""Row → the switch that turns it off, or on."""
FAULTS = {8: "400system", 9: "402", 10: "404html", 11: "500", 14: "504", 46: "403html", 51: "empty200"}
"""Row → the fault that is it."""
RECORDS = {2, 6, *range(32, 43), 44}
"""Rows that are records (`test_edge_cases.py`, and below)."""
CHECKS: dict[int, Callable[[Client], None]] = {}


def row(*numbers: int) -> Callable[[Callable[[Client], None]], Callable[[Client], None]]:
    def register(check: Callable[[Client], None]) -> Callable[[Client], None]:
        CHECKS.update(dict.fromkeys(numbers, check))
        return check

    return register


@pytest.fixture(scope="module")
def api() -> Iterator[Client]:
    from sandbox.process import SandboxProcess
    with SandboxProcess(scale=60) as process:
        yield Client(process)


def values(api: Client, path: str, type_: str) -> list[Any]:
    return [value for each in api.sandbox.truth(path) for field in each["custom_fields_values"] or []
            if field["field_type"] == type_ for value in field["values"] or []]


def payload(record: dict[str, Any], path: str) -> Any:
    return outbox._payload_fields(path, record)


def test_every_row_of_the_table_is_here() -> None:
    assert set(CHECKS) | SWITCHES.keys() | FAULTS.keys() | RECORDS == set(range(1, ROWS + 1))
    assert set(SWITCHES.values()) <= BY_NAME.keys() and set(FAULTS.values()) <= set(FAULT_KINDS)
    assert Fault("402", lasts=540).lasts == 540 and Fault("504", min_limit=250).min_limit == 250


@row(12)
def a_deleted_lead_refuses_writes_with_code_226(api: Client) -> None:
    lead = api.sandbox.truth("leads")[-1]["id"]
    api.sandbox.mutate({"op": "delete", "list": "leads", "id": lead})
    refused = api.send("PATCH", f"leads/{lead}", {"name": "x"})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, 226)


@row(16)
def some_orders_are_known_and_others_are_not(api: Client) -> None:
    """Contacts and companies by name, which live accounts know, is not imitated."""
    for path, name in (("contacts", "created_at"), ("leads/notes", "created_at"),
                       ("tasks", "updated_at")):
        times = [each["updated_at"] for each in api.rows(path, limit=250, **{f"order[{name}]": "desc"})]
        assert times == sorted(times, key=float) and len(set(times)) > 1


@row(21, 22)
def what_is_declined_or_deleted_is_in_the_bin(api: Client) -> None:
    item = next(each for each in api.sandbox.truth("leads/unsorted") if each["_embedded"]["leads"])
    lead = item["_embedded"]["leads"][0]["id"]
    api.sandbox.mutate({"op": "decline", "uid": item["uid"]})
    binned = {each["id"]: each for each in api.rows("leads", **{"with": "only_deleted"})}
    assert binned[lead]["pipeline_id"] == item["pipeline_id"] and binned[lead]["is_deleted"] is True


@row(23)
def an_incoming_lead_names_the_company_that_it_belongs_to(api: Client) -> None:
    assert any(each["_embedded"]["companies"] for each in api.sandbox.truth("leads/unsorted"))


@row(26)
def hooks_of_elements(api: Client) -> None:
    element = next(each for each in api.sandbox.truth("catalogs/11805/elements")
                   if any(field["field_type"] == "items" for field in each["custom_fields_values"] or []))
    body = outbox.form_body("update", "catalogs", outbox._element_payload(element)).decode()
    assert f"catalogs%5Bupdate%5D%5B0%5D%5Bid%5D={element['id']}" in body
    assert "%5Bvalues%5D%5B0%5D%5Bvalue%5D%5Bunit_price%5D" in body
    assert outbox._setting_code("update", "catalogs") == "update_lead"


@row(27, 28)
def hooks_of_incoming_leads(api: Client) -> None:
    item = next(each for each in api.sandbox.truth("leads/unsorted") if each["_embedded"]["leads"])
    lead, fields = str(item["_embedded"]["leads"][0]["id"]), payload(item, "leads/unsorted")
    assert fields["uid"] == item["uid"] and fields["lead_id"] == lead
    assert fields["data"] == {"leads": {"id": lead}}
    outcome: Any = outbox.unsorted_outcome("accept", item)
    assert outcome["accept_result"]["leads"] == {"0": lead}


@row(29)
def hooks_of_notes(api: Client) -> None:
    notes = {each["note_type"]: each for each in api.sandbox.truth("leads/notes")}
    for type_, number in (("common", "4"), ("call_in", "10"), ("call_out", "11")):
        said: Any = outbox._note_payload("leads", notes[type_])["note"]
        assert (said["note_type"], said["element_id"]) == (number, str(notes[type_]["entity_id"]))
        assert said["timestamp_x"][4] == "-" and ('"UNIQ"' in said.get("text", "")) == (type_ != "common")


@row(30)
def hooks_of_messages_can_be_delivered_as_they_are(api: Client) -> None:
    api.sandbox.deliver("http://127.0.0.1:9/", "outgoing_message[add][0][talk_id]=3381")
    assert api.sandbox.delivery_counts()["sent"] >= 1


@row(31)
def hooks_of_updated_leads(api: Client) -> None:
    said = {each["id"]: payload(each, "leads") for each in api.sandbox.truth("leads")}
    assert {"name" in fields for fields in said.values()} == {True, False}
    assert any({"id", "name"} == set(fields["tags"]["0"]) for fields in said.values() if "tags" in fields)
    first = [field["values"]["0"] for fields in said.values()
             for field in (fields.get("custom_fields") or {}).values()]
    assert {type(value) for value in first} == {str, dict}


@row(47)
def a_missing_user_is_404_and_other_records_are_204(api: Client) -> None:
    assert [api.get(f"{path}/1").status_code for path in ("leads", "contacts", "leads/notes", "users")] == [
        204, 204, 204, 404]


@row(48)
def bots(api: Client) -> None:
    shown = api.get("bots", **{"with": "favorite"}).json()["_embedded"]["items"]
    assert shown[0] | {"id": 0, "name": ""} == {"id": 0, "name": "", "type_functionality": "regular",
                                                "is_visual_editor": True, "settings": {"active": True},
                                                "is_favorite": True}
    assert "is_favorite" not in api.get("bots").json()["_embedded"]["items"][0]


@row(49, 50)
def deletions_are_refused(api: Client) -> None:
    def delete(path: str) -> tuple[int, str]:
        answer = api.send("DELETE", path, None)
        return answer.status_code, answer.text

    assert delete("tasks/5")[0] == 403 and "Invalid scope" in delete("tasks/5")[1]
    assert [delete(path)[0] for path in ("leads/notes/5", "catalogs/11803/elements/5")] == [405, 405]
    assert delete("calls")[0] == 404 and "Cannot DELETE" in delete("calls")[1]
    pipeline = api.sandbox.truth("leads/pipelines")[0]
    full, empty = pipeline["id"], 77
    api.sandbox.mutate({"op": "create", "list": "leads/pipelines", "record": pipeline | {"id": empty}})
    assert (delete(f"leads/pipelines/{full}")[0], delete(f"leads/pipelines/{empty}")[0]) == (422, 204)
    assert delete(f"leads/pipelines/{empty}")[0] == 400


@row(52)
def phones_of_incoming_calls(api: Client) -> None:
    found = {type(_metadata(Random(1), at)["sip"]["from"]) for at in (1_790_000_000, 1_790_000_001)}
    assert found == {str, int}


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_the_sandbox_does_what_the_row_says(number: int, api: Client) -> None:
    CHECKS[number](api)


def test_records_that_the_rows_show(api: Client) -> None:
    assert all("is_deleted" in each["value"] for each in values(api, "leads", "file"))
    assert values(api, "contacts", "org_legal_name"), "still filled on old accounts"
    assert any("add_unsorted" in each["settings"] for each in api.sandbox.truth("webhooks"))
