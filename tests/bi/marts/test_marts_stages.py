"""Marts with removed stages and with deals that were reopened, deleted or have no history.

The rare data is added to the account of test_marts.py; each mart counts it as docs/marts.md says.
"""

from __future__ import annotations

from tests.bi.marts.conftest import LEAD, STAYS, Connection, rows

FORMER = "INSERT INTO amocrm.statuses (pipeline_id, id, name, sort, _deleted_at, _synced_at) VALUES "


def test_a_funnel_with_a_removed_and_an_unknown_stage(altered: Connection) -> None:
    """Deal 9 was lost and reopened. 10 went through Old (removed since) and the offer, and was won. 11 was
    won at once. 12 came from a stage that was removed before the mirror saw it, and was lost."""
    altered.execute(FORMER + "(7, 13, 'Old', 15, now(), now());" + LEAD +
                    "(9, 7, 11, 1, '2025-07-01 10:00+00', NULL, now()), "
                    "(10, 7, 142, 1, '2025-07-01 10:00+00', '2025-07-04 10:00+00', now()), "
                    "(11, 7, 142, 1, '2025-07-01 10:00+00', '2025-07-02 10:00+00', now()), "
                    "(12, 7, 143, 1, '2025-07-01 10:00+00', '2025-07-02 10:00+00', now());" + STAYS +
                    "(9, 7, 11, '2025-07-03 10:00+00', NULL, 'event'), (9, 7, 143, '2025-07-02 10:00+00', "
                    "'2025-07-03 10:00+00', 'event'), "
                    "(9, 7, 11, '2025-07-01 10:00+00', '2025-07-02 10:00+00', 'created'), "
                    "(10, 7, 11, '2025-07-01 10:00+00', '2025-07-02 10:00+00', 'created'), "
                    "(10, 7, 13, '2025-07-02 10:00+00', '2025-07-03 10:00+00', 'event'), "
                    "(10, 7, 12, '2025-07-03 10:00+00', '2025-07-04 10:00+00', 'event'), "
                    "(10, 7, 142, '2025-07-04 10:00+00', NULL, 'event'), "
                    "(11, 7, 11, '2025-07-01 10:00+00', '2025-07-02 10:00+00', 'created'), "
                    "(11, 7, 142, '2025-07-02 10:00+00', NULL, 'event'), "
                    "(12, 7, 99, '2025-07-01 10:00+00', '2025-07-02 10:00+00', 'created'), "
                    "(12, 7, 143, '2025-07-02 10:00+00', NULL, 'event')")
    assert rows(
        altered,
        "SELECT status, sum(deals)::int, sum(reached)::int, sum(entered)::int, sum(skipped)::int, "
        "sum(reopened)::int, sum(deals_now)::int, round(avg(conversion), 4)::text FROM funnel "
        "WHERE created_month = '2025-07-01' GROUP BY status, status_sort ORDER BY status_sort") == [
        ("New", 4, 3, 3, 0, 1, 1, "0.7500"), ("Old", 4, 2, 1, 1, 0, 0, "0.5000"),
        ("Offer", 4, 2, 1, 1, 0, 0, "0.5000"), ("Won", 4, 2, 2, 0, 0, 2, "0.5000"),
        ("Lost", 4, 1, 1, 0, 0, 1, "0.2500")]
    assert rows(altered, "SELECT DISTINCT created_month::text FROM funnel WHERE status = 'Old'") == [
        ("2025-07-01",)]


def test_stages_without_a_completed_stay_and_removed_stages(altered: Connection) -> None:
    altered.execute(FORMER + "(8, 22, 'Fresh', 20, NULL, now()), (8, 23, 'Old', 30, now(), now()), "
                             "(8, 24, 'Never', 40, now(), now()), "
                             "(8, 25, 'Unused', 50, NULL, now());" + LEAD
                    + "(9, 8, 22, 1, '2025-07-01 10:00+00', NULL, now());" + STAYS +
                    "(9, 8, 23, '2025-07-01 10:00+00', '2025-07-02 10:00+00', 'created'), "
                    "(9, 8, 22, '2025-07-02 10:00+00', NULL, 'event')")
    assert rows(altered, "SELECT status, stays, median_hours::text, deals_now, stuck_now FROM time_in_stage "
                         "WHERE pipeline = 'Wholesale' "
                         "ORDER BY status_sort") == [
        ("Talks", 1, "24.00", 1, 1), ("Fresh", 0, None, 1, 0), ("Old", 1, "24.00", 0, 0),
        ("Unused", 0, None, 0, 0)]
    assert rows(altered, "SELECT count(*) FROM stuck_deals WHERE lead_id = 9") == [(0,)]
    assert rows(altered, "SELECT abs(hours_in_stage - extract(epoch FROM now() - entered_at) / 3600) < 0.01 "
                         "FROM stuck_deals WHERE lead_id = 8") == [
                             (True,)]


