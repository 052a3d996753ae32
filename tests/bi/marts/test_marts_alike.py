"""What all wide views and marts have in common: one name for one thing, days below months, the address of
each
card, a name for each user, and incoming leads left out of reports of deals."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from pipelines.bi.view_files import file_names
from tests.bi.marts.conftest import LEAD, STAYS, Connection, rows

WIDE = ("leads", "contacts", "companies", "customers", "catalog_goods", "tasks", "calls", "unsorted")
VIEWS = sorted([*WIDE, *file_names("marts")])
COLUMNS = """
SELECT c.relname::text, array_agg(a.attname::text) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'amocrm_bi'::regnamespace AND a.attnum > 0 GROUP BY 1"""
DAYS_OF_MONTHS = {"created_month": "created_date", "closed_month": "closed_date",
                  "entered_month": "entered_date", "cohort_month": "first_purchase_date"}
BY_MONTH_ONLY = {"plan_fact", "customer_cohorts"}
"""Views whose subject is the month itself: a plan is for a month, a cohort is of one."""
RECORD_IDS = {"lead_id", "customer_id", "task_id", "entity_id"}
PAGE_OF = {"leads": "/leads/detail/1", "contacts": "/contacts/detail/21", "companies": "/companies/detail/41",
           "customers": "/customers/detail/1", "catalog_goods": "/catalogs/50/detail/61",
           "tasks": "/leads/detail/4", "calls": "/leads/detail/1", "unsorted": "/leads/detail/3"}


@pytest.fixture(scope="module")
def columns(connection: Connection) -> dict[str, set[str]]:
    found = {view: set(names) for view, names in connection.execute(COLUMNS).fetchall()}
    assert set(VIEWS) == found.keys()
    return found


@pytest.mark.parametrize("view", VIEWS)
def test_one_name_for_one_thing(columns: dict[str, set[str]], view: str) -> None:
    """A dashboard's filter works by column name: where there is an id of one of these, its name is there,
    too,
    under the one name; stages have a label that sorts; a month has its day."""
    names = columns[view]
    for thing in ("responsible_user", "pipeline", "status", "source"):
        assert f"{thing}_id" not in names or thing in names
        assert thing not in names or f"{thing}_id" in names or (view, thing) == ("unsorted", "source")
    assert "status" not in names or "status_label" in names
    for month, day in DAYS_OF_MONTHS.items():
        assert month not in names or day in names or view in BY_MONTH_ONLY
    assert not names & RECORD_IDS or "url" in names
    assert view not in WIDE or "url" in names


@pytest.mark.parametrize("view", VIEWS)
def test_columns_of_one_name_have_one_type(connection: Connection, columns: dict[str, set[str]],
                                           view: str) -> None:
    for name, type_ in (("responsible_user", "text"), ("pipeline", "text"), ("status_label", "text"),
                        ("source", "text"), ("url", "text"), ("created_date", "date"),
                        ("closed_date", "date"),
                        ("created_month", "date"), ("closed_month", "date"), ("tags", "text[]")):
        if name in columns[view]:
            assert rows(connection, "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = "
                                    f"'amocrm_bi.{view}'::regclass AND attname = '{name}'") == [(type_,)]


def test_users_who_were_removed_and_nobody_have_a_name_everywhere(
        altered: Connection, columns: dict[str, set[str]]) -> None:
    """User 9380011 is not in the list of users any more; user 0 and no user at all are nobody."""
    seen: set[tuple[str, int | None]] = set()
    altered.execute("".join(
        f"UPDATE amocrm.{table} SET responsible_user_id = (ARRAY[9380011, 0, NULL])[1 + {key} % 3];"
        for table, key in (("leads", "id"), ("contacts", "id"), ("companies", "id"), ("customers", "id"),
                           ("tasks", "id"), ("notes", "id"), ("responsible_history", "entity_id"))))
    altered.execute("INSERT INTO amocrm.companies (id, name, responsible_user_id, _synced_at) VALUES "
                    "(41, 'A', 9380011, now()), (42, 'B', NULL, now());"
                    "UPDATE amocrm.notes SET params = params - 'call_responsible';"
                    "UPDATE amocrm.sales_plans SET responsible_user_id = 9380011 WHERE responsible_user_id "
                    "= 2")
    for view in (each for each in VIEWS if "responsible_user" in columns[each] and each != "plan_fact"):
        found = rows(altered, f"SELECT DISTINCT responsible_user_id, responsible_user FROM {view}")
        assert found and found == [(who, f"user {who}" if who else "(none)") for who, _ in found], view
        seen |= {(view, who) for who, _ in found}
    assert {view for view, who in seen if who} >= {"leads", "tasks", "calls", "overdue_tasks", "call_report",
                                                   "manager_activity", "funnel", "win_loss"}
    assert {view for view, who in seen if who == 0} >= {"leads", "tasks", "calls", "call_report", "forecast"}
    assert ("user 9380011",) in rows(altered, "SELECT responsible_user FROM plan_fact")
    for view, column in (("leads", "created_by_user"), ("contacts", "updated_by_user"),
                         ("companies", "created_by_user"), ("customers", "created_by_user"),
                         ("tasks", "created_by_user"), ("catalog_goods", "updated_by_user")):
        table, cell = view.replace("catalog_goods", "catalog_elements"), column.removesuffix("_user")
        altered.execute(f"UPDATE amocrm.{table} SET {cell} = CASE WHEN id % 2 = 0 THEN 0 ELSE 9 END".encode())
        assert {row[0] for row in rows(altered, f"SELECT {column} FROM {view}")} == {"user 9", "(none)"}


def test_every_record_has_the_address_of_its_card(altered: Connection) -> None:
    altered.execute("INSERT INTO amocrm.companies (id, name, _synced_at) VALUES (41, 'A', now());"
                    "UPDATE amocrm.unsorted SET _deleted_at = NULL")
    for view, path in PAGE_OF.items():
        first = "uid" if view == "unsorted" else "id"
        assert rows(altered, f"SELECT url FROM {view} ORDER BY {first} LIMIT 1") == [
            (f"https://mill.amocrm.ru{path}",)], view
    for mart in ("attribution", "first_response", "funnel", "stage_stays",
                 "stuck_deals", "deals_without_task"):
        assert rows(altered, f"SELECT count(*) > 0, bool_and(url = 'https://mill.amocrm.ru/leads/detail/' "
                             f"|| lead_id) FROM {mart}") == [(True, True)]
    for mart in ("customer_ltv", "customer_rfm"):
        assert rows(altered, f"SELECT count(*) > 0, bool_and(url = "
                             f"'https://mill.amocrm.ru/customers/detail/' "
                             f"|| customer_id) FROM {mart}") == [(True, True)]
    assert rows(altered, "SELECT task_id, url FROM overdue_tasks ORDER BY 1") == [
        (101, "https://mill.amocrm.ru/leads/detail/4"), (102, None)]
    assert rows(altered, "SELECT DISTINCT sold_as, url FROM products_sold WHERE entity_id IN (1, 11) ORDER "
                         "BY 1") == [
        ("leads", "https://mill.amocrm.ru/leads/detail/1"),
        ("transactions", "https://mill.amocrm.ru/customers/detail/1")]
    assert rows(altered, "SELECT urls FROM duplicates WHERE shared = 'email'") == [
        (["https://mill.amocrm.ru/contacts/detail/21", "https://mill.amocrm.ru/contacts/detail/23"],)]
    assert rows(altered, "SELECT urls FROM empty_required_fields WHERE entity_type = 'leads'") == [
        (["https://mill.amocrm.ru/leads/detail/2"],)]


def test_the_last_seven_days_and_a_quarter(altered: Connection) -> None:
    """Deals 101 … 120 were made and closed one a day at 00:30 of Berlin's day, which is the day before in
    UTC.
    Seven days hold seven of them; the fourth quarter of 2025 holds what was closed until its last day."""
    today = rows(altered, "SELECT (now() AT TIME ZONE 'Europe/Berlin')::date")[0][0]
    assert isinstance(today, date)
    altered.execute(
        LEAD + ", ".join(f"({100 + back}, 7, 142, 1, {moment}, {moment}, now())" for back in range(1, 21)
                         for moment in [f"timestamp '{today - timedelta(days=back)} 00:30' "
                                        "AT TIME ZONE 'Europe/Berlin'"]) + ";" + STAYS.replace("VALUES ", "")
        + "SELECT id, pipeline_id, 142, created_at, NULL::timestamptz, 'created' FROM amocrm.leads WHERE "
          "id > 100")
    week = f"BETWEEN '{today - timedelta(days=7)}' AND '{today - timedelta(days=1)}'"
    assert rows(altered, f"SELECT sum(deals)::int FROM win_loss WHERE closed_date {week}") == [(7,)]
    assert rows(altered, f"SELECT sum(won)::int FROM sales_cycle WHERE closed_date {week}") == [(7,)]
    assert rows(altered, f"SELECT sum(reached)::int, sum(deals)::int FROM funnel WHERE created_date {week} "
                         "AND status = 'Won'") == [(7, 7)]
    for mart, month, day in (("win_loss", "closed_month", "closed_date"),
                             ("sales_cycle", "closed_month", "closed_date"),
                             ("funnel", "created_month", "created_date"),
                             ("stage_conversion", "entered_month", "entered_date")):
        assert rows(altered, f"SELECT count(*) FROM {mart} "
                             f"WHERE {month} <> date_trunc('month', {day}::timestamp)::date") == [(0,)]
    quarter = "BETWEEN '2025-10-01' AND '2025-12-31'"
    assert rows(altered, f"SELECT sum(deals)::int FROM win_loss WHERE closed_date {quarter}") == [(2,)]
    assert rows(altered, f"SELECT sum(deals)::int FROM sales_cycle WHERE closed_date {quarter}") == [(2,)]


def test_the_funnel_and_the_cycle_by_manager_source_and_tag(altered: Connection) -> None:
    """Deals 1 and 2 have the tag a, deal 2 also b; both came from Site. Bruno has deal 3."""
    altered.execute("INSERT INTO amocrm.tags (entity_type, id, name, _synced_at) VALUES ('leads', 1, 'b', "
                    "now()), "
                    "('leads', 2, 'a', now()), ('contacts', 1, 'no', now());"
                    "INSERT INTO amocrm.lead_tags (lead_id, tag_id) VALUES (1, 2), (2, 1), (2, 2)")

    def won(condition: str) -> list[tuple[int, int]]:
        return rows(altered, "SELECT sum(deals)::int, coalesce(sum(reached), 0)::int FROM funnel "
                             f"WHERE pipeline = 'Retail' AND status = 'Won' AND {condition}")

    assert won("true") == [(5, 2)]
    assert (won("responsible_user = 'Anna'"), won("responsible_user = 'Bruno'")) == ([(4, 2)], [(1, 0)])
    assert (won("source = 'Site'"), won("source IS NULL")) == ([(2, 2)], [(3, 0)])
    assert (won("'a' = ANY (tags)"), won("'b' = ANY (tags)"), won("tags = '{}'")) == (
        [(2, 2)], [(1, 1)], [(3, 0)])
    for condition, expected in (("responsible_user = 'Anna'", (2, 2)), ("responsible_user = 'Bruno'", (1, 0)),
                                ("source = 'Site'", (2, 2)), ("'b' = ANY (tags)", (1, 1))):
        assert rows(altered, "SELECT sum(deals)::int, sum(won)::int FROM sales_cycle "
                             f"WHERE pipeline = 'Retail' AND {condition}") == [expected]
    assert rows(altered, "SELECT status, hours::int FROM stage_stays WHERE 'b' = ANY (tags)") == [("New", 48)]
    assert rows(altered, "SELECT outcome, sum(deals)::int FROM win_loss WHERE source = 'Site' "
                         "GROUP BY 1") == [("won", 2)]


INCOMING = (
    "INSERT INTO amocrm.statuses (pipeline_id, id, name, sort, type, _synced_at) VALUES "
    "(7, 10, 'Incoming', 5, 1, now());" + LEAD +
    "(9, 7, 10, 1000, '2026-02-01 10:00+00', NULL, now()), (10, 7, 11, 1, '2026-02-01 10:00+00', NULL, "
    "now()), "
    "(11, 7, 142, 1, '2026-01-01 10:00+00', '2026-01-03 10:00+00', now());" + STAYS +
    "(9, 7, 10, '2026-02-01 10:00+00', NULL, 'created'), "
    "(10, 7, 10, '2026-02-01 10:00+00', '2026-02-03 10:00+00', 'created'), "
    "(10, 7, 11, '2026-02-03 10:00+00', NULL, 'event'), "
    "(11, 7, 10, '2026-01-01 10:00+00', '2026-01-01 10:01+00', 'created'), "
    "(11, 7, 142, '2026-01-01 10:01+00', NULL, 'event');"
    "INSERT INTO amocrm.custom_field_required_statuses (entity_type, field_id, pipeline_id, status_id) "
    "VALUES ('leads', 35, 7, 10)")
"""Deal 9 waits as an incoming lead; 10 was accepted after two days; 11 was one for a minute, so that 9 has
been
waiting for longer than usual."""


def test_incoming_leads_are_no_deals_yet_in_every_report_of_deals(altered: Connection) -> None:
    altered.execute(INCOMING)
    for mart in ("funnel", "time_in_stage", "stage_stays", "stage_conversion", "stuck_deals",
                 "pipeline_value", "forecast", "deals_without_task", "empty_required_fields"):
        assert rows(altered, f"SELECT count(*) FILTER (WHERE status_id = 10), count(*) > 0 FROM {mart}") == [
            (0, True)], mart
    assert rows(altered, "SELECT status, sum(deals)::int, sum(reached)::int FROM funnel "
                         "WHERE created_date = '2026-02-01' GROUP BY 1, status_sort "
                         "ORDER BY status_sort") == [
        ("New", 1, 1), ("Offer", 1, 0), ("Won", 1, 0), ("Lost", 1, 0)]
    assert rows(altered, "SELECT status, deals, value::int FROM pipeline_value WHERE day = '2026-02-02' "
                         "AND pipeline = 'Retail' ORDER BY 1") == [("New", 1, 10), ("Offer", 1, 20)]
    for view, key in (("leads", "id"), ("attribution", "lead_id"), ("first_response", "lead_id")):
        assert rows(altered, f"SELECT {key} FROM {view} WHERE is_incoming") == [(9,)]
        assert rows(altered, f"SELECT count(*) FROM {view} WHERE is_incoming IS NULL") == [(0,)]


def test_labels_sort_stages_in_their_order(altered: Connection) -> None:
    """Two digits, so that the tenth stage stands behind the ninth."""
    altered.execute("INSERT INTO amocrm.statuses (pipeline_id, id, name, sort, _synced_at) "
                    "SELECT 7, 200 + i, 'Another', 30 + i, now() FROM generate_series(1, 9) i;"
                    "UPDATE amocrm.leads SET status_id = 209 WHERE id = 4")
    assert rows(altered, "SELECT DISTINCT status_label FROM leads WHERE pipeline = 'Retail' ORDER BY 1") == [
        ("01. New",), ("11. Another",), ("12. Won",), ("13. Lost",)]
    for view in ("funnel", "pipeline_value", "time_in_stage"):
        labels = (f"SELECT status_label FROM {view} WHERE pipeline = 'Retail' "
                  "GROUP BY 1, status_sort ORDER BY ")
        assert rows(altered, f"{labels} status_label") == rows(altered, f"{labels} status_sort")


def test_today_is_marked(connection: Connection) -> None:
    assert rows(connection, "SELECT DISTINCT day = (now() AT TIME ZONE 'Europe/Berlin')::date "
                            "FROM pipeline_value WHERE is_today") == [(True,)]
    assert rows(connection, "SELECT sum(deals)::int FROM pipeline_value WHERE is_today") == [(3,)]
