"""Effects of a change on the record, on linked records and on events; drift, random changes, writes,
webhooks."""

import http.server
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.sandbox.client import Client  # type: ignore[import-not-found, unused-ignore]


def one(own: Client, path: str, ident: Any) -> dict[str, Any]:
    return next(row for row in own.sandbox.truth(path) if row["id"] == ident)


def events(own: Client, since: set[str]) -> list[tuple[str, int]]:
    return [(row["type"], row["entity_id"]) for row in own.sandbox.truth("events") if row["id"] not in since]


def known(own: Client) -> set[str]:
    return {row["id"] for row in own.sandbox.truth("events")}


def lead_of(own: Client) -> dict[str, Any]:
    return next(
        row
        for row in own.sandbox.truth("leads")[20:]
        if row["_embedded"]["contacts"] and row["_embedded"]["companies"] and row["custom_fields_values"]
    )


def test_own_attributes_move_updated_at(own: Client) -> None:
    lead, before = lead_of(own), known(own)
    own.sandbox.mutate({"op": "patch", "list": "leads", "id": lead["id"],
                        "set": {"name": "Новое", "price": 5}})
    changed = one(own, "leads", lead["id"])
    assert ((changed["name"], changed["price"], changed["price_with_minor_units"]) == ("Новое", 5, 5.0)
            and changed["updated_at"] > lead["updated_at"])
    assert set(events(own, before)) == {("name_field_changed", lead["id"]),
                                        ("sale_field_changed", lead["id"])}
    assert own.ids("leads", **{"order[updated_at]": "desc",
                               "filter[updated_at][from]": changed["updated_at"]})[-1] == lead["id"]
    own.sandbox.mutate({"op": "patch", "list": "leads", "id": lead["id"], "set": {"price": 6},
                        "updated_at": 1500000000})
    assert one(own, "leads", lead["id"])["updated_at"] == 1500000000


def test_links_and_tags_move_updated_at_only_on_request(own: Client) -> None:
    lead, contact = lead_of(own), own.sandbox.truth("contacts")[40]
    before = known(own)
    ops = [
        {"op": "link", "list": "leads", "id": lead["id"], "to": "contacts", "to_id": contact["id"]},
        {"op": "tag", "list": "leads", "id": lead["id"], "tag": "x;y"},
    ]
    own.sandbox.mutate(*ops)
    after = one(own, "leads", lead["id"])
    assert after["updated_at"] == lead["updated_at"] and "x;y" in [tag["name"]
                                                                   for tag in after["_embedded"]["tags"]]
    assert contact["id"] in [ref["id"] for ref in after["_embedded"]["contacts"]]
    assert lead["id"] in [ref["id"] for ref in one(own, "contacts", contact["id"])["_embedded"]["leads"]]
    assert events(own, before) == [("contact_linked", lead["id"]), ("lead_linked", contact["id"]),
                                   ("entity_tag_added", lead["id"])]
    own.sandbox.switch(updated_at_moves_on="link,tag")
    own.sandbox.mutate({"op": "unlink", "list": "leads", "id": lead["id"], "to": "contacts",
                        "to_id": contact["id"]})
    assert one(own, "leads", lead["id"])["updated_at"] > lead["updated_at"]
    assert lead["id"] not in [ref["id"] for ref in one(own, "contacts", contact["id"])["_embedded"]["leads"]]


