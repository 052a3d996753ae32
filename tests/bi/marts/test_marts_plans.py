"""Marts about what is to come and about customers: forecast, plan and fact, conversion from stage to stage,
RFM
and cohorts. Over the account of test_marts.py."""

from __future__ import annotations

from calendar import monthrange
from datetime import datetime
from zoneinfo import ZoneInfo

import psycopg
import pytest

from tests.bi.marts.conftest import LEAD, STAYS, Connection, rows


def test_forecast_weighs_open_deals_by_the_win_rate_of_their_stage(connection: Connection) -> None:
    """Closed deals that were in New: 1 and 2 (won), 3 (lost). In Offer: 1 (won), 3 (lost); deal 4, won once,
    is
    open again. In Talks: 7 (lost)."""
    assert rows(connection, "SELECT pipeline, status_label, responsible_user, deals, value::int, "
                            "win_rate::text, expected_value::text, closed_deals, is_stage_rate FROM forecast "
                            "ORDER BY pipeline, status_label") == [
        ("Retail", "01. New", "Anna", 1, 10, "0.6667", "6.67", 3, True),
        ("Retail", "02. Offer", "Anna", 1, 20, "0.5000", "10.00", 2, True),
        ("Wholesale", "01. Talks", "Anna", 1, 90, "0.0000", "0.00", 1, True)]


def test_forecast_of_a_stage_and_of_a_pipeline_without_closed_deals(altered: Connection) -> None:
    """Nothing that is closed was ever in Fresh: it has the rate of Retail, 2 of 3. Nothing was ever closed in
    pipeline 9. A deal that was in New twice counts once."""
    altered.execute(
        "INSERT INTO amocrm.pipelines (id, name, _synced_at) VALUES (9, 'Export', now());"
        "INSERT INTO amocrm.statuses (pipeline_id, id, name, sort, _synced_at) VALUES "
        "(7, 13, 'Fresh', 15, now()), (9, 31, 'First', 10, now());" + LEAD +
        "(9, 7, 13, 30, '2026-02-01 10:00+00', NULL, now()), "
        "(10, 9, 31, 40, '2026-02-01 10:00+00', NULL, now());" + STAYS +
        "(3, 7, 11, '2025-12-30 10:00+00', '2025-12-30 11:00+00', 'event')")
    assert rows(altered, "SELECT pipeline, status_label, value::int, win_rate::text, expected_value::text, "
                         "closed_deals, is_stage_rate FROM forecast WHERE status IN ('New', 'Fresh', "
                         "'First') "
                         "ORDER BY 1, 2") == [
        ("Export", "01. First", 40, None, None, 0, False),
        ("Retail", "01. New", 10, "0.6667", "6.67", 3, True),
        ("Retail", "02. Fresh", 30, "0.6667", "20.00", 3, False)]


def test_plan_and_fact_by_user_and_by_pipeline(connection: Connection) -> None:
    """Won in December: deal 1 (300, Anna, Retail). In January by Berlin time: deal 2 (100, Anna, Retail)."""
    assert rows(connection, "SELECT closed_month::text, responsible_user, pipeline, plan_value::int, "
                            "fact_value::int, value_share::text, plan_deals, fact_deals, deals_share::text, "
                            "month_share::text, is_current FROM plan_fact ORDER BY 1, 2, 3") == [
        ("2025-12-01", "(all)", "(all)", 1000, 300, "0.3000", 2, 1, "0.5000", "1.0000", False),
        ("2025-12-01", "(all)", "Wholesale", 500, 0, "0.0000", 1, 0, "0.0000", "1.0000", False),
        ("2025-12-01", "Anna", "Retail", 200, 300, "1.5000", None, 1, None, "1.0000", False),
        ("2026-01-01", "Anna", "(all)", 0, 100, None, 4, 1, "0.2500", "1.0000", False),
        ("2026-01-01", "Bruno", "(all)", 50, 0, "0.0000", None, 0, None, "1.0000", False),
        ("2026-02-01", "Bruno", "Wholesale", None, 0, None, 1, 0, "0.0000", "1.0000", False)]


