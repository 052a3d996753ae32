-- What the tiles of the dashboards count, over the tables of account.sql: written apart from the marts. Each part may name `stages`.

-- stages
SELECT s.pipeline_id, s.id, s.sort, (SELECT lpad(count(*)::text, 2, '0') FROM amocrm.statuses t
  WHERE t.pipeline_id = s.pipeline_id AND (t.sort, t.id) <= (s.sort, s.id)) || '. ' || s.name AS stage
FROM amocrm.statuses s

-- closed
SELECT date(l.closed_at AT TIME ZONE 'Asia/Kathmandu') AS day, l.pipeline_id AS pipeline, l.responsible_user_id AS manager,
  l.status_id = 142 AS won, l.price, extract(epoch FROM l.closed_at - l.created_at) / 86400 AS days, r.name AS reason,
  (SELECT g.stage FROM amocrm.lead_status_history h JOIN stages g ON g.pipeline_id = h.pipeline_id AND g.id = h.status_id
   WHERE h.lead_id = l.id AND h.status_id < 142 ORDER BY h.entered_at DESC LIMIT 1) AS stage
FROM amocrm.leads l LEFT JOIN amocrm.loss_reasons r ON r.id = l.loss_reason_id
WHERE l._deleted_at IS NULL AND l.status_id IN (142, 143)

-- open
SELECT l.pipeline_id AS pipeline, l.responsible_user_id AS manager, l.price, g.stage,
  l.price * (SELECT avg((x.status_id = 142)::integer) FROM amocrm.leads x WHERE x._deleted_at IS NULL AND x.status_id IN (142, 143)
    AND (EXISTS (SELECT FROM amocrm.lead_status_history h WHERE h.lead_id = x.id AND h.pipeline_id = l.pipeline_id
                 AND h.status_id = l.status_id)
      OR x.pipeline_id = l.pipeline_id AND NOT EXISTS (
        SELECT FROM amocrm.lead_status_history h JOIN amocrm.leads y ON y.id = h.lead_id AND y._deleted_at IS NULL
        WHERE y.status_id IN (142, 143) AND h.pipeline_id = l.pipeline_id AND h.status_id = l.status_id))) AS expected
FROM amocrm.leads l JOIN stages g ON g.pipeline_id = l.pipeline_id AND g.id = l.status_id
WHERE l._deleted_at IS NULL AND l.closed_at IS NULL

-- created
SELECT date(l.created_at AT TIME ZONE 'Asia/Kathmandu') AS day, l.pipeline_id AS pipeline, l.responsible_user_id AS manager,
  l.status_id, l.price, coalesce((SELECT value_text FROM amocrm.lead_custom_field_values WHERE lead_id = l.id AND field_id = 41),
    (SELECT name FROM amocrm.sources WHERE id = l.source_id), u.source_name, 'unknown') AS channel, u.category,
  (SELECT value_text FROM amocrm.lead_custom_field_values WHERE lead_id = l.id AND field_id = 42) AS campaign
FROM amocrm.leads l LEFT JOIN amocrm.unsorted_leads x ON x.lead_id = l.id
LEFT JOIN amocrm.unsorted u ON u.uid = x.unsorted_uid WHERE l._deleted_at IS NULL

-- funnel
SELECT date(l.created_at AT TIME ZONE 'Asia/Kathmandu') AS day, l.pipeline_id AS pipeline, l.responsible_user_id AS manager, g.stage,
  (g.sort <= (SELECT max(t.sort) FROM amocrm.lead_status_history h JOIN amocrm.statuses t
     ON t.pipeline_id = h.pipeline_id AND t.id = h.status_id WHERE h.lead_id = l.id AND h.status_id <> 143))::integer AS reached
FROM amocrm.leads l JOIN stages g ON g.pipeline_id = l.pipeline_id AND g.id <> 143 WHERE l._deleted_at IS NULL

-- calls
SELECT date(created_at AT TIME ZONE 'Asia/Kathmandu') AS day, responsible_user_id AS manager,
  params ->> 'call_status' = '4' AS answered, (params ->> 'duration')::integer AS seconds
FROM amocrm.notes WHERE note_type LIKE 'call%%'

