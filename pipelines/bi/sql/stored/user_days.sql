-- What happened on each day to the records of each user
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
SELECT o.day, o.user_id,
  count(*) FILTER (WHERE o.what IN ('move', 'won', 'lost')) AS moves,
  count(*) FILTER (WHERE o.what = 'won') AS won,
  count(*) FILTER (WHERE o.what = 'lost') AS lost,
  count(*) FILTER (WHERE o.what = 'task_created') AS tasks_created,
  count(*) FILTER (WHERE o.what = 'task_completed') AS tasks_completed,
  count(*) FILTER (WHERE o.what = 'common') AS notes,
  count(*) FILTER (WHERE o.what = 'call_in') AS calls_in,
  count(*) FILTER (WHERE o.what = 'call_out') AS calls_out,
  coalesce(sum(o.seconds), 0)::bigint AS call_seconds
FROM owned o
GROUP BY o.day, o.user_id
