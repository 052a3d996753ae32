-- An account with three pipelines, four users and three sources, 900 deals of three years, and names that would end a script.
INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('amocrm', 'amocrm', 'https://mill.kommo.com');
INSERT INTO amocrm.accounts (id, name, country, currency, timezone, _synced_at)
VALUES (1, '</script><script>alert(1)</script>', 'BR', 'BRL', 'Asia/Kathmandu', now());
INSERT INTO amocrm.users (id, name, _synced_at) VALUES (1, 'Anna "the <b>bold</b>" O''Hara', now()), (2, 'Bruno', now()), (3, 'Bruno', now());
INSERT INTO amocrm.pipelines (id, name, sort, _synced_at) VALUES (7, '</script>', 1, now()), (8, '{{ 1 }}', 2, now()), (9, 'Service', 3, now());
INSERT INTO amocrm.statuses (pipeline_id, id, name, sort, _synced_at)
SELECT p, s.id + CASE WHEN s.id < 100 THEN p * 10 ELSE 0 END, s.name, s.sort, now() FROM (VALUES (7), (8), (9)) x (p),
  (VALUES (1, 'New', 10), (2, 'Offer <!--', 20), (3, 'Contract', 30), (142, 'Won', 10000), (143, 'Lost', 11000)) s (id, name, sort);
INSERT INTO amocrm.loss_reasons (id, name, _synced_at) VALUES (1, 'Too dear', now()), (2, '${alert(2)}', now());
INSERT INTO amocrm.sources (id, name, _synced_at) VALUES (1, 'Site', now()), (2, '<img src=x onerror=alert(3)>', now());
INSERT INTO amocrm.leads (id, name, price, pipeline_id, status_id, responsible_user_id, loss_reason_id, source_id, created_at, closed_at, _synced_at, _deleted_at)
SELECT i, 'Secret deal ' || i || ' <i>&amp;', i * 37 % 5000 + 0.5 * (i % 2), p, CASE i % 3 WHEN 0 THEN 142 WHEN 1 THEN 143 ELSE p * 10 + 1 + i % 2 END, (ARRAY[1, 2, 3, 9380011])[1 + i / 3 % 4],
  CASE WHEN i % 3 = 1 THEN nullif(i % 4, 3) END, nullif(i / 2 % 3, 0), created, CASE WHEN i % 3 < 2 THEN least(created + (1 + i % 40) * interval '1 day', now()) END, now(),
  CASE WHEN i % 50 = 0 THEN now() END
FROM generate_series(1, 900) i, LATERAL (SELECT 7 + i / 5 % 3 AS p, now() - (i * i / 740.0) * interval '1 day' - (i % 24) * interval '1 hour' AS created) x;
INSERT INTO amocrm.lead_status_history (lead_id, pipeline_id, status_id, entered_at, left_at, source)
SELECT id, pipeline_id, pipeline_id * 10 + 1, created_at, CASE WHEN status_id <> pipeline_id * 10 + 1 THEN created_at + (coalesce(closed_at, now()) - created_at) / 2 END, 'created' FROM amocrm.leads
UNION ALL SELECT id, pipeline_id, status_id, created_at + (coalesce(closed_at, now()) - created_at) / 2, NULL, 'event' FROM amocrm.leads WHERE status_id <> pipeline_id * 10 + 1;
INSERT INTO amocrm.responsible_history (entity_type, entity_id, responsible_user_id, entered_at, source) SELECT 'leads', id, responsible_user_id, created_at, 'created' FROM amocrm.leads;
INSERT INTO amocrm.custom_fields (entity_type, id, catalog_id, name, code, type, _synced_at) VALUES
  ('leads', 31, 0, 'Size', NULL, 'select', now()), ('leads', 32, 0, '{{ 1 }}', NULL, 'multiselect', now()), ('leads', 33, 0, 'Free', NULL, 'text', now()),
  ('contacts', 34, 0, 'Phone', 'PHONE', 'multitext', now()), ('leads', 35, 0, 'Gone', NULL, 'select', now());
