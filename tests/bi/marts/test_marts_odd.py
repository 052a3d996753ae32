"""Marts with rare data, added to the account of test_marts.py for one test and rolled back.

Each mart counts it as docs/marts.md says.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipelines.bi.view_files import file_names
from tests.bi.marts.conftest import LEAD, Connection, rows


def test_a_deal_that_was_won_and_then_lost_was_not_reopened(altered: Connection) -> None:
    altered.execute(
        "INSERT INTO amocrm.leads (id, pipeline_id, status_id, created_at, closed_at, _synced_at) "
        "VALUES (9, 7, 143, '2025-06-30 22:30+00', '2025-07-03 10:00+00', now());"
        "INSERT INTO amocrm.lead_status_history (lead_id, pipeline_id, status_id, entered_at, left_at, "
        "source) VALUES "
        "(9, 7, 11, '2025-06-30 22:30+00', '2025-07-02 10:00+00', 'created'), "
        "(9, 7, 142, '2025-07-02 10:00+00', '2025-07-03 10:00+00', 'event'), "
        "(9, 7, 143, '2025-07-03 10:00+00', NULL, 'event')")
    assert rows(
        altered,
        "SELECT status, reached, entered, reopened, deals_now FROM funnel WHERE created_month = '2025-07-01' "
        "ORDER BY status_sort") == [("New", 1, 1, 0, 0), ("Offer", 0, 0, 0, 0), ("Won", 0, 0, 0, 0),
                                    ("Lost", 1, 1, 0, 1)]
    assert rows(altered, "SELECT outcome, status_before FROM win_loss WHERE closed_month = '2025-07-01'") == [
        ("lost", "New")]


def test_a_new_deal_is_not_stuck(altered: Connection) -> None:
    altered.execute(
        "UPDATE amocrm.lead_status_history SET entered_at = now() - interval '40 hours' WHERE lead_id = 5")
    assert rows(altered, "SELECT lead_id FROM stuck_deals ORDER BY 1") == [(4,), (8,)]
    assert rows(altered, "SELECT deals_now, stuck_now FROM time_in_stage WHERE status = 'New'") == [(1, 0)]


def test_a_call_s_status_decides_whether_it_was_answered(altered: Connection) -> None:
    """Calls: rang for 25 seconds without an answer (status 6); talked (4), no duration given; 7 seconds
    without a status; busy (7)."""
    altered.execute("""
        DELETE FROM amocrm.notes;
        INSERT INTO amocrm.notes (entity_type, id, entity_id, note_type, params, created_at, _synced_at)
        VALUES
        ('leads', 1, 4, 'call_in', '{"duration": 25, "call_status": 6}', '2026-02-01 10:00+00', now()),
        ('leads', 2, 4, 'call_in', '{"call_status": "4"}', '2026-02-01 11:00+00', now()),
        ('leads', 3, 4, 'call_in', '{"duration": 7}', '2026-02-01 12:00+00', now()),
        ('leads', 4, 4, 'call_in', '{"duration": 3, "call_status": 7}', '2026-02-01 09:00+00', now())""")
    assert rows(altered, "SELECT calls, answered, unanswered, seconds FROM call_report") == [(4, 2, 2, 35)]
    assert rows(
        altered,
        "SELECT responded_at = '2026-02-01 11:00+00', response FROM first_response WHERE lead_id = 4") == [
            (True, "incoming_call")]
    assert rows(altered, "SELECT id, is_answered FROM calls ORDER BY 1") == [(1, False), (2, True), (3, True),
                                                                             (4, False)]


def test_a_response_comes_after_creation_and_goes_to_the_main_contact(altered: Connection) -> None:
    """Contact 21 is deal 2's main contact, 22 another one; deal 2 was created on 29 December, 23:30 UTC."""
    altered.execute(
        "INSERT INTO amocrm.events (id, type, entity_type, entity_id, created_by, created_at, _synced_at) "
        "VALUES "
        "('6', 'outgoing_call', 'contact', 21, 1, '2025-12-29 23:29+00', now()), "
        "('7', 'outgoing_mail', 'contact', 22, 1, '2025-12-30 08:00+00', now()), "
        "('8', 'outgoing_call', 'contact', 21, 2, '2025-12-30 08:30+00', now())")
    assert rows(altered,
                "SELECT response, response_seconds, working_seconds, responded_by FROM first_response "
                "WHERE lead_id = 2") == [
                    ("outgoing_call", 9 * 3600, 1800, "Bruno")]


