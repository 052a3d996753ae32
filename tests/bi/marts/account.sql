-- The account of test_marts.py. Times are UTC; Berlin is an hour ahead, from 01:00 UTC on 29 March 2026 two hours.
SET timezone TO 'UTC';
INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('mill', 'amocrm', 'https://mill.amocrm.ru');
INSERT INTO amocrm.accounts (id, timezone, _synced_at) VALUES (1, 'Europe/Berlin', now());
INSERT INTO amocrm.users (id, name, _synced_at) VALUES (1, 'Anna', now()), (2, 'Bruno', now());
INSERT INTO amocrm.pipelines (id, name, sort, _synced_at) VALUES (7, 'Retail', 1, now()), (8, 'Wholesale', 2, now());
INSERT INTO amocrm.statuses (pipeline_id, id, name, sort, _synced_at) VALUES
  (7, 11, 'New', 10, now()), (7, 12, 'Offer', 20, now()), (7, 142, 'Won', 10000, now()), (7, 143, 'Lost', 11000, now()),
  (8, 21, 'Talks', 10, now()), (8, 142, 'Done', 10000, now()), (8, 143, 'Failed', 11000, now());
INSERT INTO amocrm.loss_reasons (id, name, _synced_at) VALUES (1, 'Too dear', now());
INSERT INTO amocrm.sources (id, name, _synced_at) VALUES (1, 'Site', now());
INSERT INTO amocrm.holidays (day, name) VALUES ('2026-01-01', 'New Year');

INSERT INTO amocrm.leads (id, name, price, pipeline_id, status_id, responsible_user_id, loss_reason_id, source_id, created_at, closed_at, _synced_at,
  _deleted_at) VALUES
  (1, 'First', 300, 7, 142, 1, NULL, 1, '2025-12-27 12:00', '2025-12-29 12:00', now(), NULL),
  (2, 'Second', 100, 7, 142, 1, NULL, 1, '2025-12-29 23:30', '2025-12-31 23:30', now(), NULL),
  (3, 'Third', 50, 7, 143, 2, 1, NULL, '2025-12-28 10:00', '2025-12-31 10:00', now(), NULL),
  (4, 'Fourth', 20, 7, 12, 1, NULL, NULL, '2025-12-27 10:00', NULL, now(), NULL),
  (5, 'Fifth', 10, 7, 11, 1, NULL, NULL, '2025-12-31 23:15', NULL, now(), NULL),
  (6, 'Sixth', 5, 7, 11, 2, NULL, NULL, '2025-12-28 09:00', NULL, now(), '2025-12-31 12:00'),
  (7, 'Seventh', 70, 8, 143, 2, NULL, NULL, '2026-01-05 10:00', '2026-01-06 10:00', now(), NULL),
  (8, 'Eighth', 90, 8, 21, 1, NULL, NULL, '2026-03-27 16:30', NULL, now(), NULL);
INSERT INTO amocrm.lead_status_history (lead_id, pipeline_id, status_id, entered_at, left_at, source) VALUES
  (1, 7, 11, '2025-12-27 12:00', '2025-12-28 12:00', 'created'), (1, 7, 12, '2025-12-28 12:00', '2025-12-29 12:00', 'event'),
  (1, 7, 142, '2025-12-29 12:00', NULL, 'event'),
  (2, 7, 11, '2025-12-29 23:30', '2025-12-31 23:30', 'created'), (2, 7, 142, '2025-12-31 23:30', NULL, 'event'),
  (3, 7, 11, '2025-12-28 10:00', '2025-12-29 10:00', 'created'), (3, 7, 12, '2025-12-29 10:00', '2025-12-31 10:00', 'event'),
  (3, 7, 143, '2025-12-31 10:00', NULL, 'event'),
  (4, 7, 11, '2025-12-27 10:00', '2025-12-28 10:00', 'created'), (4, 7, 142, '2025-12-28 10:00', '2025-12-30 10:00', 'event'),
  (4, 7, 12, '2025-12-30 10:00', NULL, 'event'),
  (5, 7, 11, '2025-12-31 23:15', NULL, 'created'), (6, 7, 11, '2025-12-28 09:00', NULL, 'created'),
  (7, 8, 21, '2026-01-05 10:00', '2026-01-06 10:00', 'created'), (7, 8, 143, '2026-01-06 10:00', NULL, 'event'),
  (8, 8, 21, '2026-03-27 16:30', NULL, 'created');