UPDATE amocrm.custom_fields SET _deleted_at = now() WHERE id = 35;
INSERT INTO amocrm.lead_custom_field_values (lead_id, field_id, position, value_text)
SELECT id, 31, 0, CASE WHEN id % 2 = 0 THEN 'large' ELSE 'small' END FROM amocrm.leads UNION ALL SELECT id, 32, 0, 'a' FROM amocrm.leads WHERE id % 5 = 0
UNION ALL SELECT id, 32, 1, '</script>' FROM amocrm.leads WHERE id % 10 = 0 UNION ALL SELECT id, 33, 0, 'words' FROM amocrm.leads UNION ALL SELECT id, 35, 0, 'x' FROM amocrm.leads;
INSERT INTO amocrm.custom_field_required_statuses (entity_type, field_id, pipeline_id, status_id) VALUES ('leads', 32, 7, 142);
INSERT INTO amocrm.contacts (id, name, _synced_at) VALUES (21, 'Hidden Person', now()), (22, 'Hidden Twin', now());
INSERT INTO amocrm.contact_custom_field_values (contact_id, field_id, position, value_text) VALUES (21, 34, 0, '+7 922 034 55 18'), (22, 34, 0, '89220345518');
INSERT INTO amocrm.tasks (id, entity_type, entity_id, text, responsible_user_id, complete_till, is_completed, created_at, updated_at, _synced_at)
SELECT 1000 + id, 'leads', id, 'Secret task for Hidden Person', responsible_user_id, now() - id * interval '1 hour', false, created_at, created_at, now()
FROM amocrm.leads WHERE id % 30 = 5;
INSERT INTO amocrm.notes (entity_type, id, entity_id, note_type, params, responsible_user_id, created_at, _synced_at)
SELECT 'leads', id, id, CASE WHEN id % 2 = 0 THEN 'call_in' ELSE 'call_out' END, jsonb_build_object('duration', id % 90, 'call_status', 4 + id % 3), responsible_user_id, created_at + interval '20 minutes', now()
FROM amocrm.leads WHERE id % 4 = 0;
INSERT INTO amocrm.customers (id, name, responsible_user_id, _synced_at) SELECT i, 'Hidden Customer ' || i, 1 + i % 3, now() FROM generate_series(1, 12) i;
INSERT INTO amocrm.transactions (id, customer_id, price, completed_at, is_deleted, _synced_at)
SELECT i, 1 + i % 12, i * 10, now() - i * interval '9 days', false, now() FROM generate_series(1, 40) i;
INSERT INTO amocrm.sales_plans (month, value, deals) SELECT date_trunc('month', now())::date, 1000000, 20;
INSERT INTO amocrm.sales_plans (month, responsible_user_id, value) SELECT date_trunc('month', now())::date, 2, 5000;
INSERT INTO mirror.sync_runs (account, run_id, entity, state, started_at, finished_at, watermark) VALUES ('amocrm', 'a', 'leads', 'complete', now(), now(), '2026-03-01 18:20+00');
INSERT INTO mirror.verifications (account, run_id, entity, state, began_at, ended_at, compared, missing, extra, stale, requests)
VALUES ('amocrm', 'v', 'leads', 'equal', now(), '2026-03-01 18:20+00', 7, 0, 0, 0, 1);
INSERT INTO amocrm.tasks (id, entity_type, entity_id, text, responsible_user_id, complete_till, is_completed, created_at, updated_at, _synced_at)
SELECT 5000 + id, 'leads', id, 'done', responsible_user_id, created_at + interval '2 days', true, created_at, least(created_at + interval '1 day', now()), now()
FROM amocrm.leads WHERE id % 7 = 3;
INSERT INTO amocrm.notes (entity_type, id, entity_id, note_type, params, responsible_user_id, created_at, _synced_at)
SELECT 'leads', 5000 + id, id, 'common', '{"text": "a note"}', responsible_user_id, created_at + interval '10 minutes', now() FROM amocrm.leads WHERE id % 6 = 1;
INSERT INTO amocrm.custom_fields (entity_type, id, catalog_id, name, code, type, _synced_at) VALUES
  ('leads', 41, 0, 'utm_source', 'UTM_SOURCE', 'tracking_data', now()), ('leads', 42, 0, 'utm_campaign', 'UTM_CAMPAIGN', 'tracking_data', now()),
  ('catalogs', 61, 60, 'Price', 'PRICE', 'numeric', now());
INSERT INTO amocrm.lead_custom_field_values (lead_id, field_id, position, value_text)
SELECT id, 41, 0, 'mail' FROM amocrm.leads WHERE id % 5 = 1 UNION ALL SELECT id, 42, 0, CASE WHEN id % 3 = 0 THEN 'spring {{ 2 }}' ELSE 'autumn' END FROM amocrm.leads WHERE id % 5 = 1;
INSERT INTO amocrm.unsorted (uid, source_name, category, created_at, _synced_at)
SELECT 'u' || id, 'Form <i>', CASE WHEN id % 2 = 0 THEN 'forms' ELSE 'sip' END, created_at, now() FROM amocrm.leads WHERE id % 11 = 2;
INSERT INTO amocrm.unsorted_leads (unsorted_uid, lead_id) SELECT 'u' || id, id FROM amocrm.leads WHERE id % 11 = 2;
INSERT INTO amocrm.catalogs (id, name, type, _synced_at) VALUES (60, 'Goods', 'products', now());
INSERT INTO amocrm.catalog_elements (id, catalog_id, name, _synced_at) SELECT i, 60, 'Board ' || i, now() FROM generate_series(1, 3) i;
INSERT INTO amocrm.catalog_element_custom_field_values (catalog_element_id, field_id, position, value_text, value_number)
SELECT i, 61, 0, (i * 100)::text, i * 100 FROM generate_series(1, 3) i;
INSERT INTO amocrm.lead_catalog_elements (lead_id, catalog_element_id, catalog_id, quantity)
SELECT id, 1 + id / 2 % 3, 60, 1 + id % 4 FROM amocrm.leads WHERE id % 2 = 0;
INSERT INTO amocrm.transaction_catalog_elements (transaction_id, catalog_element_id, catalog_id, quantity)
SELECT id, 1 + id % 3, 60, 2 FROM amocrm.transactions WHERE id % 2 = 0;