def test_a_response_comes_before_the_deal_is_closed(altered: Connection) -> None:
    """Deal 2 was won on 31 December, 23:30 UTC; its main contact was called a second later for another
    reason."""
    altered.execute(
        "INSERT INTO amocrm.events (id, type, entity_type, entity_id, created_by, created_at, _synced_at) "
        "VALUES "
        "('6', 'outgoing_call', 'contact', 21, 1, '2025-12-31 23:30:01+00', now())")
    answer = ("SELECT responded_at, response_seconds, working_seconds, responded_by FROM first_response "
              "WHERE lead_id = 2")
    assert rows(altered, answer) == [(None, None, None, None)]
    altered.execute("UPDATE amocrm.events SET created_at = '2025-12-31 23:30:00+00' WHERE id = '6'")
    assert rows(altered, answer.replace("responded_at, ", "")) == [(48 * 3600, 18 * 3600, "Anna")]
    altered.execute(
        "INSERT INTO amocrm.notes (entity_type, id, entity_id, note_type, params, responsible_user_id, "
        "created_at, _synced_at) "
        "VALUES ('contacts', 8, 21, 'call_out', '{}', 2, '2025-12-30 09:00+00', now())")
    assert rows(altered, answer.replace("responded_at, ", "")) == [(9.5 * 3600, 3600, "Bruno")]


def test_a_call_in_an_event_and_a_note_counts_for_the_user_in_the_note(altered: Connection) -> None:
    """Telephony creates calls as user 0, or as the user who set it up (1); robots send text messages."""
    altered.execute("""
        INSERT INTO amocrm.events (id, type, entity_type, entity_id, created_by, created_at, _synced_at)
        VALUES
        ('6', 'outgoing_call', 'lead', 4, 1, '2025-12-29 08:00+00', now());
        INSERT INTO amocrm.notes (entity_type, id, entity_id, note_type, params, responsible_user_id,
                                  created_by, created_at, _synced_at) VALUES
        ('leads', 6, 4, 'call_out', '{"duration": 9, "call_responsible": "2"}', 1, 0, '2025-12-29 08:00+00',
         now()),
        ('leads', 7, 4, 'sms_out', '{}', 1, 0, '2025-12-28 08:00+00', now())""")
    answer = "SELECT response, responded_by, response_seconds FROM first_response WHERE lead_id = 4"
    assert rows(altered, answer) == [("outgoing_call", "Bruno", 46 * 3600)]
    altered.execute(
        "UPDATE amocrm.notes SET created_by = 2 WHERE id = 7; UPDATE amocrm.events SET created_by = 0 "
        "WHERE id = '6'")
    assert rows(altered, answer) == [("outgoing_sms", "Anna", 22 * 3600)]


def test_a_deal_s_own_source_precedes_that_of_its_incoming_lead(altered: Connection) -> None:
    altered.execute("UPDATE amocrm.leads SET source_id = 1 WHERE id = 3")
    assert rows(altered, "SELECT channel, source, unsorted_source FROM attribution WHERE lead_id = 3") == [
        ("Site", "Site", "Landing page")]


def test_a_required_contact_field_is_checked_on_the_main_contact(altered: Connection) -> None:
    """Deal 2's other contact has a phone; its main contact no longer has one."""
    altered.execute("DELETE FROM amocrm.contact_custom_field_values WHERE contact_id = 21")
    assert (rows(altered, "SELECT deals, empty, lead_ids FROM empty_required_fields WHERE field = 'Phone'")
            == [(2, 2, [1, 2])])


def test_a_purchase_on_new_year_s_night_counts_in_the_account_s_year(altered: Connection) -> None:
    altered.execute(
        "INSERT INTO amocrm.transaction_catalog_elements (transaction_id, catalog_element_id, catalog_id, "
        "quantity) "
        "VALUES (15, 61, 50, 3)")
    assert rows(altered, "SELECT sold_date::text, amount::int FROM products_sold WHERE entity_id = 15") == [
        ("2026-01-01", 300)]


def test_working_hours_far_from_greenwich_and_on_days_off(altered: Connection) -> None:
    """In Kamchatka, Monday, 6 July, 10:00 is Sunday, 22:00 UTC. Deal 9 was created then and called on Tuesday
    at 10:00: 8 + 1 working hours. Deal 10 was created on Saturday and called on Sunday. Deal 11 was created
    before the calendar begins."""
    altered.execute("UPDATE amocrm.accounts SET timezone = 'Asia/Kamchatka';" + LEAD
                    + "(9, 7, 11, 1, '2026-07-05 22:00+00', NULL, now()), "
                      "(10, 7, 11, 1, '2026-07-03 22:00+00', NULL, now()), "
                      "(11, 7, 11, 1, '2008-12-30 22:00+00', NULL, now());"
                      "INSERT INTO amocrm.events (id, type, entity_type, entity_id, created_by, created_at, "
                      "_synced_at) VALUES "
                      "('a', 'outgoing_call', 'lead', 9, 1, '2026-07-06 22:00+00', now()), "
                      "('b', 'outgoing_call', 'lead', 10, 1, '2026-07-05 00:00+00', now()), "
                      "('c', 'outgoing_call', 'lead', 11, 1, '2026-07-05 00:00+00', now())")
    assert rows(
        altered,
        "SELECT lead_id, created_date::text, response_seconds / 3600, working_seconds FROM first_response "
        "WHERE lead_id IN (9, 10, 11) ORDER BY 1") == [
        (9, "2026-07-06", 24, 9 * 3600), (10, "2026-07-04", 26, 0), (11, "2008-12-31", 6395 * 24 + 2, None)]
    working = "SELECT working_seconds / 3600 FROM first_response WHERE lead_id = 9"
    altered.execute("UPDATE amocrm.working_hours SET closes_at = '24:00'")
    assert rows(altered, working) == [(15,)]
    altered.execute("UPDATE amocrm.working_hours SET closes_at = '08:00' WHERE weekday = 1")
    assert rows(altered, working) == [(1,)]


