-- Calls (Звонки), by day, user and direction: how many, how many answered, how long
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
told AS (
  SELECT (n.created_at AT TIME ZONE z.name)::date AS day, n.note_type,
         CASE WHEN n.params ->> 'call_responsible' ~ '^[0-9]{{1,18}}$' THEN (n.params ->> 'call_responsible')::bigint ELSE n.responsible_user_id END AS user_id,
         coalesce(CASE WHEN n.params ->> 'duration' ~ '^[0-9]{{1,9}}$' THEN (n.params ->> 'duration')::bigint END, 0) AS seconds,
         n.params ->> 'call_status' AS status
  FROM {schema}.notes n CROSS JOIN zone z
  WHERE n.note_type IN ('call_in', 'call_out') AND n._deleted_at IS NULL
), judged AS (
  SELECT *, CASE WHEN status ~ '^[1-7]$' THEN status = '4' ELSE seconds > 0 END AS is_answered FROM told
)
SELECT
  j.day, -- Day, in the account's time zone
  CASE j.note_type WHEN 'call_in' THEN 'in' ELSE 'out' END AS direction, -- in or out
  coalesce(u.name, 'user ' || nullif(j.user_id, 0), '(none)') AS call_user, -- Who called or was called: the call's own responsible user, else the note's
  count(*) AS calls, -- Calls
  count(*) FILTER (WHERE j.is_answered) AS answered, -- Those in which they talked: status 4; of calls without a status, those that lasted
  count(*) FILTER (WHERE NOT j.is_answered) AS unanswered, -- The others
  sum(j.seconds)::bigint AS seconds, -- How long all lasted, in seconds
  round(avg(j.seconds) FILTER (WHERE j.is_answered), 1) AS average_seconds, -- How long an answered one lasted, on average
  j.user_id AS call_user_id, -- That user's id
  coalesce(u.name, 'user ' || nullif(j.user_id, 0), '(none)') AS responsible_user, -- The same user as call_user: under the name by which dashboards filter
  j.user_id AS responsible_user_id -- That user's id
FROM judged j
LEFT JOIN {schema}.users u ON u.id = j.user_id
GROUP BY j.day, j.note_type, u.name, j.user_id
