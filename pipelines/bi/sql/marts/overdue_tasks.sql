-- Overdue tasks (Просроченные задачи): not done, and their time is over
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts)
SELECT
  t.id AS task_id, -- Task
  y.name AS task_type, -- Kind of task
  t.text, -- What is to be done
  coalesce(u.name, 'user ' || nullif(t.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user of the task
  t.complete_till, -- When it was due
  (t.complete_till AT TIME ZONE z.name)::date AS due_date, -- Day on which it was due, in the account's time zone
  (now() AT TIME ZONE z.name)::date - (t.complete_till AT TIME ZONE z.name)::date AS days_overdue, -- Days since then; 0: it was due earlier today
  t.entity_type, -- Kind of record that it belongs to
  t.entity_id, -- That record
  l.name AS lead, -- Name of the deal, if it is one
  l.price, -- Value of that deal
  t.responsible_user_id, -- Responsible user's id
  {url} || '/' || t.entity_type || '/detail/' || t.entity_id AS url, -- Address of the card of the record that it belongs to; null: it belongs to none
  (t.complete_till AT TIME ZONE z.name)::date AS complete_till_date, -- The same day as due_date: the name that it has in tasks
  p.name AS pipeline, -- Pipeline of that deal
  s.name AS status, -- Stage of that deal
  s.label AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  l.pipeline_id, -- Pipeline's id
  l.status_id -- Stage's id
FROM {schema}.tasks t CROSS JOIN zone z
LEFT JOIN {schema}.task_types y ON y.id = t.task_type_id
LEFT JOIN {schema}.users u ON u.id = t.responsible_user_id
LEFT JOIN {schema}.leads l ON t.entity_type = 'leads' AND l.id = t.entity_id AND l._deleted_at IS NULL
LEFT JOIN {schema}.pipelines p ON p.id = l.pipeline_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = l.pipeline_id AND s.id = l.status_id
WHERE t._deleted_at IS NULL AND t.is_completed IS NOT TRUE AND t.complete_till < now()