def test_days_since_are_counted_in_the_account_s_zone(altered: Connection) -> None:
    """In this zone it is about noon: a minute after midnight is today, a minute before it is yesterday."""
    zone = f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"
    altered.execute(f"UPDATE amocrm.accounts SET timezone = '{zone}'".encode())
    moment = (
        f"date_trunc('day', now() AT TIME ZONE '{zone}') AT TIME ZONE '{zone}' + interval '1 minute' * CASE "
        "id WHEN")
    altered.execute(
        f"UPDATE amocrm.tasks SET is_completed = false, complete_till = {moment} 101 THEN 1 ELSE -1 END;"
        f"UPDATE amocrm.transactions SET completed_at = {moment} 15 THEN 1 ELSE -1 END;"
        f"UPDATE amocrm.customers SET next_date = {moment} 2 THEN 1 ELSE -1 END".encode())
    assert rows(altered, "SELECT task_id, days_overdue FROM overdue_tasks ORDER BY 1") == [
        (101, 0), (102, 1), (103, 1)]
    assert rows(altered, "SELECT customer_id, days_since_last, next_purchase_date - (now() AT TIME ZONE "
                         f"'{zone}')::date FROM customer_ltv "
                         "WHERE customer_id < 3 ORDER BY 1") == [(1, 1, -1), (2, 0, 0)]


def test_the_last_of_several_tasks(altered: Connection) -> None:
    altered.execute(
        "INSERT INTO amocrm.tasks (id, entity_type, entity_id, complete_till, is_completed, _synced_at, "
        "_deleted_at) VALUES "
        "(104, 'leads', 8, '2026-03-28 10:00+00', true, now(), NULL), "
        "(105, 'leads', 8, '2026-03-31 10:00+00', false, now(), now()), "
        "(106, 'contacts', 5, '2026-03-31 10:00+00', false, now(), NULL)")
    assert (rows(altered,
                 "SELECT lead_id, last_task_at = '2026-03-29 10:00+00' FROM deals_without_task ORDER BY 1")
            == [(5, None), (8, True)])


def test_numbers_of_companies_and_of_other_countries(altered: Connection) -> None:
    """Six digits are a phone number, five are not; +84 is Viet Nam, 84… without a plus is a Russian number
    written with 8. Other fields do not count."""
    altered.execute("INSERT INTO amocrm.custom_fields (entity_type, id, name, code, type, _synced_at) "
                    "VALUES ('companies', 36, 'Phone', 'PHONE', "
                    "'multitext', now()), ('companies', 37, 'E-mail', 'EMAIL', 'multitext', now()), "
                    "('companies', 38, 'Code', 'CODE', 'text', now());"
                    "INSERT INTO amocrm.contact_custom_field_values (contact_id, field_id, position, "
                    "value_text) VALUES (21, 35, 0, '777777'), "
                    "(22, 35, 0, '777777');"
                    "INSERT INTO amocrm.companies (id, name, _synced_at) SELECT i, 'C' || i, now() "
                    "FROM generate_series(42, 45) i;"
                    "INSERT INTO amocrm.companies (id, name, _synced_at) VALUES (41, 'Z', now());"
                    "INSERT INTO amocrm.company_custom_field_values (company_id, field_id, position, "
                    "value_text) VALUES "
                    "(41, 36, 0, '12-34-56'), (42, 36, 0, '123456'), (41, 36, 1, '12345'), "
                    "(42, 36, 1, '12345'), (41, 37, 0, 'a@b'), "
                    "(42, 37, 0, 'A@b'), (41, 38, 0, '777777'), (42, 38, 0, '777777'), "
                    "(43, 36, 0, '+84 912 345 678'), (44, 36, 0, '84912345678'), "
                    "(45, 36, 0, '+7 491 234-56-78'), (43, 37, 0, 'no address'), (44, 37, 0, 'no address')")
    assert rows(altered, "SELECT count(*) FROM duplicates WHERE entity_type = 'contacts'") == [(2,)]
    assert rows(
        altered,
        "SELECT shared, value, ids, names FROM duplicates WHERE entity_type = 'companies' ORDER BY 1, 2") == [
            ("email", "a@b", [41, 42], ["Z", "C42"]), ("phone", "123456", [41, 42], ["Z", "C42"]),
            ("phone", "74912345678", [44, 45], ["C44", "C45"])]


