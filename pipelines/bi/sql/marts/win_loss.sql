-- Win-loss analysis (Анализ продаж): deals won and lost, by the day of closing, reason, the stage that they came from, source, and responsible user
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
closed AS (
  SELECT (l.closed_at AT TIME ZONE z.name)::date AS closed_date, l.pipeline_id, l.status_id, l.price, l.loss_reason_id, l.responsible_user_id, l.source_id,
         b.pipeline_id AS pipeline_before, b.status_id AS status_before
  FROM {schema}.leads l CROSS JOIN zone z
  LEFT JOIN LATERAL (
    SELECT h.pipeline_id, h.status_id FROM {schema}.lead_status_history h
    WHERE h.lead_id = l.id AND h.status_id NOT IN (142, 143) ORDER BY h.entered_at DESC LIMIT 1) b ON true
  WHERE l._deleted_at IS NULL AND l.status_id IN (142, 143)
), counted AS (
  SELECT closed_date, pipeline_id, status_id, loss_reason_id, responsible_user_id, source_id, pipeline_before, status_before,
         count(*) AS deals, coalesce(sum(price), 0) AS value
  FROM closed GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
)
SELECT
  date_trunc('month', c.closed_date::timestamp)::date AS closed_month, -- Month in which they were closed, in the account's time zone
  p.name AS pipeline, -- Pipeline
  CASE c.status_id WHEN 142 THEN 'won' ELSE 'lost' END AS outcome, -- won or lost
  r.name AS loss_reason, -- Why they were lost; null: no reason was given
  s.name AS status_before, -- The last open stage that they were in; null: they were closed as they were made
  coalesce(u.name, 'user ' || nullif(c.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  c.deals, -- Deals
  c.value, -- Their value
  c.pipeline_id, -- Pipeline's id
  c.loss_reason_id, -- Loss reason's id
  c.status_before AS status_before_id, -- Id of that stage
  c.responsible_user_id, -- Responsible user's id
  c.closed_date, -- Day on which they were closed, in the account's time zone
  o.name AS source, -- Source of the deals
  s.label AS status_before_label, -- That stage behind its number in the pipeline, so that labels sort as the stages do
  c.source_id -- Source's id
FROM counted c
LEFT JOIN {schema}.loss_reasons r ON r.id = c.loss_reason_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = c.pipeline_before AND s.id = c.status_before
LEFT JOIN {schema}.pipelines p ON p.id = c.pipeline_id
LEFT JOIN {schema}.sources o ON o.id = c.source_id
LEFT JOIN {schema}.users u ON u.id = c.responsible_user_id
