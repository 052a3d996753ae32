-- Win-loss analysis (Анализ продаж): deals won and lost, by the month of closing, reason, the stage that they came from, and responsible user
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
closed AS (
  SELECT l.*, date_trunc('month', l.closed_at AT TIME ZONE z.name)::date AS closed_month, b.pipeline_id AS pipeline_before, b.status_id AS status_before
  FROM {schema}.leads l CROSS JOIN zone z
  LEFT JOIN LATERAL (
    SELECT h.pipeline_id, h.status_id FROM {schema}.lead_status_history h
    WHERE h.lead_id = l.id AND h.status_id NOT IN (142, 143) ORDER BY h.entered_at DESC LIMIT 1) b ON true
  WHERE l._deleted_at IS NULL AND l.status_id IN (142, 143)
)
SELECT
  c.closed_month, -- Month in which they were closed, in the account's time zone
  p.name AS pipeline, -- Pipeline
  CASE c.status_id WHEN 142 THEN 'won' ELSE 'lost' END AS outcome, -- won or lost
  r.name AS loss_reason, -- Why they were lost; null: no reason was given
  s.name AS status_before, -- The last open stage that they were in; null: they were closed as they were made
  u.name AS responsible_user, -- Responsible user
  count(*) AS deals, -- Deals
  coalesce(sum(c.price), 0) AS value, -- Their value
  c.pipeline_id, -- Pipeline's id
  c.loss_reason_id, -- Loss reason's id
  c.status_before AS status_before_id, -- Id of that stage
  c.responsible_user_id -- Responsible user's id
FROM closed c
LEFT JOIN {schema}.pipelines p ON p.id = c.pipeline_id
LEFT JOIN {schema}.loss_reasons r ON r.id = c.loss_reason_id
LEFT JOIN {schema}.statuses s ON s.pipeline_id = c.pipeline_before AND s.id = c.status_before
LEFT JOIN {schema}.users u ON u.id = c.responsible_user_id
GROUP BY c.closed_month, p.name, c.status_id, r.name, s.name, u.name, c.pipeline_id, c.loss_reason_id, c.pipeline_before, c.status_before, c.responsible_user_id
