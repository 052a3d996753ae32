"""Wide views with few or no custom fields: resolved names, days in Berlin time, live rows only.

Custom fields are tested in bi/test_builder.py and bi/test_wide.py.
"""

from __future__ import annotations

from tests.bi.marts.conftest import Connection, rows


def test_deals(altered: Connection) -> None:
    """Deal 2 was won in the new year, by Berlin time. 6 is deleted. Deal 3's main contact is the second of
    two."""
    altered.execute("INSERT INTO amocrm.user_groups (id, name, _synced_at) VALUES (4, 'Sales', now());"
                    "UPDATE amocrm.leads SET group_id = 4, created_by = 2, updated_by = 1, source_id = 1 "
                    "WHERE id = 3;"
                    "UPDATE amocrm.leads SET responsible_user_id = 9, created_by = 0, pipeline_id = 9 "
                    "WHERE id = 4;"
                    "INSERT INTO amocrm.lead_contacts (lead_id, contact_id, is_main) VALUES (3, 21, false), "
                    "(3, 23, true);"
                    "INSERT INTO amocrm.tags (entity_type, id, name, _synced_at) VALUES ('leads', 1, 'b', "
                    "now()), ('leads', 2, 'a', now()), "
                    "('contacts', 1, 'no', now()); INSERT INTO amocrm.lead_tags (lead_id, tag_id) "
                    "VALUES (3, 1), (3, 2)")
    assert rows(altered, "SELECT id, tags FROM leads WHERE id IN (2, 3) ORDER BY 1") == [
        (2, []), (3, ["a", "b"])]
    assert rows(altered, "SELECT id, outcome, pipeline, status, status_sort, responsible_user, user_group, "
                         "loss_reason, source, created_by_user, "
                         "updated_by_user, created_date::text, closed_date::text, main_contact FROM leads "
                         "WHERE id BETWEEN 2 AND 7 ORDER BY 1") == [
        (2, "won", "Retail", "Won", 10000, "Anna", None, None, "Site", "(none)", "(none)", "2025-12-30",
         "2026-01-01", "Ann"),
        (3, "lost", "Retail", "Lost", 11000, "Bruno", "Sales", "Too dear", "Site", "Bruno", "Anna",
         "2025-12-28", "2025-12-31", "A. N."),
        (4, "open", None, None, None, "user 9", None, None, None, "(none)", "(none)", "2025-12-27", None,
         None),
        (5, "open", "Retail", "New", 10, "Anna", None, None, None, "(none)", "(none)", "2026-01-01", None,
         None),
        (7, "lost", "Wholesale", "Failed", 11000, "Bruno", None, None, None, "(none)", "(none)", "2026-01-05",
         "2026-01-06", None)]


def test_tasks(altered: Connection) -> None:
    altered.execute("UPDATE amocrm.tasks SET _deleted_at = now() WHERE id = 103; "
                    "UPDATE amocrm.leads SET _deleted_at = now() WHERE id = 4;"
                    "INSERT INTO amocrm.tasks (id, entity_type, entity_id, responsible_user_id, "
                    "complete_till, is_completed, _synced_at) VALUES "
                    "(104, 'contacts', 4, 9, now() + interval '1 day', false, now()), (105, 'contacts', 21, "
                    "2, '2026-01-01 10:00+00', true, now())")
    assert rows(altered,
                "SELECT id, task_type, is_overdue, responsible_user, complete_till_date::text, entity_name "
                "FROM tasks WHERE id <> 104 "
                "ORDER BY 1") == [
        (101, "Call", True, "Anna", "2026-03-28", "Fourth"), (102, None, True, "Anna", "2026-03-29", None),
        (105, None, False, "Bruno", "2026-01-01", "Ann")]
    assert rows(altered, "SELECT is_overdue, responsible_user, responsible_user_id, entity_name FROM tasks "
                         "WHERE id = 104") == [(False, "user 9", 9, None)]


def test_calls(altered: Connection) -> None:
    """The caller is the user of the given id, even an unknown one; else the name given by telephony; else the
    user responsible for the note."""
    altered.execute("""
        INSERT INTO amocrm.notes (entity_type, id, entity_id, note_type, params, responsible_user_id,
                                  created_at, _synced_at, _deleted_at) VALUES
        ('contacts', 6, 21, 'call_in',
         '{"duration": 4, "call_responsible": 99, "phone": "+71", "call_result": "no"}', 2,
         '2025-12-31 23:30+00', now(), NULL),
        ('leads', 7, 1, 'call_in', '{"duration": "long"}', 1, '2026-01-01 10:00+00', now(), NULL),
        ('leads', 8, 1, 'call_in', '[]', 1, '2026-01-01 10:00+00', now(), now()),
        ('leads', 9, 1, 'call_in', '{"call_responsible": "Tim"}', 1, '2026-01-01 10:00+00', now(), NULL)""")
    assert rows(altered, "SELECT id, direction, duration, is_answered, call_status, call_user, call_user_id, "
                         "created_date::text, entity_name "
                         "FROM calls ORDER BY 1") == [
        (1, "out", 60, True, None, "Anna", 1, "2026-03-28", "First"),
        (2, "in", 30, True, "talked", "Bruno", 2, "2026-03-29", "Fourth"),
        (3, "out", 0, False, "no answer", "Anna", 1, "2026-03-29", "First"),
        (5, "in", 0, False, None, "Anna", 1, "2026-01-02", "Ann"),
        (6, "in", 4, True, None, "user 99", 99, "2026-01-01", "Ann"),
        (7, "in", None, False, None, "Anna", 1, "2026-01-01", "First"),
        (9, "in", None, None, None, "Tim", 1, "2026-01-01", "First")]
    assert (rows(altered, "SELECT call_user, call_user_id, calls FROM call_report WHERE call_user_id = 99")
            == [("user 99", 99, 1)])
    assert rows(altered, "SELECT phone, call_result FROM calls WHERE id = 6") == [("+71", "no")]