INSERT INTO amocrm.responsible_history (entity_type, entity_id, responsible_user_id, entered_at, left_at, source) VALUES
  ('leads', 1, 2, '2025-12-27 12:00', '2025-12-29 12:00', 'created'), ('leads', 1, 1, '2025-12-29 12:00', NULL, 'event'),
  ('leads', 2, 1, '2025-12-29 23:30', NULL, 'created'), ('leads', 3, 2, '2025-12-28 10:00', NULL, 'created'),
  ('leads', 4, 1, '2025-12-27 10:00', NULL, 'created'), ('leads', 5, 1, '2025-12-31 23:15', NULL, 'created'),
  ('leads', 7, 2, '2026-01-05 10:00', NULL, 'created'),
  ('leads', 8, 2, '2026-03-27 16:30', '2026-03-29 05:00', 'created'), ('leads', 8, 1, '2026-03-29 05:00', NULL, 'event');

INSERT INTO amocrm.custom_fields (entity_type, id, catalog_id, name, code, type, _synced_at) VALUES
  ('leads', 31, 0, 'Source', 'UTM_SOURCE', 'tracking_data', now()), ('leads', 32, 0, 'utm_medium', NULL, 'tracking_data', now()),
  ('contacts', 33, 0, 'Phone', 'PHONE', 'multitext', now()), ('contacts', 34, 0, 'E-mail', 'EMAIL', 'multitext', now()),
  ('leads', 35, 0, 'Contract', NULL, 'text', now()), ('leads', 36, 0, 'Size', NULL, 'select', now()),
  ('catalogs', 41, 50, 'Price', 'PRICE', 'numeric', now()), ('catalogs', 42, 50, 'Wholesale', NULL, 'price', now());
INSERT INTO amocrm.custom_field_required_statuses (entity_type, field_id, pipeline_id, status_id) VALUES
  ('leads', 35, 7, 142), ('contacts', 33, 7, 142);
INSERT INTO amocrm.lead_custom_field_values (lead_id, field_id, position, value_text) VALUES
  (1, 31, 0, 'yandex'), (1, 32, 0, 'cpc'), (1, 35, 0, 'A-1'), (2, 35, 0, ''),
  (1, 36, 0, 'large'), (2, 36, 0, 'small'), (3, 36, 0, 'large'), (4, 36, 0, 'small'), (7, 36, 0, '');
INSERT INTO amocrm.unsorted (uid, category, source_name, created_at, metadata, _synced_at, _deleted_at) VALUES
  ('u1', 'forms', 'Landing page', '2025-12-28 09:59', '{"form_name": "Order"}', now(), now());
INSERT INTO amocrm.unsorted_leads (unsorted_uid, lead_id) VALUES ('u1', 3);

INSERT INTO amocrm.contacts (id, name, _synced_at, _deleted_at) VALUES
  (21, 'Ann', now(), NULL), (22, 'Anna N', now(), NULL), (23, 'A. N.', now(), NULL), (24, 'Gone', now(), now());
INSERT INTO amocrm.contact_custom_field_values (contact_id, field_id, position, value_text) VALUES
  (21, 33, 0, '+7 (922) 034-55-18'), (21, 33, 1, '89220345518'), (21, 34, 0, ' Ann@Example.com'), (22, 33, 0, '8 922 034 55 18'),
  (22, 34, 0, 'other@example.com'), (23, 33, 0, '9220345518'), (23, 34, 0, 'ann@example.com'), (24, 33, 0, '+79220345518');
INSERT INTO amocrm.lead_contacts (lead_id, contact_id, is_main) VALUES (2, 21, true), (2, 22, false);