def test_a_plan_of_this_month_and_of_one_to_come(altered: Connection) -> None:
    today = datetime.now(ZoneInfo("Europe/Berlin")).date()
    altered.execute("INSERT INTO amocrm.sales_plans (month, value) VALUES (%s, 5), ('2999-01-01', 5)",
                    [today.replace(day=1)])
    assert rows(altered, "SELECT month_share::float8, is_current FROM plan_fact WHERE plan_value = 5 "
                         "ORDER BY closed_month") == [
        (pytest.approx(today.day / monthrange(today.year, today.month)[1], abs=0.0001), True), (0, False)]
    with pytest.raises(psycopg.errors.CheckViolation), altered.transaction():
        altered.execute("INSERT INTO amocrm.sales_plans (month, value) VALUES ('2999-01-02', 5)")


def test_conversion_from_stage_to_stage(connection: Connection) -> None:
    """New: 1 and 3 went to Offer; 2 and 4 were won; 5 is there. Offer: 1 won, 3 lost, 4 is there. Talks: 7
    was
    lost, 8 is there. The deleted deal 6 does not count."""
    assert rows(connection, "SELECT status_label, direction, next_status_label, sum(deals)::int, "
                            "sum(hours)::int FROM stage_conversion GROUP BY pipeline, 1, 2, 3 "
                            "ORDER BY pipeline, 1, 2") == [
        ("01. New", "forward", "02. Offer", 2, 48), ("01. New", "still there", None, 1, None),
        ("01. New", "won", "03. Won", 2, 72), ("02. Offer", "lost", "04. Lost", 1, 48),
        ("02. Offer", "still there", None, 1, None), ("02. Offer", "won", "03. Won", 1, 24),
        ("01. Talks", "lost", "03. Failed", 1, 24), ("01. Talks", "still there", None, 1, None)]
    assert rows(connection, "SELECT entered_date::text, entered_month::text, next_status, deals "
                            "FROM stage_conversion WHERE status = 'New' AND responsible_user = 'Anna' "
                            "ORDER BY 1, 3") == [
        ("2025-12-27", "2025-12-01", "Offer", 1), ("2025-12-27", "2025-12-01", "Won", 1),
        ("2025-12-30", "2025-12-01", "Won", 1), ("2026-01-01", "2026-01-01", None, 1)]


def test_ways_back_into_another_pipeline_and_into_an_unknown_stage(altered: Connection) -> None:
    altered.execute(LEAD + "(9, 8, 21, 1, '2026-02-01 10:00+00', NULL, now()), "
                           "(10, 7, 99, 1, '2026-02-01 10:00+00', NULL, now());" + STAYS +
                    "(9, 7, 12, '2026-02-01 10:00+00', '2026-02-02 10:00+00', 'created'), "
                    "(9, 7, 11, '2026-02-02 10:00+00', '2026-02-03 10:00+00', 'event'), "
                    "(9, 8, 21, '2026-02-03 10:00+00', NULL, 'event'), "
                    "(10, 7, 12, '2026-02-01 10:00+00', '2026-02-02 10:00+00', 'created'), "
                    "(10, 7, 99, '2026-02-02 10:00+00', NULL, 'event')")
    assert rows(altered, "SELECT pipeline, status, next_pipeline, next_status, direction, deals "
                         "FROM stage_conversion WHERE entered_month = '2026-02-01' "
                         "ORDER BY entered_date, direction") == [
        ("Retail", "Offer", "Retail", "New", "back", 1), ("Retail", "Offer", "Retail", None, "unknown", 1),
        ("Retail", "New", "Wholesale", "Talks", "another pipeline", 1),
        ("Retail", None, None, None, "still there", 1), ("Wholesale", "Talks", None, None, "still there", 1)]


