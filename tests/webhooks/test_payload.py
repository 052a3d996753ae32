"""Parsing deliveries: every documented shape is understood, and no made-up one breaks the parser or yields
more than ids."""

from __future__ import annotations

from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.entities.registry import ENTITIES
from pipelines.webhooks.payload import MAX_RECORDS, MAX_SHAPES, ParsedDelivery, parse

ACCOUNT = "&account[subdomain]=severles&account[id]=30718245&account[_links][self]=https://severles.amocrm.ru"
STATUS = ("leads[status][0][id]=21640987&leads[status][0][name]=Кухня&leads[status][0][status_id]=143"
          "&leads[status][0][old_status_id]=57904418"
          "&leads[status][0][price]=318500&leads[status][0][responsible_user_id]=9412901&leads[status][0][last_modified]=1795093331"
          "&leads[status][0][account_id]=30718245&leads[status][0][pipeline_id]=6820154" + ACCOUNT)
SHAPES: list[tuple[str, list[tuple[str, str]]]] = [
    (STATUS, [("leads", "21640987")]),
    ("leads[delete][0][id]=5&leads[delete][1][id]=6" + ACCOUNT, [("leads", "5"), ("leads", "6")]),
    ("contacts[add][0][id]=7&contacts[add][0][type]=contact", [("contacts", "7")]),
    ("contacts[update][0][id]=8&contacts[update][0][type]=company", [("companies", "8")]),
    ("contacts[delete][0][id]=9", [("contacts", "9"), ("companies", "9")]),
    ("customers[responsible][0][id]=10", [("customers", "10")]),
    ("task[update][0][id]=11&task[update][0][element_type]=2", [("tasks", "11")]),
    ("task[update][0][0][id]=12&task[update][0][0][text]=x", [("tasks", "12")]),
    ("leads[note][0][note][id]=13&leads[note][0][note][element_type]=2", [("leads/notes", "13")]),
    ("contacts[note][0][note][id]=14&contacts[note][0][note][element_type]=3", [("companies/notes", "14")]),
    ("contacts[note][0][note][id]=15", [("contacts/notes", "15"), ("companies/notes", "15")]),
    ("talk[update][0][talk_id]=16&talk[update][0][entity_id]=5", [("talks/{}", "16")]),
    ("message[add][0][id]=a-b-c&message[add][0][talk_id]=17", [("talks/{}", "17")]),
    ("unsorted[add][0][uid]=0a1b", [("leads/unsorted", "0a1b")]),
    (
        "unsorted[delete][0][uid]=0a1b&unsorted[delete][0][action]=accept&unsorted[delete][0][accept_result][leads][0]=18"
        "&unsorted[delete][0][accept_result][contacts][0][id]=19",
        [("leads/unsorted", "0a1b"), ("leads", "18"), ("contacts", "19")]),
    ("add[0][id]=20&add[0][status]=approved", [("chats/templates", "*")]),
    ("unsorted[update][0][data][leads][id]=501", [("leads", "501")]),
    ("unsorted[update][0][data][leads][0][id]=502&unsorted[update][0][lead_id]=503",
     [("leads", "503"), ("leads", "502")]),
    ("unsorted[add][0][uid]=0a1c&unsorted[add][0][lead_id]=504&unsorted[add][0][source_data][client][id]=9"
     "&unsorted[add][0][source_data][data][0][text]=x&unsorted[add][0][source_data][origin][chat_id]=a-b",
     [("leads", "504"), ("leads/unsorted", "0a1c")]),
    ("unsorted[delete][0][uid]=0a1d&unsorted[delete][0][action]=accept"
     "&unsorted[delete][0][accept_result][leads][0]=505", [("leads/unsorted", "0a1d"), ("leads", "505")]),
    ("leads[note][0][note][element_id]=501&leads[note][0][note][note_type]=4"
     "&leads[note][0][note][timestamp_x]=2026-11-29 10:00:00", [("leads/notes", "of/501")]),
    ("contacts[note][0][note][element_id]=502&contacts[note][0][note][element_type]=3",
     [("companies/notes", "of/502")]),
    ("leads[note][0][note][id]=23&leads[note][0][note][element_id]=501&leads[note][0][note][note_type]=10"
     '&leads[note][0][note][text]={"LINK":"x","UNIQ":"y"}', [("leads/notes", "23")]),
    ("outgoing_message[add][0][talk_id]=3381", [("talks/{}", "3381")]),
    ("add[0][talk_id]=3381&add[0][author][id]=a-b&add[0][text]=x", [("talks/{}", "3381")]),
    ("message[add][0][id]=a-b&message[add][0][talk_id]=3382&message[add][0][element_id]=501"
     "&message[add][0][element_type]=2&message[add][0][entity_id]=501&message[add][0][entity_type]=lead",
     [("talks/{}", "3382")]),
    ("catalogs[update][0][id]=2218001&catalogs[update][0][custom_fields][0][id]=1"
     "&catalogs[update][0][custom_fields][0][values][0][value][unit_price]=5",
     [("catalogs/{}/elements", "2218001")]),
    ("leads[update][0][id]=24&leads[update][0][tags][0][id]=1&leads[update][0][tags][0][name]=x"
     "&leads[update][0][custom_fields][0][id]=7&leads[update][0][custom_fields][0][values][0]=2026-11-29",
     [("leads", "24")]),
    (
        "leads[status][0][id]=21&leads[status][0][old_pipeline_id]=1&leads[status][0][pipeline_id]=2&leads[status][0][old_status_id]=3"
        "&leads[status][0][status_id]=4", [("leads", "21")]),
    ("customers[status][0][id]=22&customers[status][0][old_period_id]=1&customers[status][0][period_id]=2",
     [("customers", "22")])]