INSERT INTO amocrm.task_types (id, name, _synced_at) VALUES (1, 'Call', now());
INSERT INTO amocrm.tasks (id, entity_type, entity_id, task_type_id, responsible_user_id, complete_till, is_completed, created_at, updated_at, _synced_at)
VALUES (101, 'leads', 4, 1, 1, '2026-03-28 22:30', false, '2026-03-28 10:00', '2026-03-28 10:00', now()),
  (102, NULL, NULL, NULL, 1, '2026-03-28 23:30', NULL, '2026-03-28 10:00', '2026-03-28 10:00', now()),
  (103, 'leads', 8, 1, 2, '2026-03-29 10:00', true, '2026-03-28 23:30', '2026-05-01 10:00', now());
INSERT INTO amocrm.notes (entity_type, id, entity_id, note_type, params, responsible_user_id, created_at, _synced_at) VALUES
  ('leads', 1, 1, 'call_out', '{"duration": 60}', 1, '2026-03-28 22:59', now()),
  ('leads', 2, 4, 'call_in', '{"duration": "30", "call_responsible": 2, "call_status": 4}', 1, '2026-03-28 23:01', now()),
  ('leads', 3, 1, 'call_out', '{"duration": 0, "call_responsible": "Anna", "call_status": 6}', 1, '2026-03-29 21:59', now()),
  ('leads', 4, 8, 'common', '{"text": "x"}', 2, '2026-03-29 10:00', now()),
  ('contacts', 5, 21, 'call_in', '{"duration": 0}', 1, '2026-01-02 10:00', now());
INSERT INTO amocrm.events (id, type, entity_type, entity_id, created_by, created_at, _synced_at) VALUES
  ('1', 'task_completed', 'task', 103, 1, '2026-03-29 21:59', now()), ('2', 'outgoing_call', 'lead', 8, 1, '2026-03-30 08:00', now()),
  ('3', 'outgoing_chat_message', 'lead', 5, 2, '2026-01-01 09:15', now()),
  ('9', 'outgoing_chat_message', 'lead', 5, 0, '2025-12-31 23:16', now()), ('4', 'outgoing_call', 'lead', 8, 2, '2026-03-31 08:00', now()),
  ('5', 'incoming_chat_message', 'lead', 8, 0, '2026-03-27 17:00', now());

INSERT INTO amocrm.catalogs (id, name, _synced_at) VALUES (50, 'Goods', now());
INSERT INTO amocrm.catalog_elements (id, catalog_id, name, _synced_at) VALUES (61, 50, 'Door', now()), (62, 50, 'Knob', now());
INSERT INTO amocrm.catalog_element_custom_field_values (catalog_element_id, field_id, position, value_text, value_number) VALUES
  (61, 41, 0, '100', 100), (61, 42, 0, '80', 80);
INSERT INTO amocrm.lead_catalog_elements (lead_id, catalog_element_id, catalog_id, quantity, price_id) VALUES
  (1, 61, 50, 2.5, 42), (1, 62, 50, NULL, NULL), (2, 61, 50, NULL, NULL), (3, 61, 50, 7, NULL);
INSERT INTO amocrm.customers (id, name, responsible_user_id, ltv, purchases_count, _synced_at) VALUES
  (1, 'Loyal', 2, 610, 4, now()), (2, 'Once', 1, 40, 1, now()), (3, 'Never', 1, NULL, NULL, now());
INSERT INTO amocrm.transactions (id, customer_id, price, completed_at, is_deleted, _synced_at) VALUES
  (11, 1, 100, '2025-12-01 10:00', false, now()), (12, 1, 200, '2026-01-30 10:00', NULL, now()), (13, 1, 300, '2025-12-21 10:00', false, now()),
  (14, 1, 1000, '2026-02-01 10:00', true, now()), (15, 2, 40, '2025-12-31 23:30', false, now());
INSERT INTO amocrm.transaction_catalog_elements (transaction_id, catalog_element_id, catalog_id, quantity) VALUES (11, 61, 50, 2), (14, 61, 50, 9);
INSERT INTO amocrm.sales_plans (month, responsible_user_id, pipeline_id, value, deals) VALUES
  ('2025-12-01', 0, 0, 1000, 2), ('2025-12-01', 1, 7, 200, NULL), ('2026-01-01', 1, 0, 0, 4), ('2026-02-01', 2, 8, NULL, 1),
  ('2025-12-01', 0, 8, 500, 1), ('2026-01-01', 2, 0, 50, NULL);
