-- How long deals stay in each stage: of the stays that are over the median and the 90th percentile, and how many are in it now, and longer than that
WITH open_ AS (
  SELECT h.pipeline_id, h.status_id, count(*) AS deals, count(*) FILTER (WHERE extract(epoch FROM now() - h.entered_at) / 3600 > o.p90) AS stuck
  FROM {schema}.lead_status_history h JOIN {schema}.leads l ON l.id = h.lead_id AND l._deleted_at IS NULL
  LEFT JOIN {stored_stage_times} o ON o.pipeline_id = h.pipeline_id AND o.status_id = h.status_id
  WHERE h.status_id NOT IN (142, 143) AND h.left_at IS NULL GROUP BY 1, 2
)
SELECT
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  coalesce(o.stays, 0) AS stays, -- Stays that are over; a deal that came twice counts twice
  round(o.mean::numeric, 2) AS average_hours, -- Their average, in hours
  round(o.median::numeric, 2) AS median_hours, -- Half of them were shorter
  round(o.p90::numeric, 2) AS p90_hours, -- Nine in ten of them were shorter
  coalesce(n.deals, 0) AS deals_now, -- Deals that are in it now
  coalesce(n.stuck, 0) AS stuck_now, -- Of them, those that have been in it for longer than p90_hours; stuck_deals names them
  s.sort AS status_sort, -- Order of the stage
  s.pipeline_id, -- Pipeline's id
  s.id AS status_id, -- Stage's id
  s.label AS status_label -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
FROM (
  SELECT pipeline_id, id, name, sort, type, _deleted_at, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s
JOIN {schema}.pipelines p ON p.id = s.pipeline_id
LEFT JOIN {stored_stage_times} o ON o.pipeline_id = s.pipeline_id AND o.status_id = s.id
LEFT JOIN open_ n ON n.pipeline_id = s.pipeline_id AND n.status_id = s.id
WHERE s.id NOT IN (142, 143) AND s.type IS DISTINCT FROM 1 AND (s._deleted_at IS NULL OR o.stays > 0 OR n.deals > 0)