def test_each_stay_of_a_deal_in_a_stage(connection: Connection) -> None:
    assert rows(connection, "SELECT status, entered_date::text, left_date::text, hours::int, next_status, "
                            "next_status_id FROM stage_stays WHERE lead_id IN (1, 7) "
                            "ORDER BY entered_at") == [
        ("New", "2025-12-27", "2025-12-28", 24, "Offer", 12),
        ("Offer", "2025-12-28", "2025-12-29", 24, "Won", 142),
        ("Talks", "2026-01-05", "2026-01-06", 24, "Failed", 143)]
    assert rows(connection, "SELECT lead_id, left_date, next_status FROM stage_stays WHERE is_now "
                            "ORDER BY 1") == [(4, None, None), (5, None, None), (8, None, None)]
    assert rows(connection, "SELECT pipeline, status, count(*) FILTER (WHERE NOT is_now), "
                            "round((percentile_cont(0.9) WITHIN GROUP (ORDER BY hours) "
                            "FILTER (WHERE NOT is_now))::numeric, 2) FROM stage_stays GROUP BY 1, 2 "
                            "ORDER BY 1, 2") == rows(
        connection, "SELECT pipeline, status, stays, p90_hours FROM time_in_stage ORDER BY 1, 2")


def test_customers_by_recency_frequency_and_value(altered: Connection) -> None:
    """Customer 1 bought three times (600), last on 30 January; 2 once (40) on New Year's Day; 4 once (40),
    earlier;
    5 once (40), between these two. 3 never bought, 6 is deleted."""
    altered.execute(
        "INSERT INTO amocrm.customers (id, name, responsible_user_id, _synced_at, _deleted_at) VALUES "
        "(4, 'Early', 9, now(), NULL), (5, 'Between', NULL, now(), NULL), (6, 'Gone', 1, now(), now());"
        "INSERT INTO amocrm.transactions (id, customer_id, price, completed_at, _synced_at) VALUES "
        "(21, 4, 40, '2025-06-01 10:00+00', now()), (22, 5, 40, '2025-10-01 10:00+00', now()), "
        "(23, 6, 9000, '2026-02-01 10:00+00', now())")
    assert rows(altered, "SELECT name, responsible_user, last_purchase_date::text, purchases, ltv::int, rfm, "
                         "segment FROM customer_rfm ORDER BY last_purchase_date DESC") == [
        ("Loyal", "Bruno", "2026-01-30", 3, 600, "555", "champions"),
        ("Once", "Anna", "2026-01-01", 1, 40, "411", "new"),
        ("Between", "(none)", "2025-10-01", 1, 40, "211", "lost"),
        ("Early", "user 9", "2025-06-01", 1, 40, "111", "lost")]


def test_cohorts_show_every_month_until_now(connection: Connection) -> None:
    """Customer 1 first bought in December: twice then (400), once in January (200). Customer 2 bought at
    00:30
    on New Year's Day, by Berlin time."""
    assert rows(connection, "SELECT cohort_month::text, month::text, months_since, customers, "
                            "active_customers, retention::text, purchases, value::int, value_so_far::int "
                            "FROM customer_cohorts WHERE month < '2026-03-01' ORDER BY 1, 2") == [
        ("2025-12-01", "2025-12-01", 0, 1, 1, "1.0000", 2, 400, 400),
        ("2025-12-01", "2026-01-01", 1, 1, 1, "1.0000", 1, 200, 600),
        ("2025-12-01", "2026-02-01", 2, 1, 0, "0.0000", 0, 0, 600),
        ("2026-01-01", "2026-01-01", 0, 1, 1, "1.0000", 1, 40, 40),
        ("2026-01-01", "2026-02-01", 1, 1, 0, "0.0000", 0, 0, 40)]
    today = datetime.now(ZoneInfo("Europe/Berlin")).date()
    assert rows(connection, "SELECT count(*), max(month)::text, max(months_since), count(*) FILTER (WHERE "
                            "is_now) "
                            "FROM customer_cohorts WHERE cohort_month = '2025-12-01'") == [
        ((today.year - 2025) * 12 + today.month - 11, today.replace(day=1).isoformat(),
         (today.year - 2025) * 12 + today.month - 12, 1)]
