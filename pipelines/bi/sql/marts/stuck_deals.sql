-- Open deals that have been in their stage for longer than nine in ten deals were before them (p90 of time_in_stage)
SELECT
  l.id AS lead_id, -- Deal
  l.name, -- Name of the deal
  l.price, -- Its value
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  coalesce(u.name, 'user ' || nullif(l.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  h.entered_at, -- Since when it has been in the stage
  round((extract(epoch FROM now() - h.entered_at) / 3600)::numeric, 2) AS hours_in_stage, -- For how long, in hours
  round(q.p90::numeric, 2) AS p90_hours, -- Nine in ten deals had left the stage after that many hours
  l.closest_task_at, -- When its next task is due
  l.pipeline_id, -- Pipeline's id
  l.status_id, -- Stage's id
  l.responsible_user_id, -- Responsible user's id
  {url} || '/leads/detail/' || l.id AS url, -- Address of the deal's card
  s.label AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  s.sort AS status_sort, -- Order of the stage
  (h.entered_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS entered_date, -- Day since which it has been in the stage, in the account's time zone
  o.name AS source, -- Source
  ARRAY(SELECT t.name FROM {schema}.lead_tags x JOIN {schema}.tags t ON t.entity_type = 'leads' AND t.id = x.tag_id WHERE x.lead_id = l.id ORDER BY 1) AS tags, -- Tags
  l.source_id -- Source's id
FROM {schema}.lead_status_history h
JOIN {schema}.leads l ON l.id = h.lead_id AND l._deleted_at IS NULL
JOIN {stored_stage_times} q ON q.pipeline_id = h.pipeline_id AND q.status_id = h.status_id
LEFT JOIN {schema}.pipelines p ON p.id = h.pipeline_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = h.pipeline_id AND s.id = h.status_id
LEFT JOIN {schema}.sources o ON o.id = l.source_id
LEFT JOIN {schema}.users u ON u.id = l.responsible_user_id
WHERE h.left_at IS NULL AND h.status_id NOT IN (142, 143) AND s.type IS DISTINCT FROM 1 AND extract(epoch FROM now() - h.entered_at) / 3600 > q.p90
