-- How long deals stay in each stage: of the stays that are over the median and the 90th percentile, and how many are in it now, and longer than that
WITH stays AS (
  SELECT h.pipeline_id, h.status_id, h.left_at, extract(epoch FROM coalesce(h.left_at, now()) - h.entered_at) / 3600 AS hours
  FROM {schema}.lead_status_history h JOIN {schema}.leads l ON l.id = h.lead_id AND l._deleted_at IS NULL
  WHERE h.status_id NOT IN (142, 143)
), over_ AS (
  SELECT pipeline_id, status_id, count(*) AS stays, avg(hours) AS mean,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY hours) AS median, percentile_cont(0.9) WITHIN GROUP (ORDER BY hours) AS p90
  FROM stays WHERE left_at IS NOT NULL GROUP BY 1, 2
), open_ AS (
  SELECT s.pipeline_id, s.status_id, count(*) AS deals, count(*) FILTER (WHERE s.hours > o.p90) AS stuck
  FROM stays s LEFT JOIN over_ o USING (pipeline_id, status_id) WHERE s.left_at IS NULL GROUP BY 1, 2
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
LEFT JOIN over_ o ON o.pipeline_id = s.pipeline_id AND o.status_id = s.id
LEFT JOIN open_ n ON n.pipeline_id = s.pipeline_id AND n.status_id = s.id
WHERE s.id NOT IN (142, 143) AND s.type IS DISTINCT FROM 1 AND (s._deleted_at IS NULL OR o.stays > 0 OR n.deals > 0)
