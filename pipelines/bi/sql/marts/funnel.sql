-- Sales funnel (Воронка продаж): how many deals reached each stage of each pipeline, by the month in which they were created
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
stages AS (
  SELECT s.pipeline_id, s.id AS status_id, s.name, s.sort, s._deleted_at IS NULL AS is_live,
         row_number() OVER (PARTITION BY s.pipeline_id ORDER BY s.id = 143, s.sort, s.id) AS place
  FROM {schema}.statuses s
), visits AS (
  SELECT h.lead_id, h.pipeline_id, h.status_id, h.left_at, h.left_at IS NULL OR h.status_id NOT IN (142, 143) AS is_reached,
         lag(h.status_id) OVER (PARTITION BY h.lead_id ORDER BY h.entered_at) IN (142, 143) AND h.status_id NOT IN (142, 143) AS is_reopened
  FROM {schema}.lead_status_history h
), passed AS (
  SELECT lead_id, pipeline_id, status_id, bool_or(is_reached) AS is_reached, bool_or(is_reopened) AS is_reopened, bool_or(left_at IS NULL) AS is_now
  FROM visits GROUP BY 1, 2, 3
), deals AS (
  SELECT v.lead_id, v.pipeline_id, date_trunc('month', l.created_at AT TIME ZONE z.name)::date AS created_month,
         coalesce(max(s.place) FILTER (WHERE v.is_reached AND v.status_id <> 143), 0) AS farthest,
         array_agg(v.status_id) FILTER (WHERE v.is_reached) AS entered, array_agg(v.status_id) FILTER (WHERE v.is_reopened) AS reopened,
         max(v.status_id) FILTER (WHERE v.is_now) AS status_now
  FROM passed v JOIN {schema}.leads l ON l.id = v.lead_id AND l._deleted_at IS NULL CROSS JOIN zone z
  LEFT JOIN stages s ON s.pipeline_id = v.pipeline_id AND s.status_id = v.status_id
  GROUP BY v.lead_id, v.pipeline_id, 3
), alike AS (
  SELECT created_month, pipeline_id, farthest, entered, reopened, status_now, count(*) AS deals FROM deals GROUP BY 1, 2, 3, 4, 5, 6
), reached AS (
  SELECT created_month, pipeline_id, farthest, sum(deals) AS deals FROM alike GROUP BY 1, 2, 3
), entered AS (
  SELECT a.created_month, a.pipeline_id, e.status_id, coalesce(sum(a.deals) FILTER (WHERE e.status_id = ANY (a.entered)), 0)::bigint AS entered,
         coalesce(sum(a.deals) FILTER (WHERE e.status_id = ANY (a.reopened)), 0)::bigint AS reopened,
         coalesce(sum(a.deals) FILTER (WHERE e.status_id = a.status_now), 0)::bigint AS deals_now
  FROM alike a JOIN stages e USING (pipeline_id) GROUP BY 1, 2, 3
), counted AS (
  SELECT r.created_month, s.pipeline_id, s.status_id, sum(r.deals) AS deals, coalesce(sum(r.deals) FILTER (WHERE r.farthest >= s.place), 0) AS farther
  FROM reached r JOIN stages s USING (pipeline_id) GROUP BY 1, 2, 3
)
SELECT
  c.created_month, -- Month in which the deals were created, in the account's time zone
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  c.deals::bigint AS deals, -- Deals of that month that have ever been in the pipeline
  (CASE s.status_id WHEN 143 THEN coalesce(e.entered, 0) ELSE c.farther END)::bigint AS reached, -- Of them, those that reached the stage: were in it, or in a later one. Lost (143) is later than none
  coalesce(e.entered, 0) AS entered, -- Those that were in the stage itself. Of won and lost, those that are so now
  (CASE s.status_id WHEN 143 THEN 0 ELSE c.farther - coalesce(e.entered, 0) END)::bigint AS skipped, -- Those that passed it by
  coalesce(e.reopened, 0) AS reopened, -- Those that had been won or lost and came back into this stage
  coalesce(e.deals_now, 0) AS deals_now, -- Those that are in it now
  round((CASE s.status_id WHEN 143 THEN coalesce(e.entered, 0) ELSE c.farther END)::numeric / c.deals, 4) AS conversion, -- reached / deals. Over several months: sum(reached) / sum(deals)
  s.sort AS status_sort, -- Order of the stage
  s.pipeline_id, -- Pipeline's id
  s.status_id -- Stage's id; 142 won, 143 lost
FROM counted c
JOIN stages s USING (pipeline_id, status_id)
LEFT JOIN entered e USING (created_month, pipeline_id, status_id)
LEFT JOIN {schema}.pipelines p ON p.id = s.pipeline_id
WHERE s.is_live OR e.entered > 0
