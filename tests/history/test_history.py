"""History from readings and events, loaded into a real Postgres in every order in which a mirror may see
them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.history.rebuild import consistency
from tests.support.history import START, A, B, C, D, ScriptedAccount, field, is_consistent, lead, open_account


@pytest.fixture
def account(database: str) -> Iterator[ScriptedAccount]:
    with open_account(database) as opened:
        yield opened


def test_a_deal_without_events_was_in_its_stage_since_its_creation(account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(A, 400))
    account.advance()
    assert account.stages() == [(A, 0, None, "created")]
    assert account.responsible() == [(5, 0, None, "created")]
    assert account.rows("SELECT changed_by FROM amocrm.lead_status_history") == [(3,)]
    assert is_consistent(account)


def test_events_give_the_first_stage(account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(C, 300))
    account.load_events(account.status_event(300, B, C), account.status_event(100, A, B))
    account.advance()
    assert account.stages() == [(A, 0, 100, "created"), (B, 100, 300, "event"), (C, 300, None, "event")]
    assert account.rows("SELECT changed_by FROM amocrm.lead_status_history ORDER BY entered_at") == [
        (3,), (5,), (5,)]
    assert is_consistent(account)


def test_a_change_without_an_event_is_observed(account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(A, 400))
    account.advance()
    account.read("leads", 900, lead(B, 700, responsible_user_id=6))
    account.advance()
    assert account.stages() == [(A, 0, 700, "created"), (B, 700, None, "observed")]
    assert account.responsible() == [(5, 0, 700, "created"), (6, 700, None, "observed")]
    assert is_consistent(account)


@pytest.mark.parametrize("updated", [-90_000, 90_000, 400], ids=["backdated", "in the future", "not moved"])
def test_an_implausible_updated_at_is_not_used_as_a_date(account: ScriptedAccount, updated: int) -> None:
    account.read("leads", 500, lead(A, 400))
    account.advance()
    account.read("leads", 900.25, lead(B, updated))
    account.advance()
    assert account.stages() == [(A, 0, 900.25, "created"), (B, 900.25, None, "observed")]
    account.load_events(account.status_event(800, A, B))
    account.advance()
    assert account.stages() == [(A, 0, 800, "created"), (B, 800, None, "event")]
    assert account.observation_count() == 0
    assert is_consistent(account)


def test_a_late_event_replaces_the_observation_that_it_explains_and_no_other(
        account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(A, 400))
    account.advance()
    account.read("leads", 900, lead(B, 700))
    account.read("leads", 1300, lead(C, 1100))
    account.advance()
    assert account.stages() == [(A, 0, 700, "created"), (B, 700, 1100, "observed"),
                                (C, 1100, None, "observed")]
    account.load_events(account.status_event(690, A, B))
    assert account.advance() == 1
    assert account.stages() == [(A, 0, 690, "created"), (B, 690, 1100, "event"), (C, 1100, None, "observed")]
    account.load_events(account.status_event(1100, B, C))
    account.advance()
    assert account.stages() == [(A, 0, 690, "created"), (B, 690, 1100, "event"), (C, 1100, None, "event")]
    assert is_consistent(account)


def test_an_event_undone_by_a_later_one_explains_no_observation(account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(A, 400))
    account.advance()
    account.read("leads", 900, lead(B, 800))
    account.read("leads", 1300, lead(C, 1100))
    account.load_events(account.status_event(600, A, B), account.status_event(650, B, A))
    account.advance()
    assert account.stages() == [(A, 0, 600, "created"), (B, 600, 650, "event"), (A, 650, 800, "event"),
                                (B, 800, 1100, "observed"), (C, 1100, None, "observed")]
    assert is_consistent(account)


def test_a_change_and_its_reversal_without_events_are_two_changes(account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(A, 400))
    account.load_events(account.status_event(400, D, A))
    account.advance()
    account.read("leads", 900, lead(B, 700))
    account.read("leads", 1300, lead(A, 1100))
    account.advance()
    assert account.stages() == [(D, 0, 400, "created"), (A, 400, 700, "event"), (B, 700, 1100, "observed"),
                                (A, 1100, None, "observed")]
    assert is_consistent(account)


def test_of_several_changes_within_one_second_the_last_counts(account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(C, 300))
    account.load_events(account.status_event(200, A, B), account.status_event(200, B, A),
                        account.status_event(300, A, B), account.status_event(300, B, C))
    account.advance()
    assert account.stages() == [(A, 0, 300, "created"), (C, 300, None, "event")]
    assert is_consistent(account)


def test_an_event_newer_than_the_row_wins_and_nothing_is_invented(account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(A, 400))
    account.load_events(account.status_event(520, A, B))
    account.advance()
    assert account.stages() == [(A, 0, 520, "created"), (B, 520, None, "event")]
    assert not any(each.astray for each in consistency(account.connection,
                                                       "amocrm")), "the row lags, that is all"
    account.read("leads", 900, lead(B, 520))
    account.advance()
    assert account.stages() == [(A, 0, 520, "created"), (B, 520, None, "event")]
    assert account.observation_count() == 0
    assert is_consistent(account)


def test_missing_events_leave_a_change_dated_by_the_row(account: ScriptedAccount) -> None:
    account.read("leads", 900, lead(C, 700))
    account.load_events(account.status_event(300, A, B))
    account.advance()
    assert account.stages() == [(A, 0, 300, "created"), (B, 300, 700, "event"), (C, 700, None, "observed")]
    account.read("leads", 2000, lead(C, 1900, name="nothing but a name"))
    account.load_events(account.status_event(650, B, D), account.status_event(2500, C, A))
    account.advance()
    assert account.stages() == [(A, 0, 300, "created"), (B, 300, 650, "event"), (D, 650, 700, "event"),
                                (C, 700, 2500, "observed"), (A, 2500, None, "event")]
    assert is_consistent(account)


def test_a_change_back_without_an_event_is_noticed(account: ScriptedAccount) -> None:
    """The event came while the row stayed as it was: only its updated_at shows that it was read after the
    event."""
    account.read("leads", 500, lead(A, 400))
    account.load_events(account.status_event(600, A, B))
    account.advance()
    account.read("leads", 640, lead(A, 620))
    account.advance()
    assert account.stages() == [(A, 0, 600, "created"), (B, 600, 620, "event"), (A, 620, None, "observed")]
    assert is_consistent(account)


def test_late_partial_and_deleted_readings_are_not_observed(account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(A, 400))
    account.advance()
    account.read("leads", 300, lead(B, 200))
    account.read("leads", 600,
                 {"id": 1, "name": "the other attributes did not come", "updated_at": START + 550})
    account.read("leads", 900, {"id": 1, "updated_at": START + 800, "is_deleted": True})
    account.read("leads", 990, {"id": 2, "updated_at": START + 820, "is_deleted": True, "status_id": None,
                                "responsible_user_id": None})
    account.read("leads", 999, lead(B, 850, number=2))
    account.advance()
    assert account.observation_count() == 0
    assert account.stages() == [(A, 0, None, "created")], "the history of a deleted deal stays"


def test_a_deal_known_from_events_alone_starts_with_the_first_event(account: ScriptedAccount) -> None:
    account.load_events(account.event("lead_added", 50, [{"note": {"id": 1}}], []),
                        account.status_event(300, A, B), account.status_event(400, C, D, record=9))
    account.advance()
    assert account.stages() == [(A, 50, 300, "created"), (B, 300, None, "event")]
    assert account.stages(9) == [(D, 400, None, "event")]


def test_responsible_history_covers_every_kind_and_unassigned_records(account: ScriptedAccount) -> None:
    for place, (name, kind) in enumerate((("contacts", "contact"), ("companies", "company"),
                                          ("customers", "customer"), ("tasks", "task"))):
        account.read(name, 500, {"id": 1, "responsible_user_id": None, "created_at": START + place,
                                 "updated_at": START + 200})
        account.load_events(account.responsible_event(100 + place, 4, None, kind),
                            account.responsible_event(100 + place, 3, 4, "catalog_7"))
    account.advance()
    assert account.responsible() == [(4, place, 100 + place, "created") for place in range(4)] + [
        (None, 100 + place, None, "event") for place in range(4)]
    assert account.rows("SELECT DISTINCT entity_type FROM amocrm.responsible_history ORDER BY 1") == [
        ("companies",), ("contacts",), ("customers",), ("tasks",)]
    assert is_consistent(account)


def task(user: int, updated: int) -> dict[str, Any]:
    return {"id": 1, "responsible_user_id": user, "created_at": START, "updated_at": START + updated}


def test_a_task_changes_hands_with_and_without_an_event(account: ScriptedAccount) -> None:
    account.read("tasks", 50, task(3, 10))
    account.advance()
    account.read("tasks", 150, task(4, 100))
    account.load_events(account.responsible_event(100, 3, 4, "task"))
    account.advance()
    assert account.responsible() == [(3, 0, 100, "created"), (4, 100, None, "event")]
    account.read("tasks", 250, task(5, 200))
    account.advance()
    assert account.responsible()[1:] == [(4, 100, 200, "event"), (5, 200, None, "observed")]
    assert is_consistent(account)
    account.connection.execute("DELETE FROM amocrm.responsible_history WHERE left_at IS NULL")
    (measured,) = [each for each in consistency(account.connection, "amocrm") if each.entity_type == "tasks"]
    assert measured.missing == 1


def test_a_task_that_only_an_event_names_has_a_history(account: ScriptedAccount) -> None:
    account.load_events(account.responsible_event(100, 3, 4, "task"))
    account.advance()
    assert account.responsible() == [(4, 100, None, "event")]


ELEMENT = {"id": 1, "catalog_id": 7, "created_at": START}


def test_a_field_of_an_element_changes_with_and_without_an_event(account: ScriptedAccount) -> None:
    account.read("catalog_elements", 50, ELEMENT | {
        "updated_at": START + 10, "custom_fields_values": [field(11, "a")]})
    account.advance()
    assert account.values() == []
    account.read("catalog_elements", 150, ELEMENT | {
        "updated_at": START + 100, "custom_fields_values": [field(11, "b")]})
    account.load_events(account.field_event(100, 11, ["a"], ["b"]) | {"entity_type": "catalog_7"})
    account.advance()
    assert account.values() == [(11, 100, ["a"], ["b"], "event")]
    account.read("catalog_elements", 250, ELEMENT | {
        "updated_at": START + 200, "custom_fields_values": [field(11, "c")]})
    account.advance()
    assert account.values()[1:] == [(11, 200, ["b"], ["c"], "observed")]
    assert account.rows("SELECT DISTINCT entity_type FROM amocrm.custom_field_history") == [
        ("catalog_elements",)]
    assert is_consistent(account)


def test_an_element_that_only_an_event_names_has_a_history(account: ScriptedAccount) -> None:
    """A deal with the same id keeps its own."""
    account.read("leads", 500, lead(A, 400))
    account.load_events(account.field_event(100, 11, ["a"], ["b"]) | {"entity_type": "catalog_7"},
                        account.field_event(200, 12, ["x"], ["y"]))
    account.advance()
    kinds = "SELECT entity_type, field_id FROM amocrm.custom_field_history ORDER BY 1"
    assert account.rows(kinds) == [("catalog_elements", 11), ("leads", 12)]
    account.load_events(account.field_event(300, 11, ["b"], ["c"]) | {"entity_type": "catalog_7"})
    account.advance()
    assert account.values() == [(11, 100, ["a"], ["b"], "event"), (12, 200, ["x"], ["y"], "event"),
                                (11, 300, ["b"], ["c"], "event")]
    assert is_consistent(account)


# Custom fields


def test_field_changes_come_from_events_of_both_types(account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(A, 400))
    nameless = account.field_event(300, 12, ["x"], [])
    nameless["value_before"][0]["custom_field_value"].pop("field_id")
    account.load_events(account.field_event(100, 11, [], ["a", "b"]), account.field_event(
        200, 11, ["a", "b"], ["c"], "custom_field_value_changed"), nameless)
    account.advance()
    assert account.values() == [(11, 100, None, ["a", "b"], "event"), (11, 200, ["a", "b"], ["c"], "event"),
                                (12, 300, ["x"], None, "event")]
    assert account.rows("SELECT value_after::text FROM amocrm.custom_field_history WHERE field_id = 12") == [
        ("[]",)]


def test_changed_values_are_observed_until_an_event_explains_them(account: ScriptedAccount) -> None:
    account.read("leads", 500, lead(A, 400, custom_fields_values=[field(11, "a"), field(12, "same")]))
    account.advance()
    account.read("leads", 900, lead(A, 800, custom_fields_values=[field(12, "same"), field(13, "new")]))
    account.advance()
    assert account.values() == [(11, 800, ["a"], None, "observed"), (13, 800, None, ["new"], "observed")]
    account.load_events(account.field_event(790, 13, [], ["in amoCRM's words"]))
    account.advance()
    assert account.values() == [(13, 790, None, ["in amoCRM's words"], "event"),
                                (11, 800, ["a"], None, "observed")]
    assert is_consistent(account)


def test_unchanged_values_are_not_observed(account: ScriptedAccount) -> None:
    def read(at: int, moved: int, label: str, number: Any, more: str) -> None:
        account.read("leads", at, lead(A, moved, custom_fields_values=[
            field(11, {"value": label, "enum_id": 5}, type_="select"), field(12, number, type_="numeric"),
            field(13, more)]))

    read(500, 400, "дуб", "1.50", "a")
    account.advance()
    read(900, 800, "массив дуба", 1.5, "a")
    read(1000, 800, "массив дуба", 1.5, "a change that moves no updated_at")
    account.read("leads", 1100, lead(A, 1050))
    account.connection.execute("UPDATE amocrm.custom_fields SET _deleted_at = now() WHERE id = 13")
    account.read("leads", 1200, lead(A, 1150, custom_fields_values=[
        field(11, {"value": "дуб", "enum_id": 5}, type_="select"), field(12, "1.5", type_="numeric")]))
    account.advance()
    assert (account.values(), account.observation_count()) == ([], 0)


# When


def test_records_are_queued_only_after_the_first_build_and_only_if_changed(account: ScriptedAccount) -> None:
    account.read("leads", 500, *(lead(A, 400, number=number) for number in range(1, 6)))
    account.load_events(account.status_event(300, B, A))
    assert account.rows("SELECT * FROM amocrm.history_due") == [("all", 0)]
    account.connection.execute("INSERT INTO mirror.cursors (account, entity, listing, position) "
                               "VALUES ('amocrm', 'events', 'events', '{\"sweep\": {}}')")
    assert account.advance() == 0, "events are still being read for the first time"
    account.connection.execute("UPDATE mirror.cursors SET position = '{\"watermark\": 5}'")
    assert account.advance() == 5
    before = account.row_versions()
    late = account.status_event(300, B, A, record=3)
    account.load_events(late)
    account.read("leads", 900, *(lead(A, 400, number=number) for number in range(1, 5)),
                 lead(B, 800, number=5), lead(A, 800, number=6))
    assert account.rows("SELECT entity_id FROM amocrm.history_due ORDER BY 1") == [(3,), (5,), (6,)]
    assert account.advance() == 3
    account.load_events(late)
    assert account.advance() == 0
    assert {row[1] for row in before} - {row[1] for row in account.row_versions()} == {
        row[1] for row in before if row[1].startswith(("(3,", "(5,"))}


def test_undocumented_payloads_are_ignored(account: ScriptedAccount) -> None:
    odd: list[Any] = [None, [], {}, 5, "text", [5], [None], [{"lead_status": 5}],
                      [{"lead_status": {"id": "x", "pipeline_id": 10**30}}],
                      [{"responsible_user": []}], [{"responsible_user": {"id": "x"}}],
                      [{"custom_field_value": {"field_id": 10**30, "text": {}}}],
                      [{"custom_field_value": [1]}]]
    types = ("lead_status_changed", "entity_responsible_changed", "custom_field_value_changed",
             "custom_field_99999999999999999999_value_changed")
    account.read("leads", 500, lead(A, 400))
    account.load_events(*(account.event(type_, 10 * place, payload, payload) for type_ in types
                          for place, payload in enumerate(odd)),
                 account.status_event(390, B, A))
    account.advance()
    assert account.stages() == [(B, 0, 390, "created"), (A, 390, None, "event")]