def test_delete_restore_vanish(own: Client) -> None:
    lead, before = lead_of(own), known(own)
    contact = lead["_embedded"]["contacts"][0]["id"]
    own.sandbox.mutate({"op": "delete", "list": "leads", "id": lead["id"]})
    assert own.get(f"leads/{lead['id']}").status_code == 204 and lead["id"] not in own.ids("leads")
    (skeleton,) = own.rows("leads", **{"with": "only_deleted"})
    assert (skeleton["id"] == lead["id"] and skeleton["is_deleted"] is True and skeleton["name"] is None
            and skeleton["updated_at"])
    assert lead["id"] not in [ref["id"] for ref in one(own, "contacts", contact)["_embedded"]["leads"]]
    own.sandbox.mutate({"op": "restore", "list": "leads", "id": lead["id"]})
    assert one(own, "leads", lead["id"])["name"] == lead["name"] and own.get(
        "leads", **{"with": "only_deleted"}).status_code == 204
    assert lead["id"] in [ref["id"] for ref in one(own, "contacts", contact)["_embedded"]["leads"]]
    assert events(own, before) == [("lead_deleted", lead["id"]), ("lead_restored", lead["id"])]
    before = known(own)
    own.sandbox.mutate({"op": "vanish", "list": "leads", "id": lead["id"]})
    assert own.get(f"leads/{lead['id']}").status_code == 204 and events(own, before) == []


def test_moves_and_values(own: Client) -> None:
    lead, before = lead_of(own), known(own)
    field = own.sandbox.truth("leads/custom_fields")[0]["id"]
    reason = own.sandbox.truth("leads/loss_reasons")[0]
    own.sandbox.mutate(
        {"op": "move", "id": lead["id"], "status_id": 143, "pipeline_id": 6820158,
         "loss_reason_id": reason["id"]},
        {"op": "set_field", "list": "leads", "id": lead["id"], "field_id": field,
         "values": [{"value": "да"}]},
    )
    after = one(own, "leads", lead["id"])
    assert (after["status_id"], after["pipeline_id"],
            after["_embedded"]["loss_reason"]) == (143, 6820158, [reason]) and after["closed_at"]
    assert [found["values"] for found in after["custom_fields_values"] if found["field_id"] == field] == [
        [{"value": "да"}]]
    assert events(own, before) == [("lead_status_changed", lead["id"]),
                                   (f"custom_field_{field}_value_changed", lead["id"])]
    own.sandbox.mutate({"op": "clear_field", "list": "leads", "id": lead["id"], "field_id": field})
    assert field not in [found["field_id"] for found in one(own, "leads", lead["id"])["custom_fields_values"]]


def test_labels_change_without_touching_records(own: Client) -> None:
    leads, fields = own.sandbox.truth("leads"), own.sandbox.truth("leads/custom_fields")
    select = next(field for field in fields
                  if field["type"] == "select" and any(_chose(row, field["id"]) for row in leads))
    lead = next(row for row in leads if _chose(row, select["id"]))
    option = _chose(lead, select["id"])["enum_id"]
    before = known(own)
    own.sandbox.mutate(
        {"op": "rename_field", "list": "leads", "field_id": select["id"], "name": "Иначе"},
        {"op": "rename_option", "list": "leads", "field_id": select["id"], "enum_id": option, "value": "Бук"},
    )
    after = one(own, "leads", lead["id"])
    assert (_chose(after, select["id"])["value"] == "Бук" and after["updated_at"] == lead["updated_at"]
            and events(own, before) == [])
    assert [found["field_name"] for found in after["custom_fields_values"]
            if found["field_id"] == select["id"]] == ["Иначе"]
    own.sandbox.mutate({"op": "remove_field", "list": "leads", "field_id": select["id"]})
    assert not any(_chose(row, select["id"]) for row in own.sandbox.truth("leads"))


def test_labels_change_where_the_fields_id_is_quoted_too(own: Client) -> None:
    lead, field = next((lead["id"], found["field_id"]) for lead in own.sandbox.truth("leads")
                       for found in lead["custom_fields_values"] or [] if isinstance(found["field_id"], str))
    own.sandbox.mutate({"op": "rename_field", "list": "leads", "field_id": int(field), "name": "Иначе"})
    assert [found["field_name"] for found in one(own, "leads", lead)["custom_fields_values"]
            if found["field_id"] == field] == ["Иначе"]


def _chose(row: dict[str, Any], field: int) -> Any:
    return next((found["values"][0] for found in row["custom_fields_values"] or []
                 if found["field_id"] == field), None)


@pytest.mark.parametrize(("form", "has_delete_event", "binned"),
                         [("none", False, False), ("deleted_event", True, False), ("bin", True, True)])
