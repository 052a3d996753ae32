-- For each deal and pipeline that it was in: the stages that it reached, and where it is now
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
stages AS (
  SELECT pipeline_id, id AS status_id, type IS NOT DISTINCT FROM 1 AS is_incoming, row_number() OVER (PARTITION BY pipeline_id ORDER BY id = 143, sort, id) AS place
  FROM {schema}.statuses
), visits AS (
  SELECT l.id AS lead_id, (l.created_at AT TIME ZONE z.name)::date AS created_date, l.responsible_user_id, l.source_id, h.pipeline_id, h.status_id, s.place, h.left_at IS NULL AS is_now,
         h.left_at IS NULL OR h.status_id NOT IN (142, 143) AS is_reached,
         lag(h.status_id) OVER (PARTITION BY l.id, (l.created_at AT TIME ZONE z.name)::date ORDER BY h.entered_at) IN (142, 143) AND h.status_id NOT IN (142, 143) AS is_reopened
  FROM {schema}.leads l CROSS JOIN zone z JOIN {schema}.lead_status_history h ON h.lead_id = l.id
  LEFT JOIN stages s ON s.pipeline_id = h.pipeline_id AND s.status_id = h.status_id
  WHERE l._deleted_at IS NULL AND s.is_incoming IS NOT TRUE
)
SELECT lead_id, created_date, pipeline_id, max(responsible_user_id) AS responsible_user_id, max(source_id) AS source_id,
       coalesce(max(place) FILTER (WHERE is_reached AND status_id <> 143), 0) AS farthest,
       array_agg(status_id) FILTER (WHERE is_reached) AS entered, array_agg(status_id) FILTER (WHERE is_reopened) AS reopened, max(status_id) FILTER (WHERE is_now) AS status_now
FROM visits GROUP BY 1, 2, 3
