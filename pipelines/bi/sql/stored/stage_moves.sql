-- How many deals went from which stage to which, by the day on which they had come into it, responsible user and source
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts)
SELECT (h.entered_at AT TIME ZONE z.name)::date AS entered_date, h.pipeline_id, h.status_id, x.pipeline_id AS next_pipeline_id, x.status_id AS next_status_id, l.responsible_user_id, l.source_id,
       count(*) AS deals, sum(extract(epoch FROM h.left_at - h.entered_at)) / 3600 AS hours
FROM {schema}.lead_status_history h JOIN {schema}.leads l ON l.id = h.lead_id AND l._deleted_at IS NULL CROSS JOIN zone z
LEFT JOIN {schema}.lead_status_history x ON x.lead_id = h.lead_id AND x.entered_at = h.left_at
LEFT JOIN {schema}.statuses i ON i.pipeline_id = h.pipeline_id AND i.id = h.status_id
WHERE h.status_id NOT IN (142, 143) AND i.type IS DISTINCT FROM 1 GROUP BY 1, 2, 3, 4, 5, 6, 7