def test_merge(own: Client, form: str, has_delete_event: bool, binned: bool) -> None:
    first, second = own.sandbox.truth("contacts")[20:22]
    own.sandbox.switch(merge_footprint=form)
    before = known(own)
    own.sandbox.mutate({"op": "merge", "list": "contacts", "id": first["id"], "absorbed": second["id"]})
    left = events(own, before)
    assert ("entity_merged", first["id"]) in left
    assert (("contact_deleted", second["id"]) in left) is has_delete_event
    merged = one(own, "contacts", first["id"])
    assert {ref["id"] for ref in merged["_embedded"]["leads"]} >= {ref["id"]
                                                                   for ref in second["_embedded"]["leads"]}
    assert own.get(f"contacts/{second['id']}").status_code == 204
    assert (second["id"] in own.ids("contacts", **{"with": "only_deleted"})) is binned
    assert not any(ref["id"] == second["id"] for row in own.sandbox.truth("leads")
                   for ref in row["_embedded"]["contacts"])


def test_incoming_leads(own: Client) -> None:
    first, second = own.sandbox.truth("leads/unsorted")[:2]
    hidden, dropped = first["_embedded"]["contacts"][0]["id"], second["_embedded"]["leads"][0]["id"]
    assert own.get(f"contacts/{hidden}").status_code == 204
    own.sandbox.mutate({"op": "accept", "uid": first["uid"]}, {"op": "decline", "uid": second["uid"]})
    assert own.get(f"contacts/{hidden}").json()["is_unsorted"] is False and own.get(
        f"leads/{dropped}").status_code == 204
    assert {row["uid"] for row in own.rows("leads/unsorted")}.isdisjoint({first["uid"], second["uid"]})
    summary = own.get("leads/unsorted/summary").json()
    assert (summary["accepted"], summary["declined"]) == (1, 1)


def test_tasks_move_their_entity(own: Client) -> None:
    lead, before = lead_of(own), known(own)
    (task,) = own.sandbox.mutate(
        {"op": "create", "list": "tasks",
         "record": {"entity_type": "leads", "entity_id": lead["id"], "complete_till": 2000000000}}
    )
    assert (one(own, "leads", lead["id"])["closest_task_at"] is not None
            and one(own, "leads", lead["id"])["updated_at"] == lead["updated_at"])
    own.sandbox.mutate({"op": "complete_task", "id": task, "result": "ок"})
    assert one(own, "tasks", task)["result"] == {"text": "ок"} and events(own, before) == [
        ("task_added", task), ("task_completed", task)]


def test_flagged_deletes(own: Client) -> None:
    first, second = own.sandbox.truth("catalogs/11803/elements")[:2]
    own.sandbox.mutate({"op": "delete", "list": "catalogs/11803/elements", "id": first["id"]})
    own.sandbox.switch(deleted_elements="flagged")
    own.sandbox.mutate({"op": "delete", "list": "catalogs/11803/elements", "id": second["id"]})
    rows = {row["id"]: row for row in own.rows("catalogs/11803/elements", limit=250)}
    assert first["id"] not in rows and rows[second["id"]]["is_deleted"] is True


def _timeless(value: Any) -> Any:
    """Removes times: the clock runs during changes, so two sandboxes may differ by a second or two."""
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    return 0 if isinstance(value, int) and 10**9 < value < 10**10 else value