-- activity
SELECT date(d.at AT TIME ZONE 'Asia/Kathmandu') AS day, l.responsible_user_id AS manager, d.what, d.seconds FROM (
  SELECT lead_id, entered_at AS at, 'move' AS what, 0 AS seconds FROM amocrm.lead_status_history WHERE source = 'event'
  UNION ALL SELECT entity_id, created_at, note_type, coalesce((params ->> 'duration')::integer, 0) FROM amocrm.notes
  UNION ALL SELECT entity_id, created_at, 'task', 0 FROM amocrm.tasks
  UNION ALL SELECT entity_id, updated_at, 'done', 0 FROM amocrm.tasks WHERE is_completed
) d JOIN amocrm.leads l ON l.id = d.lead_id

-- responses
SELECT f.*, CASE WHEN at IS NULL THEN 'none' WHEN worked <= 900 THEN '15m' WHEN worked <= 3600 THEN '1h'
  WHEN worked <= 4 * 3600 THEN '4h' ELSE 'later' END AS wait
FROM (SELECT date(l.created_at AT TIME ZONE 'Asia/Kathmandu') AS day, l.pipeline_id AS pipeline, l.responsible_user_id AS manager, n.at,
  (SELECT coalesce(sum(greatest(0, extract(epoch FROM least(n.at, (d::date + w.closes_at) AT TIME ZONE 'Asia/Kathmandu')
                                           - greatest(l.created_at, (d::date + w.opens_at) AT TIME ZONE 'Asia/Kathmandu')))), 0)
   FROM generate_series(date(l.created_at AT TIME ZONE 'Asia/Kathmandu'), date(n.at AT TIME ZONE 'Asia/Kathmandu'), interval '1 day') d
   JOIN amocrm.working_hours w ON w.weekday = extract(isodow FROM d::date) WHERE n.at IS NOT NULL) AS worked
  FROM amocrm.leads l LEFT JOIN LATERAL (
    SELECT min(created_at) AS at FROM amocrm.notes WHERE entity_id = l.id AND created_at >= l.created_at
      AND created_at <= coalesce(l.closed_at, 'infinity')
      AND (note_type = 'call_out' OR note_type = 'call_in' AND params ->> 'call_status' = '4')) n ON true
  WHERE l._deleted_at IS NULL) f

-- overdue
SELECT l.pipeline_id AS pipeline, t.responsible_user_id AS manager, t.entity_id AS id,
  date(now() AT TIME ZONE 'Asia/Kathmandu') - date(t.complete_till AT TIME ZONE 'Asia/Kathmandu') AS days
FROM amocrm.tasks t LEFT JOIN amocrm.leads l ON l.id = t.entity_id AND l._deleted_at IS NULL
WHERE NOT t.is_completed AND t.complete_till < now()

-- stuck
SELECT l.id, l.pipeline_id AS pipeline, l.responsible_user_id AS manager, l.price
FROM amocrm.leads l JOIN amocrm.lead_status_history h ON h.lead_id = l.id AND h.left_at IS NULL
WHERE l._deleted_at IS NULL AND l.closed_at IS NULL AND now() - h.entered_at > (
  SELECT percentile_cont(0.9) WITHIN GROUP (ORDER BY o.left_at - o.entered_at) FROM amocrm.lead_status_history o
  JOIN amocrm.leads x ON x.id = o.lead_id AND x._deleted_at IS NULL WHERE o.pipeline_id = h.pipeline_id AND o.status_id = h.status_id)

-- without_task
SELECT id, pipeline_id AS pipeline, responsible_user_id AS manager FROM amocrm.leads l
WHERE _deleted_at IS NULL AND closed_at IS NULL AND id NOT IN (SELECT entity_id FROM amocrm.tasks WHERE NOT is_completed)

-- required
SELECT l.id, l.pipeline_id AS pipeline, g.stage, 'leads' AS kind, f.name AS field,
  l.id NOT IN (SELECT lead_id FROM amocrm.lead_custom_field_values WHERE field_id = 32) AS empty
FROM amocrm.leads l JOIN stages g ON g.pipeline_id = l.pipeline_id AND g.id = l.status_id JOIN amocrm.custom_fields f ON f.id = 32
WHERE l._deleted_at IS NULL AND l.pipeline_id = 7 AND l.status_id = 142

-- duplicates
SELECT right(regexp_replace(value_text, '\D', '', 'g'), 10) FROM amocrm.contact_custom_field_values
GROUP BY 1 HAVING count(*) > 1

-- customers
SELECT c.id, c.responsible_user_id AS manager, count(t.price) AS purchases, coalesce(sum(t.price), 0) AS ltv,
  max(t.completed_at) AS last
