-- Stays of deals in stages: one row each time a deal was in an open stage, how long, and where it went then
SELECT
  h.lead_id, -- Deal
  l.name, -- Name of the deal
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  lpad(sp.number::text, 2, '0') || '. ' || s.name AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  (h.entered_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS entered_date, -- Day on which it came into the stage, in the account's time zone
  (h.left_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS left_date, -- Day on which it left the stage; null: it is still there
  h.left_at IS NULL AS is_now, -- It is still there
  round((extract(epoch FROM coalesce(h.left_at, now()) - h.entered_at) / 3600)::numeric, 2) AS hours, -- For how long it was there, or has been there, in hours
  n.name AS next_status, -- Stage that it went to; null: it is still there, or that stage has no name
  lpad(np.number::text, 2, '0') || '. ' || n.name AS next_status_label, -- That stage behind its number in its pipeline
  coalesce(u.name, 'user ' || nullif(l.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user of the deal now
  o.name AS source, -- Source of the deal
  ARRAY(SELECT t.name FROM {schema}.lead_tags x JOIN {schema}.tags t ON t.entity_type = 'leads' AND t.id = x.tag_id WHERE x.lead_id = l.id ORDER BY 1) AS tags, -- Tags of the deal
  l.price, -- Value of the deal
  {url} || '/leads/detail/' || l.id AS url, -- Address of the deal's card
  h.entered_at, -- When it came into the stage
  h.left_at, -- When it left the stage
  s.sort AS status_sort, -- Order of the stage
  h.pipeline_id, -- Pipeline's id
  h.status_id, -- Stage's id
  x.pipeline_id AS next_pipeline_id, -- Id of the pipeline that it went to
  x.status_id AS next_status_id, -- Id of the stage that it went to; 142 won, 143 lost
  l.responsible_user_id, -- Responsible user's id
  l.source_id -- Source's id
FROM {schema}.lead_status_history h
JOIN {schema}.leads l ON l.id = h.lead_id AND l._deleted_at IS NULL
LEFT JOIN {schema}.lead_status_history x ON x.lead_id = h.lead_id AND x.entered_at = h.left_at
LEFT JOIN {schema}.statuses s ON s.pipeline_id = h.pipeline_id AND s.id = h.status_id
LEFT JOIN {stored_stage_places} sp ON sp.pipeline_id = h.pipeline_id AND sp.status_id = h.status_id
LEFT JOIN {schema}.statuses n ON n.pipeline_id = x.pipeline_id AND n.id = x.status_id
LEFT JOIN {stored_stage_places} np ON np.pipeline_id = x.pipeline_id AND np.status_id = x.status_id
LEFT JOIN {schema}.pipelines p ON p.id = h.pipeline_id
LEFT JOIN {schema}.sources o ON o.id = l.source_id
LEFT JOIN {schema}.users u ON u.id = l.responsible_user_id
WHERE h.status_id NOT IN (142, 143) AND s.type IS DISTINCT FROM 1