def test_a_cycle_of_no_time_and_deals_without_history(altered: Connection) -> None:
    """In addition to deal 1 (2 days, 300) and the lost deal 3: 9 won after 10 days (500), 10 at once (100).
    In Wholesale 11 won at once: no cycle time, so no velocity."""
    altered.execute(LEAD + "(9, 7, 142, 500, '2025-12-01 10:00+00', '2025-12-11 10:00+00', now()), "
                           "(10, 7, 142, 100, '2025-12-05 10:00+00', '2025-12-05 10:00+00', now()), "
                           "(11, 8, 142, 40, '2025-12-05 10:00+00', '2025-12-05 10:00+00', now()), "
                           "(12, 8, 143, NULL, NULL, NULL, now())")
    assert [tuple(map(str, row)) for row in rows(
        altered, "SELECT pipeline, sum(deals), sum(won), round(sum(won) / sum(deals), 4), sum(won_value), "
                 "round(sum(won_value) / sum(won), 2), round(sum(cycle_days) / sum(won), 2), "
                 "round(sum(won_value) * sum(won) / nullif(sum(cycle_days), 0), 2) FROM sales_cycle "
                 "WHERE closed_month = '2025-12-01' GROUP BY 1 ORDER BY 1")] == [
        ("Retail", "4", "3", "0.7500", "900", "300.00", "4.00", "225.00"),
        ("Wholesale", "1", "1", "1.0000", "40", "40.00", "0.00", "None")]
    assert rows(altered, "SELECT velocity, median_cycle_days::int FROM sales_cycle "
                         "WHERE pipeline = 'Wholesale' AND closed_month = '2025-12-01'") == [(None, 0)]
    assert rows(altered, "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY cycle_days) FROM leads "
                         "WHERE pipeline = 'Retail' AND closed_date < '2026-01-01'") == [(2.0,)]
    assert rows(altered, "SELECT closed_month::text, outcome, deals, value::int FROM win_loss "
                         "WHERE status_before_id IS NULL ORDER BY 1, value") == [
                             ("2025-12-01", "won", 1, 40), ("2025-12-01", "won", 1, 100),
                             ("2025-12-01", "won", 1, 500), (None, "lost", 1, 0)]


def test_activity_counts_each_thing_once_on_its_day(altered: Connection) -> None:
    """Two tasks, two notes and two calls in the same second count as two each. Task 104 was completed when it
    was last changed: the event with its id is deal 104's. Task 105 was completed, reopened and completed
    again. Deal 6 moved before it was deleted. Deleted notes and tasks do not count."""
    altered.execute(
        "INSERT INTO amocrm.tasks (id, entity_type, entity_id, responsible_user_id, is_completed, "
        "created_at, updated_at, _synced_at, "
        "_deleted_at) VALUES (104, 'leads', 1, 2, true, '2026-04-01 08:00+00', '2026-04-02 08:00+00', now(), "
        "NULL), "
        "(105, 'leads', 1, 2, true, '2026-04-01 08:00+00', '2026-04-04 08:00+00', now(), NULL), "
        "(106, 'leads', 1, 2, true, '2026-04-01 08:00+00', '2026-04-04 08:00+00', now(), now());"
        "INSERT INTO amocrm.events (id, type, entity_type, entity_id, created_at, _synced_at) VALUES "
        "('a', 'task_completed', 'lead', 104, '2026-04-05 08:00+00', now()), "
        "('b', 'task_completed', 'task', 105, '2026-04-03 07:00+00', now()), "
        "('c', 'task_completed', 'task', 105, '2026-04-02 07:00+00', now());"
        "INSERT INTO amocrm.notes (entity_type, id, entity_id, note_type, params, created_at, _synced_at, "
        "_deleted_at) "
        "SELECT 'leads', 100 + i, 1, (ARRAY['common', 'call_in', 'common'])[1 + i % 3], '{\"duration\": 5}', "
        "'2026-04-02 09:00+00', "
        "now(), CASE WHEN i % 3 = 2 THEN now() END FROM generate_series(0, 5) i;"
        "UPDATE amocrm.lead_status_history SET left_at = '2026-04-01 09:00+00' WHERE lead_id = 6;" + STAYS +
        "(6, 7, 12, '2026-04-01 09:00+00', NULL, 'event');"
        "INSERT INTO amocrm.responsible_history (entity_type, entity_id, responsible_user_id, entered_at, "
        "source) "
        "VALUES ('leads', 6, 2, '2025-12-28 09:00+00', 'created')")
    assert rows(altered,
                "SELECT day::text, responsible_user, moves, tasks_created, tasks_completed, notes, calls_in, "
                "call_seconds "
                "FROM manager_activity WHERE day >= '2026-04-01' ORDER BY 1, 2") == [
        ("2026-04-01", "Anna", 0, 2, 0, 0, 0, 0), ("2026-04-01", "Bruno", 1, 0, 0, 0, 0, 0),
        ("2026-04-02", "Anna", 0, 0, 1, 2, 2, 10), ("2026-04-03", "Anna", 0, 0, 1, 0, 0, 0)]


