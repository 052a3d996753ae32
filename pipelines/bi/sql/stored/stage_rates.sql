-- Which share of the closed deals that had been in each stage was won
WITH was_in AS (
  SELECT h.pipeline_id, h.status_id, l.status_id = 142 AS is_won
  FROM {schema}.lead_status_history h JOIN {schema}.leads l ON l.id = h.lead_id AND l._deleted_at IS NULL AND l.status_id IN (142, 143)
  WHERE h.status_id NOT IN (142, 143) GROUP BY h.pipeline_id, h.status_id, l.id
)
SELECT pipeline_id, status_id, count(*) AS closed, count(*) FILTER (WHERE is_won)::numeric / count(*) AS rate FROM was_in GROUP BY 1, 2