def test_a_required_field_of_the_company_and_empty_texts(altered: Connection) -> None:
    """Deal 1's company has a code; deal 2's company has an empty code and another field filled. Deal 2's main
    contact has an empty phone and an e-mail address; deal 2 itself has another field filled."""
    altered.execute(
        "INSERT INTO amocrm.custom_fields (entity_type, id, name, type, _synced_at) VALUES ('companies', 38, "
        "'Code', 'text', now()), "
        "('companies', 39, 'Other', 'text', now()); INSERT INTO amocrm.custom_field_required_statuses "
        "(entity_type, field_id, "
        "pipeline_id, status_id) VALUES ('companies', 38, 7, 142);"
        "INSERT INTO amocrm.companies (id, name, _synced_at) VALUES (41, 'A', now()), "
        "(42, 'B', now()); INSERT INTO amocrm.lead_companies (lead_id, company_id) VALUES (1, 41), (2, 42);"
        "INSERT INTO amocrm.company_custom_field_values (company_id, field_id, position, value_text) VALUES "
        "(41, 38, 0, 'x'), (42, 38, 0, ''), (42, 39, 0, 'y');"
        "INSERT INTO amocrm.lead_custom_field_values (lead_id, field_id, position, "
        "value_text) VALUES (2, 32, 0, 'cpc'); UPDATE amocrm.contact_custom_field_values SET value_text = '' "
        "WHERE contact_id = 21 "
        "AND field_id = 33")
    assert rows(
        altered,
        "SELECT entity_type, field, deals, empty, lead_ids FROM empty_required_fields ORDER BY 1, 2") == [
            ("companies", "Code", 2, 1, [2]), ("contacts", "Phone", 2, 2, [1, 2]),
            ("leads", "Contract", 2, 1, [2])]


def test_utm_marks_and_outcomes_of_their_deals(altered: Connection) -> None:
    """No UTM mark: a text field with such a name, a second value. A source without a name counts as no
    source."""
    altered.execute("INSERT INTO amocrm.custom_fields (entity_type, id, name, code, type, _synced_at) VALUES "
                    "('leads', 51, 'UTM_Campaign', NULL, 'tracking_data', now()), "
                    "('leads', 52, 'x', 'UTM_CONTENT', 'tracking_data', now()), "
                    "('leads', 53, 'utm_term', NULL, 'text', now()), ('leads', 54, 'utm_source', NULL, "
                    "'text', now());"
                    "INSERT INTO amocrm.lead_custom_field_values (lead_id, field_id, position, value_text) "
                    "VALUES "
                    "(1, 51, 0, 'may'), (1, 52, 0, 'b1'), (1, 53, 0, 'no'), (3, 54, 0, 'no'), "
                    "(1, 31, 1, 'another'), (1, 32, 1, 'another');"
                    "UPDATE amocrm.sources SET name = ''; UPDATE amocrm.unsorted SET source_name = ''")
    assert rows(altered,
                "SELECT lead_id, channel, utm_source, utm_medium, utm_campaign, utm_content, utm_term, "
                "outcome FROM attribution "
                "WHERE lead_id <= 4 ORDER BY 1") == [
        (1, "yandex", "yandex", "cpc", "may", "b1", None, "won"),
        (2, "unknown", None, None, None, None, None, "won"),
        (3, "unknown", None, None, None, None, None, "lost"),
        (4, "unknown", None, None, None, None, None, "open")]


@pytest.mark.parametrize("name", sorted(
    {*file_names("marts"), "leads", "contacts", "tasks", "calls", "customers"} - {"funnel", "time_in_stage"}))
def test_rows_with_missing_names_are_still_counted(altered: Connection, name: str) -> None:
    """Row counts stay when users, pipelines, sources, loss reasons and catalogs are missing.

    (The funnel and time in stage list stages, so they are left out.)
    """
    before = rows(altered, f"SELECT count(*) FROM {name}")
    for table in ("users", "pipelines", "sources", "loss_reasons", "task_types", "customer_statuses",
                  "catalogs"):
        altered.execute(f"DELETE FROM amocrm.{table}".encode())
    if name == "products_sold":
        altered.execute("DELETE FROM amocrm.catalog_elements; DELETE FROM amocrm.customers")
    assert rows(altered, f"SELECT count(*) FROM {name}") == before != [(0,)]
