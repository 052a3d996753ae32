-- By how much the number and the value of the open deals of each stage changed, day by day
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
stays AS (
  SELECT h.pipeline_id, h.status_id, coalesce(l.price, 0) AS price, greatest((h.entered_at AT TIME ZONE z.name)::date, date '2009-01-01') AS from_day,
         CASE WHEN least(h.left_at, l._deleted_at) IS NOT NULL
              THEN greatest((least(h.left_at, l._deleted_at) AT TIME ZONE z.name)::date, date '2009-01-01') END AS to_day
  FROM {schema}.lead_status_history h JOIN {schema}.leads l ON l.id = h.lead_id CROSS JOIN zone z
  LEFT JOIN {schema}.statuses i ON i.pipeline_id = h.pipeline_id AND i.id = h.status_id
  WHERE h.status_id NOT IN (142, 143) AND i.type IS DISTINCT FROM 1 AND (l._deleted_at IS NULL OR h.entered_at < l._deleted_at)
)
SELECT pipeline_id, status_id, day, sum(deals) AS deals, sum(price) AS price FROM (
  SELECT pipeline_id, status_id, from_day AS day, count(*) AS deals, sum(price) AS price FROM stays GROUP BY 1, 2, 3
  UNION ALL SELECT pipeline_id, status_id, to_day, -count(*), -sum(price) FROM stays WHERE to_day IS NOT NULL GROUP BY 1, 2, 3) x
GROUP BY 1, 2, 3
