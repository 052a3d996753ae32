SET client_min_messages = warning;
INSERT INTO amocrm.accounts (id, name, timezone, _synced_at) VALUES (1, 'a', 'Asia/Yekaterinburg', now());
INSERT INTO amocrm.users (id, name, _synced_at) SELECT i, 'user ' || i, now() FROM generate_series(1, 40) i;
INSERT INTO amocrm.user_groups (id, name, _synced_at) SELECT i, 'group ' || i, now() FROM generate_series(0, 5) i;
INSERT INTO amocrm.pipelines (id, name, sort, _synced_at) SELECT i, 'pipeline ' || i, i, now() FROM generate_series(1, 5) i;
INSERT INTO amocrm.statuses (pipeline_id, id, name, sort, _synced_at)
SELECT p, s, 'stage ' || s, s, now() FROM generate_series(1, 5) p, unnest(ARRAY[10, 11, 12, 13, 14, 142, 143]) s;
INSERT INTO amocrm.contacts (id, name, _synced_at, created_at, responsible_user_id)
SELECT i, 'contact ' || i, now(), now(), 1 + i % 40 FROM generate_series(1, :leads / 2) i;
INSERT INTO amocrm.companies (id, name, _synced_at, created_at) SELECT i, 'company ' || i, now(), now() FROM generate_series(1, :leads / 10) i;
INSERT INTO amocrm.tags (entity_type, id, name, _synced_at) SELECT 'leads', i, 'tag ' || i, now() FROM generate_series(1, 50) i;
INSERT INTO amocrm.sources (id, name, _synced_at) SELECT i, 'source ' || i, now() FROM generate_series(1, 12) i;
INSERT INTO amocrm.loss_reasons (id, name, _synced_at) SELECT i, 'reason ' || i, now() FROM generate_series(1, 9) i;
INSERT INTO amocrm.leads (id, name, price, status_id, pipeline_id, responsible_user_id, group_id, created_at, closed_at, updated_at, created_by, source_id, loss_reason_id, _synced_at)
SELECT i, 'deal ' || i, (i::bigint * 7) % 100000, s.id, 1 + i % 5, 1 + i % 40, i % 6, t.at, CASE WHEN s.id >= 142 THEN t.at + interval '6 days' END, now(), 1 + i % 40, 1 + abs(hashint4(i) % 12), CASE s.id WHEN 143 THEN 1 + i / 7 % 9 END, now()
FROM generate_series(1, :leads) i, LATERAL (SELECT (ARRAY[10, 11, 12, 13, 14, 142, 143])[1 + i % 7] AS id) s,
     LATERAL (SELECT timestamptz '2024-10-01' + i * interval '25 months' / :leads AS at) t;
INSERT INTO amocrm.lead_contacts (lead_id, contact_id, is_main) SELECT i, 1 + i % (:leads / 2), true FROM generate_series(1, :leads) i;
INSERT INTO amocrm.lead_companies (lead_id, company_id) SELECT i, 1 + i % (:leads / 10) FROM generate_series(1, :leads, 3) i;
INSERT INTO amocrm.lead_tags (lead_id, tag_id)
SELECT i, 1 + (i + k) % 50 FROM generate_series(2, 2 * :leads + 1) n, LATERAL (SELECT n / 2 AS i, n % 2 AS k) r WHERE (i + k) % 3 = 0;
INSERT INTO amocrm.custom_fields (entity_type, id, name, type, sort, _synced_at)
SELECT 'leads', 1000 + n, 'Поле ' || n, CASE WHEN n <= 6 THEN 'text' WHEN n <= 11 THEN 'select' WHEN n <= 15 THEN 'numeric' WHEN n <= 17 THEN 'date'
       WHEN n = 18 THEN 'checkbox' WHEN n = 19 THEN 'multiselect' ELSE 'date_time' END, n, now() FROM generate_series(1, 20) n;
INSERT INTO amocrm.lead_custom_field_values (lead_id, field_id, position, value_text, value_number, value_boolean, value_date, value_at, enum_id)
SELECT i, 1000 + f, 0, CASE WHEN f <= 6 THEN 'text ' || (i::bigint * f % 1000) WHEN f <= 11 THEN 'option ' || (i::bigint * f) % 12
         WHEN f <= 15 THEN (i::bigint * f % 5000)::text WHEN f <= 17 THEN (date '2026-01-01' + i % 300)::text WHEN f = 18 THEN 'true'
         WHEN f = 19 THEN 'option ' || i % 9 ELSE '2026-01-01T00:00:00+05:00' END,
       CASE WHEN f BETWEEN 12 AND 15 THEN i::bigint * f % 5000 END, CASE WHEN f = 18 THEN i % 2 = 0 END,
       CASE WHEN f BETWEEN 16 AND 17 THEN date '2026-01-01' + i % 300 END, CASE WHEN f = 20 THEN timestamptz '2026-01-01' + i * interval '1 second' END,
       CASE WHEN f BETWEEN 7 AND 11 OR f = 19 THEN i::bigint * f % 12 END
