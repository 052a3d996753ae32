-- Activity of users (Отчёт по сотрудникам), day by day: what happened to the records for which they were responsible then
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
done AS (
  SELECT 'leads' AS entity_type, h.lead_id AS entity_id, h.entered_at AS at, NULL::bigint AS otherwise, CASE h.status_id WHEN 142 THEN 'won' WHEN 143 THEN 'lost' ELSE 'move' END AS what, NULL::bigint AS seconds
  FROM {schema}.lead_status_history h WHERE h.source <> 'created'
  UNION ALL
  SELECT n.entity_type, n.entity_id, n.created_at, n.responsible_user_id, n.note_type, CASE WHEN n.note_type <> 'common' AND n.params ->> 'duration' ~ '^[0-9]{{1,9}}$' THEN (n.params ->> 'duration')::bigint END
  FROM {schema}.notes n WHERE n._deleted_at IS NULL AND n.note_type IN ('common', 'call_in', 'call_out')
  UNION ALL
  SELECT t.entity_type, t.entity_id, t.created_at, t.responsible_user_id, 'task_created', NULL
  FROM {schema}.tasks t WHERE t._deleted_at IS NULL
  UNION ALL
  SELECT t.entity_type, t.entity_id, coalesce(e.at, t.updated_at), t.responsible_user_id, 'task_completed', NULL
  FROM {schema}.tasks t
  LEFT JOIN (SELECT entity_id, max(created_at) AS at FROM {schema}.events WHERE type = 'task_completed' AND entity_type = 'task' GROUP BY 1) e ON e.entity_id = t.id
  WHERE t._deleted_at IS NULL AND t.is_completed
), owned AS (
  SELECT (d.at AT TIME ZONE z.name)::date AS day, CASE WHEN h.entity_id IS NULL THEN d.otherwise ELSE h.responsible_user_id END AS user_id, d.what, d.seconds
  FROM done d CROSS JOIN zone z
  LEFT JOIN {schema}.responsible_history h
    ON h.entity_type = d.entity_type AND h.entity_id = d.entity_id AND h.entered_at <= d.at AND (h.left_at > d.at OR h.left_at IS NULL)
)
SELECT
  o.day, -- Day, in the account's time zone
  coalesce(u.name, 'user ' || nullif(o.user_id, 0), '(none)') AS responsible_user, -- Who was responsible for the record at that moment
  count(*) FILTER (WHERE o.what IN ('move', 'won', 'lost')) AS moves, -- Deals that came into another stage, won and lost included
  count(*) FILTER (WHERE o.what = 'won') AS won, -- Deals won
  count(*) FILTER (WHERE o.what = 'lost') AS lost, -- Deals lost
  count(*) FILTER (WHERE o.what = 'task_created') AS tasks_created, -- Tasks made
  count(*) FILTER (WHERE o.what = 'task_completed') AS tasks_completed, -- Tasks done: on the day of the event, or of the task's last change where no event tells
  count(*) FILTER (WHERE o.what = 'common') AS notes, -- Notes written
  count(*) FILTER (WHERE o.what = 'call_in') AS calls_in, -- Calls that came in
  count(*) FILTER (WHERE o.what = 'call_out') AS calls_out, -- Calls that went out
  coalesce(sum(o.seconds), 0)::bigint AS call_seconds, -- How long they lasted, in seconds
  o.user_id AS responsible_user_id -- That user's id; null: nobody
FROM owned o
LEFT JOIN {schema}.users u ON u.id = o.user_id
GROUP BY o.day, o.user_id, u.name
