"""Marts over a small account (account.sql) whose results were worked out by hand.

Its time zone is Europe/Berlin: clocks go forward at 01:00 UTC on 29 March 2026, and the year ends at 23:00
UTC.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from pipelines.bi.view_files import file_names, view_file
from pipelines.schema.texts import translate
from tests.bi.marts.conftest import Connection, rows
from tests.support.marts_page import PAGES

TEXTS = {language: path.read_text(encoding="utf-8") for language, path in PAGES.items()}


FUNNEL_SUMS = ", ".join(f"sum({column})::int" for column in (
    "deals", "reached", "entered", "skipped", "reopened", "deals_now"))


def test_funnel_counts_skipped_reopened_and_lost_deals(connection: Connection) -> None:
    """Deal 1 went new → offer → won; 2 was won without the offer; 3 was lost in the offer; 4 was won, then
    reopened into the offer; 5 is new, created in January by Berlin time; 6 is deleted; 7 was lost in the
    other pipeline, which has no offer."""
    assert rows(connection,
                f"SELECT created_month::text, status, {FUNNEL_SUMS} FROM funnel WHERE pipeline = 'Retail' "
                "GROUP BY created_month, status, status_sort ORDER BY created_month, status_sort") == [
        ("2025-12-01", "New", 4, 4, 4, 0, 0, 0), ("2025-12-01", "Offer", 4, 4, 3, 1, 1, 1),
        ("2025-12-01", "Won", 4, 2, 2, 0, 0, 2), ("2025-12-01", "Lost", 4, 1, 1, 0, 0, 1),
        ("2026-01-01", "New", 1, 1, 1, 0, 0, 1), ("2026-01-01", "Offer", 1, 0, 0, 0, 0, 0),
        ("2026-01-01", "Won", 1, 0, 0, 0, 0, 0), ("2026-01-01", "Lost", 1, 0, 0, 0, 0, 0)]
    assert rows(connection,
                "SELECT status, deals, reached, deals_now FROM funnel WHERE pipeline = 'Wholesale' "
                "AND created_month = '2026-01-01' ORDER BY status_sort") == [
        ("Talks", 1, 1, 0), ("Done", 1, 0, 0), ("Failed", 1, 1, 1)]


def test_time_in_stage_and_stuck_deals(connection: Connection) -> None:
    """Completed stays in New: 24, 48, 24 and 24 hours; in Offer: 24 (deal 1), 48 (deal 3)."""
    found = rows(connection,
                 "SELECT status, stays, average_hours, median_hours, p90_hours, deals_now, stuck_now "
                 "FROM time_in_stage "
                 "WHERE pipeline = 'Retail' ORDER BY status_sort")
    assert [tuple(map(str, row)) for row in found] == [
        ("New", "4", "30.00", "24.00", "40.80", "1", "1"),
        ("Offer", "2", "36.00", "36.00", "45.60", "1", "1")]
    assert rows(
        connection,
        "SELECT lead_id, status, p90_hours::text, hours_in_stage > 1000 FROM stuck_deals ORDER BY 1") == [
            (4, "Offer", "45.60", True), (5, "New", "40.80", True), (8, "Talks", "24.00", True)]


def test_sales_cycle_and_velocity(connection: Connection) -> None:
    """December by Berlin time: deal 1 won after 2 days (300), deal 3 lost. January: deal 2 won at 00:30
    (100)."""
    assert [tuple(map(str, row)) for row in rows(
        connection,
        "SELECT closed_date, deals, won, lost, win_rate, won_value, average_value, average_cycle_days, "
        "median_cycle_days, velocity "
        "FROM sales_cycle WHERE pipeline = 'Retail' ORDER BY 1")] == [
        ("2025-12-29", "1", "1", "0", "1.0000", "300", "300.00", "2.00", "2.00", "150.00"),
        ("2025-12-31", "1", "0", "1", "0.0000", "0", "None", "None", "None", "None"),
        ("2026-01-01", "1", "1", "0", "1.0000", "100", "100.00", "2.00", "2.00", "50.00")]
    assert [tuple(map(str, row)) for row in rows(
        connection,
        "SELECT closed_month, sum(deals), sum(won), sum(lost), round(sum(won) / sum(deals), 4), "
        "sum(won_value), round(sum(cycle_days) / sum(won), 2), "
        "round(sum(won_value) * sum(won) / sum(cycle_days), 2) "
        "FROM sales_cycle WHERE pipeline = 'Retail' GROUP BY 1 ORDER BY 1")] == [
        ("2025-12-01", "2", "1", "1", "0.5000", "300", "2.00", "150.00"),
        ("2026-01-01", "1", "1", "0", "1.0000", "100", "2.00", "50.00")]


def test_win_loss_by_reason_and_the_stage_before(connection: Connection) -> None:
    assert rows(connection,
                "SELECT closed_month::text, pipeline, outcome, loss_reason, status_before, responsible_user, "
                "deals, value::int "
                "FROM win_loss ORDER BY 1, 2, 3") == [
        ("2025-12-01", "Retail", "lost", "Too dear", "Offer", "Bruno", 1, 50),
        ("2025-12-01", "Retail", "won", None, "Offer", "Anna", 1, 300),
        ("2026-01-01", "Retail", "won", None, "New", "Anna", 1, 100),
        ("2026-01-01", "Wholesale", "lost", None, "Talks", "Bruno", 1, 70)]


def test_activity_counts_for_the_user_responsible_at_that_time(connection: Connection) -> None:
    """Deal 1 was Bruno's until 29 December, 12:00, then Anna's; its first move was before, its second after
    that."""
    assert rows(connection, "SELECT day::text, responsible_user, moves, won, lost FROM manager_activity "
                            "WHERE moves > 0 AND day < '2026-01-06' "
                            "ORDER BY 1, 2") == [
        ("2025-12-28", "Anna", 1, 1, 0), ("2025-12-28", "Bruno", 1, 0, 0), ("2025-12-29", "Anna", 1, 1, 0),
        ("2025-12-29", "Bruno", 1, 0, 0), ("2025-12-30", "Anna", 1, 0, 0), ("2025-12-31", "Bruno", 1, 0, 1),
        ("2026-01-01", "Anna", 1, 1, 0)]
    assert rows(connection,
                "SELECT day::text, responsible_user, tasks_created, tasks_completed, notes, calls_in, "
                "calls_out, call_seconds "
                "FROM manager_activity WHERE day > '2026-03-01' ORDER BY 1, 2") == [
        ("2026-03-28", "Anna", 2, 0, 0, 0, 1, 60), ("2026-03-29", "Anna", 0, 1, 1, 1, 1, 30),
        ("2026-03-29", "Bruno", 1, 0, 0, 0, 0, 0)]


def test_calls_by_the_day_on_which_clocks_go_forward(connection: Connection) -> None:
    """22:59 and 23:01 UTC on 28 March are different days in Berlin; 21:59 UTC on 29 March is 23:59, not
    22:59."""
    assert rows(connection, "SELECT day::text, direction, call_user, calls, answered, unanswered, seconds, "
                            "average_seconds::text FROM call_report "
                            "WHERE day > '2026-03-01' ORDER BY 1, 2") == [
        ("2026-03-28", "out", "Anna", 1, 1, 0, 60, "60.0"),
        ("2026-03-29", "in", "Bruno", 1, 1, 0, 30, "30.0"), ("2026-03-29", "out", "Anna", 1, 0, 1, 0, None)]


def test_first_response_in_working_hours_over_a_weekend_and_a_change_of_clocks(
        connection: Connection) -> None:
    """Deal 8 was created on Friday 27 March at 17:30 local time and called on Monday at 10:00: 64.5 hours by
    the wall clock, 63.5 elapsed, 1.5 working hours (Friday until 18:00, Monday from 9:00). Deal 5 was written
    to on a holiday; an earlier message by a robot does not count. The call of deal 2's main contact was not
    answered."""
    assert rows(
        connection,
        "SELECT lead_id, response, response_seconds, working_seconds, responded_by FROM first_response "
        "WHERE lead_id IN (2, 5, 8) ORDER BY 1") == [
        (2, None, None, None, None), (5, "outgoing_chat_message", 36000, 0, "Bruno"),
        (8, "outgoing_call", 63 * 3600 + 1800, 5400, "Anna")]


def test_overdue_tasks_and_deals_without_one(connection: Connection) -> None:
    """23:30 in Berlin on 28 March is the 28th, 00:30 is the 29th."""
    assert rows(connection, "SELECT task_id, task_type, responsible_user, due_date::text, lead, price::int "
                            "FROM overdue_tasks ORDER BY 1") == [
                                (101, "Call", "Anna", "2026-03-28", "Fourth", 20),
                                (102, None, "Anna", "2026-03-29", None, None)]
    assert rows(connection, "SELECT lead_id, status, last_task_at = '2026-03-29 10:00+00' "
                            "FROM deals_without_task ORDER BY 1") == [(5, "New", None), (8, "Talks", True)]


def test_attribution(connection: Connection) -> None:
    assert rows(connection,
                "SELECT lead_id, channel, utm_source, utm_medium, source, unsorted_category, form_name, "
                "created_date::text "
                "FROM attribution WHERE lead_id IN (1, 2, 3, 5) ORDER BY 1") == [
        (1, "yandex", "yandex", "cpc", "Site", None, None, "2025-12-27"),
        (2, "Site", None, None, "Site", None, None, "2025-12-30"),
        (3, "Landing page", None, None, None, "forms", "Order", "2025-12-28"),
        (5, "unknown", None, None, None, None, None, "2026-01-01")]


def test_customers_are_counted_from_their_purchases(connection: Connection) -> None:
    """The purchase at 23:30 UTC on 31 December is in the new year in Berlin; a deleted one does not count."""
    assert [tuple(map(str, row)) for row in rows(
        connection, "SELECT customer_id, purchases, is_repeat, ltv, average_check, first_purchase_date, "
                    "last_purchase_date, cohort_month, "
                    "average_days_between, amocrm_ltv FROM customer_ltv ORDER BY 1")] == [
        ("1", "3", "True", "600", "200.00", "2025-12-01", "2026-01-30", "2025-12-01", "30.0", "610"),
        ("2", "1", "False", "40", "40.00", "2026-01-01", "2026-01-01", "2026-01-01", "None", "40"),
        ("3", "0", "False", "0", "None", "None", "None", "None", "None", "None")]


def test_products_sold(connection: Connection) -> None:
    """Deal 1: 2.5 doors at the chosen wholesale price (80) and a knob without a price; deal 2: a door; the
    purchase: 2 doors at the main price (100). The lost deal 3 sells nothing."""
    assert [tuple(map(str, row)) for row in rows(
        connection,
        "SELECT sold_date, sold_as, entity_id, product, quantity, price, amount, responsible_user "
        "FROM products_sold ORDER BY 1, 4")] == [
        ("2025-12-01", "transactions", "11", "Door", "2", "100", "200", "Bruno"),
        ("2025-12-29", "leads", "1", "Door", "2.5", "80", "200.0", "Anna"),
        ("2025-12-29", "leads", "1", "Knob", "1", "None", "None", "Anna"),
        ("2026-01-01", "leads", "2", "Door", "1", "100", "100", "Anna")]


def test_duplicates_are_found_however_they_are_written(connection: Connection) -> None:
    assert rows(connection,
                "SELECT entity_type, shared, value, records, ids, names FROM duplicates ORDER BY 1, 2") == [
                    ("contacts", "email", "ann@example.com", 2, [21, 23], ["Ann", "A. N."]),
                    ("contacts", "phone", "79220345518", 3, [21, 22, 23], ["Ann", "Anna N", "A. N."])]


def test_required_fields_that_are_empty(connection: Connection) -> None:
    """Contract and the main contact's phone are required in Won: deal 1 has a contract but no contact, deal 2
    an empty contract."""
    assert rows(connection, "SELECT status, entity_type, field, deals, empty, share_empty::text, lead_ids "
                            "FROM empty_required_fields "
                            "ORDER BY 2, 3") == [
        ("Won", "contacts", "Phone", 2, 1, "0.5000", [1]), ("Won", "leads", "Contract", 2, 1, "0.5000", [2])]


def test_the_pipeline_as_of_any_date(connection: Connection) -> None:
    """At the end of 30 December deal 4 is reopened in the offer; deal 6 (value 5) counts until its deletion
    on the 31st."""
    def on(day: str) -> list[tuple[Any, ...]]:
        return rows(connection,
                    f"SELECT status, deals, value::int FROM pipeline_value WHERE day = '{day}' "
                    "AND pipeline = 'Retail' ORDER BY status_sort")

    assert on("2025-12-26") == []
    assert on("2025-12-28") == [("New", 2, 55), ("Offer", 1, 300)]
    assert on("2025-12-30") == [("New", 2, 105), ("Offer", 2, 70)]
    assert on("2025-12-31") == [("New", 1, 100), ("Offer", 1, 20)]
    assert on("2026-01-01") == [("New", 1, 10), ("Offer", 1, 20)]
    assert rows(
        connection,
        "SELECT count(*) FROM pipeline_value WHERE pipeline = 'Wholesale' AND day = '2026-02-01'") == [(0,)]
    today = rows(connection, "SELECT max(day) FROM pipeline_value")[0][0]
    assert abs((today - date.today()).days) <= 1


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("name", file_names("marts"))
def test_the_page_describes_each_mart_and_its_query_runs(connection: Connection, name: str,
                                                         language: str) -> None:
    page = TEXTS[language]
    begin = page.index(f"\n## {name}\n")
    part = page[begin:page.index("\n## ", begin + 5) if "\n## " in page[begin + 5:] else len(page)]
    documented = {line.split("|")[1].strip().strip("`"): line.split("|")[2].strip()
                  for line in part.splitlines() if line.startswith("| `")}
    assert documented == {column: translate(words, language)
                          for column, words in view_file("marts", name).columns.items()}, (
        "the tables are made by `python -m tests.support.marts_page`")
    assert translate(view_file("marts", name).comment, language) in part
    query = part[part.index("```sql") + 6:part.rindex("```")]
    assert connection.execute(query.encode()).description


def test_deals_by_field_counts_closed_deals_by_each_option(connection: Connection) -> None:
    """Deals 1 (won) and 3 (lost) are large, 2 is small and was won in January by Berlin time; 4 is open, 7
    has it empty. The other fields are no select fields."""
    assert rows(connection,
                "SELECT field, field_value, closed_month::text, responsible_user, deals, won, lost, "
                "won_value::int FROM deals_by_field ORDER BY field_value, responsible_user") == [
        ("Size", "large", "2025-12-01", "Anna", 1, 1, 0, 300),
        ("Size", "large", "2025-12-01", "Bruno", 1, 0, 1, 0),
        ("Size", "small", "2026-01-01", "Anna", 1, 1, 0, 100)]
