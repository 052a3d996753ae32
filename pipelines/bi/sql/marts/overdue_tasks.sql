-- Overdue tasks (Просроченные задачи): not done, and their time is over
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts)
SELECT
  t.id AS task_id, -- Task
  y.name AS task_type, -- Kind of task
  t.text, -- What is to be done
  u.name AS responsible_user, -- Responsible user of the task
  t.complete_till, -- When it was due
  (t.complete_till AT TIME ZONE z.name)::date AS due_date, -- Day on which it was due, in the account's time zone
  (now() AT TIME ZONE z.name)::date - (t.complete_till AT TIME ZONE z.name)::date AS days_overdue, -- Days since then; 0: it was due earlier today
  t.entity_type, -- Kind of record that it belongs to
  t.entity_id, -- That record
  l.name AS lead, -- Name of the deal, if it is one
  l.price, -- Value of that deal
  t.responsible_user_id -- Responsible user's id
FROM {schema}.tasks t CROSS JOIN zone z
LEFT JOIN {schema}.task_types y ON y.id = t.task_type_id
LEFT JOIN {schema}.users u ON u.id = t.responsible_user_id
LEFT JOIN {schema}.leads l ON t.entity_type = 'leads' AND l.id = t.entity_id AND l._deleted_at IS NULL
WHERE t._deleted_at IS NULL AND t.is_completed IS NOT TRUE AND t.complete_till < now()