def encoded(form: str) -> bytes:
    return "&".join("=".join(map(quote_plus, pair.split("=", 1))) for pair in form.split("&")).encode()


@pytest.mark.parametrize(("form", "named"), SHAPES, ids=[form[:30] for form, _ in SHAPES])
def test_documented_deliveries_name_their_records(form: str, named: list[tuple[str, str]]) -> None:
    found = parse(encoded(form))
    assert found.records == named
    assert found.unknown == [] and len(found.shapes) == 1
    assert parse(form.encode()).records == named, "brackets may come raw"
    assert found.account == (30718245 if "account" in form.split("&")[-1] else None)


def test_every_named_list_is_mirrored() -> None:
    paths = {listing.path for entity in ENTITIES for listing in entity.listings}
    assert {path for _, named in SHAPES for path, _ in named} <= paths


def test_the_outcome_of_an_incoming_lead_is_parsed() -> None:
    declined = parse(b"unsorted[delete][0][uid]=0a&unsorted[delete][0][action]=decline"
                     b"&unsorted[delete][0][decline_result][leads][]=5")
    assert declined.outcomes == [("0a", "decline", [5], [])]
    assert parse(b"unsorted[add][0][uid]=0a").outcomes == []


def test_a_restored_record_also_requests_its_links() -> None:
    assert parse(b"leads[restore][0][id]=5").relinked == {("leads", "5")}
    assert parse(b"leads[update][0][id]=5").relinked == set()


@pytest.mark.parametrize(("form", "unknown"), [
    (b"catalogs[add][0][id]=x", ["catalogs[add]"]), (b"unsorted[update][0][data][leads][id]=x",
                                                     ["unsorted[update]"]),
    (b"leads[note][0][note][element_id]=x", ["leads[note]"]), (b"leads[add][0][id]=five", ["leads[add]"]),
    (b"leads[add][0][id]=-5", ["leads[add]"]), (b"leads[add][0][id]=99999999999999999999", ["leads[add]"]),
    (b"leads=5", ["leads"]), (b"unsorted[add][0][uid]=a'b", ["unsorted[add]"]),
    ("leads[add][0][id]=٥".encode(), ["leads[add]"]), (b"x%00y[z%20w]=5&%00[a][0]=1", ["x?y", "?[a]"]),
    (b"leads[add][0][id]=0", ["leads[add]"])])
def test_unknown_sections_are_summarized_and_name_no_record(form: bytes, unknown: list[str]) -> None:
    found = parse(form)
    assert (found.records, found.unknown) == ([], unknown)


def test_the_records_of_one_delivery_are_limited() -> None:
    many = urlencode({f"leads[add][{number}][id]": number for number in range(1, MAX_RECORDS + 500)}).encode()
    assert len(parse(many).records) == MAX_RECORDS
    assert parse(urlencode({f"x{number}[a][b]": 1 for number in range(60_000)}).encode()) == ParsedDelivery(
        unknown=["(not a form)"])
    odd = parse(urlencode({f"x{number}[a][b]": 1 for number in range(5_000)}).encode())
    assert len(odd.unknown) == len(odd.shapes) == MAX_SHAPES
    assert parse(b"a" + b"[b]" * 100_000 + b"=1").records == []


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.lists(st.tuples(
    st.lists(st.sampled_from(["leads", "contacts", "task", "unsorted", "talk", "message", "add", "account",
                              "catalogs", "data", "lead_id", "element_id", "talk_id",
                              "0", "1", "id", "uid", "note", "type", "delete", "action", "accept_result",
                              "\0", ""]), min_size=1, max_size=6), st.text(max_size=8)), max_size=8).map(
    lambda pairs: urlencode([(steps[0] + "".join(f"[{step}]" for step in steps[1:]), value)
                             for steps, value in pairs]).encode())))
def test_no_input_breaks_the_parser(body: bytes) -> None:
    found = parse(body)
    for path, key in found.records:
        assert "\0" not in key and (key.isascii() and key.removeprefix("of/").isdecimal()
                                    or path in ("leads/unsorted", "chats/templates"))
    assert not [word for word in (*found.shapes, *found.unknown)
                if "\0" in word or " " in word and word != "(not a form)"]
