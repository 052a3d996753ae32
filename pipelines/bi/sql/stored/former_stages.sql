-- Stages that were removed, and the months of creation of the deals that have been in them
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts)
SELECT DISTINCT s.pipeline_id, s.id AS status_id, date_trunc('month', l.created_at AT TIME ZONE z.name)::date AS created_month
FROM {schema}.statuses s JOIN {schema}.lead_status_history h ON h.pipeline_id = s.pipeline_id AND h.status_id = s.id
JOIN {schema}.leads l ON l.id = h.lead_id AND l._deleted_at IS NULL CROSS JOIN zone z WHERE s._deleted_at IS NOT NULL
