-- Open deals without a next task (Сделки без задач): nobody is going to do anything about them
SELECT
  l.id AS lead_id, -- Deal
  l.name, -- Name of the deal
  l.price, -- Its value
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  coalesce(u.name, 'user ' || nullif(l.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  l.created_at, -- When the deal was created
  (SELECT max(t.complete_till) FROM {schema}.tasks t WHERE t.entity_type = 'leads' AND t.entity_id = l.id AND t._deleted_at IS NULL) AS last_task_at, -- When its last task was due; null: it never had one
  l.pipeline_id, -- Pipeline's id
  l.status_id, -- Stage's id
  l.responsible_user_id, -- Responsible user's id
  {url} || '/leads/detail/' || l.id AS url, -- Address of the deal's card
  s.label AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  s.sort AS status_sort, -- Order of the stage
  (l.created_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS created_date, -- Day of its creation, in the account's time zone
  o.name AS source, -- Source
  l.source_id -- Source's id
FROM {schema}.leads l
LEFT JOIN {schema}.pipelines p ON p.id = l.pipeline_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = l.pipeline_id AND s.id = l.status_id
LEFT JOIN {schema}.sources o ON o.id = l.source_id
LEFT JOIN {schema}.users u ON u.id = l.responsible_user_id
WHERE l._deleted_at IS NULL AND l.status_id NOT IN (142, 143) AND s.type IS DISTINCT FROM 1 AND NOT EXISTS (
  SELECT FROM {schema}.tasks t WHERE t.entity_type = 'leads' AND t.entity_id = l.id AND t._deleted_at IS NULL AND t.is_completed IS NOT TRUE)
