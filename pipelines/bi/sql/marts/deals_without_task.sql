-- Open deals without a next task (Сделки без задач): nobody is going to do anything about them
SELECT
  l.id AS lead_id, -- Deal
  l.name, -- Name of the deal
  l.price, -- Its value
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  u.name AS responsible_user, -- Responsible user
  l.created_at, -- When the deal was created
  (SELECT max(t.complete_till) FROM {schema}.tasks t WHERE t.entity_type = 'leads' AND t.entity_id = l.id AND t._deleted_at IS NULL) AS last_task_at, -- When its last task was due; null: it never had one
  l.pipeline_id, -- Pipeline's id
  l.status_id, -- Stage's id
  l.responsible_user_id -- Responsible user's id
FROM {schema}.leads l
LEFT JOIN {schema}.pipelines p ON p.id = l.pipeline_id
LEFT JOIN {schema}.statuses s ON s.pipeline_id = l.pipeline_id AND s.id = l.status_id
LEFT JOIN {schema}.users u ON u.id = l.responsible_user_id
WHERE l._deleted_at IS NULL AND l.status_id NOT IN (142, 143) AND NOT EXISTS (
  SELECT FROM {schema}.tasks t WHERE t.entity_type = 'leads' AND t.entity_id = l.id AND t._deleted_at IS NULL AND t.is_completed IS NOT TRUE)