def test_incoming_leads(altered: Connection) -> None:
    altered.execute("""
        INSERT INTO amocrm.unsorted (uid, category, pipeline_id, source_name, created_at, metadata,
                                     _synced_at)
        VALUES ('u2', 'mail', 7, 'Mailbox', '2025-12-31 23:30+00',
                '{"from": {"email": "a@b"}, "subject": "N", "content_summary": "H"}', now()),
               ('u3', 'sip', 8, NULL, '2026-01-02 10:00+00', '{"from": "+7 1", "phone": "+7 2"}', now()),
               ('u4', 'forms', 9, NULL, NULL, NULL, now());
        INSERT INTO amocrm.unsorted_leads (unsorted_uid, lead_id) VALUES ('u2', 5);
        INSERT INTO amocrm.unsorted_contacts (unsorted_uid, contact_id) VALUES ('u2', 21), ('u2', 22)""")
    assert rows(altered,
                "SELECT uid, category, pipeline, source_name, created_date::text, lead, contact, contact_id, "
                "phone, sender, subject, "
                "message FROM unsorted ORDER BY 1") == [
        ("u2", "mail", "Retail", "Mailbox", "2026-01-01", "Fifth", "Ann", 21, None, "a@b", "N", "H"),
        ("u3", "sip", "Wholesale", None, "2026-01-02", None, None, None, "+7 2", "+7 1", None, None),
        ("u4", "forms", None, None, None, None, None, None, None, None, None, None)]


def test_customers_contacts_and_companies(altered: Connection) -> None:
    """Customer 1's main contact is 22, Ann is another one; customer 2's is deleted. Company 41 and customer 3
    are deleted. Bruno created them all."""
    altered.execute(
        "INSERT INTO amocrm.companies (id, name, _synced_at, _deleted_at) VALUES (41, 'Gone', now(), now()), "
        "(42, 'Oak', now(), NULL);"
        "INSERT INTO amocrm.customer_statuses (id, name, _synced_at) VALUES (5, 'New', now());"
        "INSERT INTO amocrm.tags (entity_type, id, name, _synced_at) VALUES ('customers', 1, 'vip', now()), "
        "('leads', 1, 'no', now()), "
        "('leads', 2, 'no', now()), ('leads', 3, 'no', now()), ('companies', 2, 'big', now()), "
        "('contacts', 3, 'b', now()), ('contacts', 4, 'a', now());"
        "INSERT INTO amocrm.customer_tags (customer_id, tag_id) VALUES (1, 1); "
        "INSERT INTO amocrm.company_tags (company_id, tag_id) "
        "VALUES (42, 2); INSERT INTO amocrm.contact_tags (contact_id, tag_id) VALUES (21, 3), (21, 4);"
        "INSERT INTO amocrm.customer_contacts (customer_id, contact_id, is_main) VALUES (1, 22, true), "
        "(1, 21, false), (2, 24, true);"
        "INSERT INTO amocrm.contact_companies (contact_id, company_id) VALUES (21, 42), (22, 41);"
        "INSERT INTO amocrm.customer_companies (customer_id, company_id) VALUES (1, 42), (2, 41);"
        "UPDATE amocrm.customers SET status_id = 5, next_date = '2025-12-31 23:30+00', "
        "created_at = '2026-03-28 23:30+00' WHERE id = 1;"
        "UPDATE amocrm.customers SET _deleted_at = now() WHERE id = 3;" + "".join(
            f"UPDATE amocrm.{table} SET created_by = 2, updated_by = 1, responsible_user_id = "
            "coalesce(responsible_user_id, 1);"
            for table in ("customers", "contacts", "companies")))
    for view in ("customers", "contacts", "companies"):
        assert rows(altered, f"SELECT DISTINCT created_by_user, updated_by_user FROM {view}") == [
            ("Bruno", "Anna")]
    assert rows(altered, "SELECT id, status, ltv::int, next_date::text, responsible_user, tags, segments, "
                         "main_contact, company, created_date::text "
                         "FROM customers ORDER BY 1") == [
        (1, "New", 610, "2026-01-01", "Bruno", ["vip"], [], "Anna N", "Oak", "2026-03-29"),
        (2, None, 40, None, "Anna", [], [], None, None, None)]
    assert rows(altered, "SELECT id, name, responsible_user, tags FROM companies") == [
        (42, "Oak", "Anna", ["big"])]
    assert rows(
        altered,
        "SELECT id, responsible_user, tags, phone, company FROM contacts WHERE id <> 23 ORDER BY 1") == [
            (21, "Anna", ["a", "b"], ["+7 (922) 034-55-18", "89220345518"], "Oak"),
            (22, "Anna", [], ["8 922 034 55 18"], None)]


def test_a_list(altered: Connection) -> None:
    altered.execute(
        "INSERT INTO amocrm.catalog_elements (id, catalog_id, name, is_deleted, created_at, _synced_at, "
        "_deleted_at) VALUES "
        "(63, 50, 'Gone', NULL, now(), now(), now()), (64, 50, 'In the bin', true, now(), now(), NULL), "
        "(65, 50, 'Hinge', false, '2025-12-31 23:30+00', now(), NULL), (66, 51, 'Another list''s', NULL, "
        "now(), now(), NULL)")
    assert rows(
        altered,
        "SELECT id, name, created_date::text, price::int, wholesale::int FROM catalog_goods ORDER BY 1") == [
            (61, "Door", None, 100, 80), (62, "Knob", None, None, None),
            (65, "Hinge", "2026-01-01", None, None)]
