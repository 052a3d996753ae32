-- Tasks of today, one row each
SELECT
  t.id, -- Task id
  y.name AS task_type, -- Kind of task
  t.text, -- What is to be done
  t.is_completed, -- Done
  t.is_completed IS NOT TRUE AND t.complete_till < now() AS is_overdue, -- Not done, and its time is over
  t.result_text, -- What came of it
  coalesce(u.name, 'user ' || nullif(t.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  g.name AS user_group, -- Department of the responsible user
  (t.complete_till AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS complete_till_date, -- Day on which it is due, in the account's time zone
  t.complete_till, -- When it is due; 23:59 of the account's day for a whole day
  t.duration, -- Planned duration in seconds
  t.entity_type, -- Kind of record that it belongs to: leads, contacts, companies or customers; null: none
  t.entity_id, -- Record that it belongs to
  CASE t.entity_type WHEN 'leads' THEN (SELECT e.name FROM {schema}.leads e WHERE e.id = t.entity_id) WHEN 'contacts' THEN (SELECT e.name FROM {schema}.contacts e WHERE e.id = t.entity_id) WHEN 'companies' THEN (SELECT e.name FROM {schema}.companies e WHERE e.id = t.entity_id) WHEN 'customers' THEN (SELECT e.name FROM {schema}.customers e WHERE e.id = t.entity_id) END AS entity_name, -- Name of that record
  (t.created_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS created_date, -- Day of its creation, in the account's time zone
  t.created_at, -- When it was created
  t.updated_at, -- When it was changed last
  coalesce(cu.name, 'user ' || nullif(t.created_by, 0), '(none)') AS created_by_user, -- User who created it; (none): robot or API
  t.task_type_id, -- Kind of task's id
  t.responsible_user_id, -- Responsible user's id
  t.group_id, -- Department's id
  t.created_by, -- Id of the user who created it; 0: robot or API
  t.updated_by, -- Id of the user who changed it last; 0: robot or API
  {url} || '/' || t.entity_type || '/detail/' || t.entity_id AS url -- Address of the card of the record that it belongs to; null: it belongs to none
FROM {schema}.tasks t
LEFT JOIN {schema}.task_types y ON y.id = t.task_type_id
LEFT JOIN {schema}.users u ON u.id = t.responsible_user_id
LEFT JOIN {schema}.user_groups g ON g.id = t.group_id
LEFT JOIN {schema}.users cu ON cu.id = t.created_by
WHERE t._deleted_at IS NULL
