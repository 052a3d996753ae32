-- Forecast (Прогноз продаж): value of the open deals × win rate of their stage, by responsible user and source
WITH of_pipelines AS (
  SELECT pipeline_id, count(*) AS closed, count(*) FILTER (WHERE status_id = 142)::numeric / count(*) AS rate
  FROM {schema}.leads WHERE _deleted_at IS NULL AND status_id IN (142, 143) GROUP BY 1
), open AS (
  SELECT pipeline_id, status_id, responsible_user_id, source_id, count(*) AS deals, coalesce(sum(price), 0) AS value
  FROM {schema}.leads WHERE _deleted_at IS NULL AND status_id NOT IN (142, 143) GROUP BY 1, 2, 3, 4
)
SELECT
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  s.label AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  coalesce(u.name, 'user ' || nullif(d.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  o.name AS source, -- Source of the deals
  d.deals, -- Open deals that are in the stage now
  d.value, -- Their value
  round(coalesce(a.rate, b.rate), 4) AS win_rate, -- Of the closed deals that had been in this stage, the share that was won; where there is none yet, that of the whole pipeline; null: nothing was ever closed in it
  round(d.value * coalesce(a.rate, b.rate), 2) AS expected_value, -- value × win_rate
  round(d.deals * coalesce(a.rate, b.rate), 2) AS expected_deals, -- deals × win_rate
  coalesce(a.closed, b.closed, 0) AS closed_deals, -- How many closed deals the win rate was counted from
  a.rate IS NOT NULL AS is_stage_rate, -- The win rate is the stage's own
  s.sort AS status_sort, -- Order of the stage
  d.pipeline_id, -- Pipeline's id
  d.status_id, -- Stage's id
  d.responsible_user_id, -- Responsible user's id
  d.source_id -- Source's id
FROM open d
LEFT JOIN {stored_stage_rates} a ON a.pipeline_id = d.pipeline_id AND a.status_id = d.status_id
LEFT JOIN of_pipelines b ON b.pipeline_id = d.pipeline_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = d.pipeline_id AND s.id = d.status_id
LEFT JOIN {schema}.pipelines p ON p.id = d.pipeline_id
LEFT JOIN {schema}.sources o ON o.id = d.source_id
LEFT JOIN {schema}.users u ON u.id = d.responsible_user_id
WHERE s.type IS DISTINCT FROM 1
