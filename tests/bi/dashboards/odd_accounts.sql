-- Each part makes an odd account of that of account.sql.

-- no deals
DELETE FROM amocrm.leads;
DELETE FROM amocrm.lead_status_history;
DELETE FROM amocrm.tasks;
DELETE FROM amocrm.notes;
DELETE FROM amocrm.lead_custom_field_values;
DELETE FROM amocrm.lead_catalog_elements;

-- no customers
DELETE FROM amocrm.customers;
DELETE FROM amocrm.transactions;
DELETE FROM amocrm.transaction_catalog_elements;

-- one pipeline
DELETE FROM amocrm.pipelines WHERE id > 7;
DELETE FROM amocrm.statuses WHERE pipeline_id > 7;
UPDATE amocrm.leads SET pipeline_id = 7, status_id = CASE WHEN status_id < 100 THEN 70 + status_id % 10 ELSE status_id END;
UPDATE amocrm.lead_status_history SET pipeline_id = 7, status_id = CASE WHEN status_id < 100 THEN 70 + status_id % 10 ELSE status_id END;

-- 60 pipelines
INSERT INTO amocrm.pipelines (id, name, sort, _synced_at) SELECT i, 'Pipeline ' || i, i, now() FROM generate_series(10, 66) i;
INSERT INTO amocrm.statuses (pipeline_id, id, name, sort, _synced_at)
SELECT p, CASE WHEN s < 13 THEN p * 100 + s ELSE 129 + s END, 'A stage of some length ' || s, s * 10, now()
FROM generate_series(10, 66) p, generate_series(1, 14) s;
UPDATE amocrm.leads SET pipeline_id = 7 + id % 60 WHERE id % 60 > 2;
UPDATE amocrm.leads SET status_id = pipeline_id * 100 + 1 + id % 12 WHERE pipeline_id > 9 AND status_id < 100;
UPDATE amocrm.lead_status_history h SET pipeline_id = l.pipeline_id, status_id = CASE WHEN h.status_id < 100
THEN l.pipeline_id * 100 + 1 + h.lead_id % 12 ELSE h.status_id END FROM amocrm.leads l WHERE l.id = h.lead_id AND l.pipeline_id > 9;

-- no money and no names
UPDATE amocrm.leads SET price = NULL, name = NULL;
UPDATE amocrm.accounts SET currency = 'no such', name = NULL;

-- views that are gone
DROP VIEW amocrm_bi.forecast;
DROP VIEW amocrm_bi.deals_by_field;
DROP VIEW amocrm_bi.stuck_deals;
ALTER VIEW amocrm_bi.sales_cycle RENAME COLUMN won TO w;