def test_churn_is_seeded_and_leaves_a_sound_account(start: Callable[..., Client]) -> None:
    both = [start(now="2026-11-22T12:00:00+00:00") for _ in range(2)]
    done = [client.sandbox.apply_random_changes(400, seed=3) for client in both]
    assert [_timeless(item["operations"]) for item in done[0]] == [
        _timeless(item["operations"]) for item in done[1]] and len(done[0]) == 400
    own = both[0]
    assert len({item["kind"] for item in done[0]}) > 20
    for path in ("leads", "contacts", "companies", "customers", "tasks", "leads/notes"):
        assert sorted(own.ids(path, limit=50)) == sorted(row["id"] for row in own.sandbox.truth(path))
    contacts = {row["id"]: row for row in own.sandbox.truth("contacts")}
    pairs = {(row["id"], ref["id"]) for row in own.sandbox.truth("leads")
             for ref in row["_embedded"]["contacts"] if ref["id"] in contacts}
    assert pairs == {(ref["id"], row["id"]) for row in contacts.values() for ref in row["_embedded"]["leads"]}
    stages = {row["id"]: (row["status_id"], row["pipeline_id"]) for row in own.sandbox.truth("leads")}
    last_stages = {}
    for event in sorted(own.sandbox.truth("events"), key=lambda event: (event["created_at"], event["id"])):
        if event["type"] == "lead_status_changed":
            last_stages[event["entity_id"]] = tuple(event["value_after"][0]["lead_status"][name]
                                                    for name in ("id", "pipeline_id"))
    assert {ident: stage for ident, stage in last_stages.items() if ident in stages} == {
        ident: stages[ident] for ident in last_stages if ident in stages}


def test_every_kind_of_churn_happens(own: Client) -> None:
    from sandbox.changes.churn import CHANGES

    own.sandbox.mutate({"op": "delete", "list": "leads", "id": lead_of(own)["id"]})
    for kind in CHANGES:
        own.sandbox.mutate({"op": "incoming"})
        assert own.sandbox.apply_random_changes(1, seed=5, kinds=[kind]), kind


def test_drift_moves_rows_under_a_walk(own: Client) -> None:
    own.sandbox.drift(every=1, seed=1, kinds=["edit"])
    before = [row["updated_at"] for row in own.sandbox.truth("leads")]
    own.ids("leads", limit=5)
    own.sandbox.drift(every=0)
    assert [row["updated_at"] for row in own.sandbox.truth("leads")] != before


def test_writes_through_the_api(own: Client) -> None:
    answer = own.send("POST", "leads", [{"name": "По API", "price": 10, "tags_to_add": [{"name": "api"}]}])
    made = answer.json()["_embedded"]["leads"][0]
    assert set(made) == {"id", "request_id", "updated_at", "_links"}
    assert own.send("PATCH", f"leads/{made['id']}", {"status_id": 142, "custom_fields_values": None,
                                                     "updated_at": 5}).json()["updated_at"] == 5
    lead = one(own, "leads", made["id"])
    assert (lead["name"], lead["status_id"], lead["_embedded"]["tags"][0]["name"]) == ("По API", 142, "api")
    contact = own.sandbox.truth("contacts")[0]["id"]
    body = [{"to_entity_id": contact, "to_entity_type": "contacts", "metadata": {"is_main": True}}]
    assert (
        own.send("POST", f"leads/{made['id']}/link", body).status_code == 200
        and own.send("POST", f"leads/{made['id']}/unlink", body).status_code == 204
    )
    assert own.send("PATCH", "leads/1", {"name": "x"}).status_code == 400


def test_webhooks(own: Client) -> None:
    received: list[dict[str, list[str]]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            received.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = {"destination": f"http://127.0.0.1:{server.server_port}/h",
            "settings": ["update_lead", "delete_lead"]}
    assert own.send("POST", "webhooks", hook).status_code == 201 and len(own.rows("webhooks")) == 2
    assert own.send("POST", "webhooks", hook | {"settings": ["no_such_code"]}).status_code == 400
    lead = lead_of(own)["id"]
    own.sandbox.mutate({"op": "patch", "list": "leads", "id": lead, "set": {"price": 1}})
    deadline = time.monotonic() + 120
    while not received and time.monotonic() < deadline:
        time.sleep(0.02)
    server.shutdown()
    assert received[0]["leads[update][0][id]"] == [str(lead)] and received[0]["account[subdomain]"] == [
        "uralkedr"]
    assert own.send("DELETE", "webhooks", {"destination": hook["destination"]}).status_code == 204
    assert own.send("DELETE", "webhooks", {"destination": "https://nowhere.example"}).status_code == 404