def test_calls_are_averaged_over_those_that_were_answered(altered: Connection) -> None:
    altered.execute("""
        INSERT INTO amocrm.notes (entity_type, id, entity_id, note_type, params, responsible_user_id,
                                  created_at, _synced_at, _deleted_at) VALUES
        ('leads', 11, 1, 'call_in', '{"duration": 10}', 1, '2026-04-02 09:00+00', now(), NULL),
        ('leads', 12, 1, 'call_in', '{"duration": 25}', 1, '2026-04-02 09:00+00', now(), NULL),
        ('leads', 13, 1, 'call_in', '{"duration": "0"}', 1, '2026-04-02 10:00+00', now(), NULL),
        ('leads', 14, 1, 'call_in', '[]', 1, '2026-04-02 11:00+00', now(), NULL),
        ('leads', 15, 1, 'call_in', '{"duration": 99}', 1, '2026-04-02 12:00+00', now(), now())""")
    assert rows(altered,
                "SELECT calls, answered, unanswered, seconds, average_seconds::text FROM call_report "
                "WHERE day = '2026-04-02'") == [
                    (4, 2, 2, 35, "17.5")]


def test_a_deal_moved_before_its_deletion_is_in_one_stage_at_a_time(altered: Connection) -> None:
    """Deal 6, now without a value, moved into the offer on 29 December and was deleted on the 31st. Deal 9,
    without a value, is alone in an unknown stage."""
    altered.execute("UPDATE amocrm.lead_status_history SET left_at = '2025-12-29 09:00+00' WHERE lead_id = 6;"
                    + STAYS +
                    "(6, 7, 12, '2025-12-29 09:00+00', '2026-02-01 09:00+00', 'event'), "
                    "(6, 7, 11, '2026-02-01 09:00+00', NULL, 'event');"
                    "UPDATE amocrm.leads SET price = NULL WHERE id = 6;" + LEAD
                    + "(9, 8, 99, NULL, '2026-04-01 10:00+00', NULL, now());" + STAYS +
                    "(9, 8, 99, '2026-04-01 10:00+00', NULL, 'created')")
    assert rows(altered,
                "SELECT day::text, status, deals, value::int FROM pipeline_value WHERE day IN ('2025-12-30', "
                "'2025-12-31', '2026-02-02') "
                "AND pipeline = 'Retail' ORDER BY 1, status_sort") == [
        ("2025-12-30", "New", 1, 100), ("2025-12-30", "Offer", 3, 70), ("2025-12-31", "New", 1, 100),
        ("2025-12-31", "Offer", 1, 20), ("2026-02-02", "New", 1, 10), ("2026-02-02", "Offer", 1, 20)]
    assert rows(altered,
                "SELECT status, deals, value::int FROM pipeline_value WHERE day = '2026-04-01' AND pipeline "
                "= 'Wholesale' ORDER BY 1") == [
                    ("Talks", 1, 90), (None, 1, 0)]