FROM generate_series(0, 20 * :leads - 1) n, LATERAL (SELECT 1 + n / 20 AS i, 1 + n % 20 AS f) r;
INSERT INTO amocrm.lead_status_history (lead_id, entered_at, pipeline_id, status_id, left_at, source)
SELECT l.id, l.created_at + k * interval '3 days', l.pipeline_id, CASE WHEN k = 2 THEN l.status_id ELSE 10 + k END,
       CASE WHEN k < 2 THEN l.created_at + (k + 1) * interval '3 days' END, CASE WHEN k = 0 THEN 'created' ELSE 'event' END
FROM amocrm.leads l, generate_series(0, 2) k;
INSERT INTO amocrm.responsible_history (entity_type, entity_id, entered_at, responsible_user_id, source)
SELECT 'leads', id, created_at, responsible_user_id, 'created' FROM amocrm.leads;
INSERT INTO amocrm.tasks (id, entity_type, entity_id, complete_till, is_completed, responsible_user_id, created_at, updated_at, _synced_at)
SELECT i, 'leads', i * 2, timestamptz '2026-11-01' - i * interval '1 minute', i % 3 > 0, 1 + i % 40, now(), now(), now() FROM generate_series(1, :leads / 3) i;
INSERT INTO amocrm.notes (entity_type, id, entity_id, note_type, params, created_at, responsible_user_id, _synced_at)
SELECT CASE WHEN i % 2 = 0 THEN 'leads' ELSE 'contacts' END, i, i, (ARRAY['call_in', 'call_out', 'common'])[1 + i % 3],
       jsonb_build_object('duration', i % 300, 'phone', '79' || i), l.created_at + interval '2 hours', 1 + i % 40, now()
FROM generate_series(1, :leads / 2) i JOIN amocrm.leads l ON l.id = i;
INSERT INTO amocrm.events (id, type, entity_type, entity_id, created_by, created_at, _synced_at)
SELECT 'e' || i, (ARRAY['outgoing_call', 'lead_status_changed', 'outgoing_chat_message', 'task_completed'])[1 + i % 4],
       CASE WHEN i % 4 = 3 THEN 'task' ELSE 'lead' END, i, 1 + i % 40, l.created_at + (i % 5000) * interval '1 minute', now()
FROM generate_series(1, :leads) i JOIN amocrm.leads l ON l.id = i;
INSERT INTO amocrm.custom_fields (entity_type, id, name, code, type, _synced_at) VALUES ('contacts', 2001, 'Телефон', 'PHONE', 'multitext', now());
INSERT INTO amocrm.contact_custom_field_values (contact_id, field_id, position, value_text)
SELECT i, 2001, 0, '+79' || lpad((i % (:leads / 2 - 50000 * (:leads / 1000000)))::text, 9, '0') FROM generate_series(1, :leads / 2) i;
INSERT INTO amocrm.custom_field_required_statuses (entity_type, field_id, pipeline_id, status_id)
SELECT 'leads', 1000 + f, p, 142 FROM generate_series(1, 2) f, generate_series(1, 5) p;
INSERT INTO amocrm.customer_statuses (id, name, sort, _synced_at) SELECT i, 'customers ' || i, i, now() FROM generate_series(1, 5) i;
INSERT INTO amocrm.customers (id, name, next_price, next_date, status_id, responsible_user_id, ltv, purchases_count, created_at, _synced_at)
SELECT i, 'customer ' || i, i % 9000, now() + i % 90 * interval '1 day', 1 + i % 5, 1 + i % 40, i % 50000, 5, now(), now()
FROM generate_series(1, :leads / 10) i;
INSERT INTO amocrm.transactions (id, customer_id, price, completed_at, created_at, _synced_at)
SELECT i, 1 + i % (:leads / 10), i % 20000, timestamptz '2024-10-01' + i * interval '25 months' / (:leads / 2), now(), now()
FROM generate_series(1, :leads / 2) i;
INSERT INTO amocrm.catalogs (id, name, type, _synced_at) VALUES (50, 'Товары', 'products', now());
INSERT INTO amocrm.catalog_elements (id, catalog_id, name, _synced_at) SELECT i, 50, 'product ' || i, now() FROM generate_series(1, 1000) i;
INSERT INTO amocrm.custom_fields (entity_type, id, catalog_id, name, code, type, _synced_at)
VALUES ('catalogs', 3001, 50, 'Цена', 'PRICE', 'numeric', now()), ('catalogs', 3002, 50, 'Опт', NULL, 'price', now());
INSERT INTO amocrm.catalog_element_custom_field_values (catalog_element_id, field_id, position, value_text, value_number)
SELECT i, f, 0, (i * f % 9000)::text, i * f % 9000 FROM generate_series(1, 1000) i, generate_series(3001, 3002) f;
INSERT INTO amocrm.lead_catalog_elements (lead_id, catalog_element_id, catalog_id, quantity, price_id)
SELECT i, 1 + (i * 7 + k * 13) % 1000, 50, 1 + i % 4, CASE WHEN i % 3 = 0 THEN 3002 END
FROM generate_series(2, 2 * :leads + 1) n, LATERAL (SELECT n / 2 AS i, n % 2 AS k) r;
INSERT INTO amocrm.transaction_catalog_elements (transaction_id, catalog_element_id, catalog_id, quantity)
SELECT i, 1 + i % 1000, 50, 1 + i % 3 FROM generate_series(1, :leads / 2) i;
VACUUM ANALYZE