FROM amocrm.customers c LEFT JOIN (SELECT customer_id, price, completed_at FROM amocrm.transactions WHERE NOT is_deleted) t ON t.customer_id = c.id GROUP BY c.id

-- segments
WITH k AS (SELECT * FROM (SELECT c.id, c.responsible_user_id AS manager, count(t.price) AS purchases, coalesce(sum(t.price), 0) AS ltv,
  max(t.completed_at) AS last
FROM amocrm.customers c LEFT JOIN (SELECT customer_id, price, completed_at FROM amocrm.transactions WHERE NOT is_deleted) t ON t.customer_id = c.id GROUP BY c.id) c WHERE purchases > 0) SELECT *, CASE WHEN r >= 4 AND f >= 4 THEN 'champions' WHEN r >= 4 AND f <= 2 THEN 'new' WHEN r >= 3 THEN 'loyal'
  WHEN f >= 3 THEN 'at risk' ELSE 'lost' END AS segment
FROM (SELECT a.*, least(5, 1 + 5 * (SELECT count(*) FROM k b WHERE b.last < a.last) / (SELECT count(*) - 1 FROM k)) AS r,
             least(5, 1 + 5 * (SELECT count(*) FROM k b WHERE b.purchases < a.purchases) / (SELECT count(*) - 1 FROM k)) AS f
      FROM k a) s

-- cohorts
WITH b AS (SELECT customer_id, date_trunc('month', completed_at AT TIME ZONE 'Asia/Kathmandu') AS month, sum(price) AS price
           FROM (SELECT customer_id, price, completed_at FROM amocrm.transactions WHERE NOT is_deleted) t GROUP BY 1, 2),
k AS (SELECT customer_id, min(month) AS cohort FROM b GROUP BY 1)
SELECT to_char(k.cohort, 'YYYY-MM') AS cohort, lpad(n::text, 2, '0') AS later, b.customer_id, b.price
FROM k CROSS JOIN generate_series(0, 12) n
LEFT JOIN b ON b.customer_id = k.customer_id AND b.month = k.cohort + n * interval '1 month'
WHERE k.cohort + n * interval '1 month' <= now() AT TIME ZONE 'Asia/Kathmandu' AND k.cohort > now() - interval '14 months'

-- sold
SELECT date(s.at AT TIME ZONE 'Asia/Kathmandu') AS day, s.pipeline, s.manager, e.name AS product, 'Goods' AS catalog, s.quantity,
  s.quantity * 100 * e.id AS amount
FROM (SELECT l.closed_at AS at, l.pipeline_id AS pipeline, l.responsible_user_id AS manager, x.catalog_element_id, x.quantity
      FROM amocrm.lead_catalog_elements x JOIN amocrm.leads l ON l.id = x.lead_id WHERE l._deleted_at IS NULL AND l.status_id = 142
      UNION ALL SELECT t.completed_at, NULL, c.responsible_user_id, x.catalog_element_id, x.quantity
      FROM amocrm.transaction_catalog_elements x JOIN amocrm.transactions t ON t.id = x.transaction_id
      JOIN amocrm.customers c ON c.id = t.customer_id) s JOIN amocrm.catalog_elements e ON e.id = s.catalog_element_id

-- plans
SELECT p.month AS day, to_char(p.month, 'YYYY-MM') AS month, CASE p.responsible_user_id WHEN 0 THEN '(all)' ELSE u.name END AS of_user,
  '(all)' AS of_pipeline, p.value, p.deals, w.*
FROM amocrm.sales_plans p LEFT JOIN amocrm.users u ON u.id = p.responsible_user_id CROSS JOIN LATERAL (
  SELECT count(*) AS fact_deals, sum(price) AS fact FROM amocrm.leads WHERE _deleted_at IS NULL AND status_id = 142
    AND date_trunc('month', closed_at AT TIME ZONE 'Asia/Kathmandu') = p.month AND p.responsible_user_id IN (0, responsible_user_id)) w

-- fields
SELECT c.*, f.name AS field, v.value_text AS option FROM (
  SELECT id, date(closed_at AT TIME ZONE 'Asia/Kathmandu') AS day, pipeline_id AS pipeline, responsible_user_id AS manager, status_id = 142 AS won, price
  FROM amocrm.leads WHERE _deleted_at IS NULL AND closed_at IS NOT NULL) c
JOIN amocrm.lead_custom_field_values v ON v.lead_id = c.id AND v.field_id IN (31, 32) JOIN amocrm.custom_fields f ON f.id = v.field_id
