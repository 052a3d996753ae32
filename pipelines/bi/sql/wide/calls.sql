-- Telephone calls, one row each: the notes call_in and call_out
SELECT
  n.id, -- Note id
  CASE n.note_type WHEN 'call_in' THEN 'in' ELSE 'out' END AS direction, -- in or out
  n.params ->> 'phone' AS phone, -- Number of the other side
  CASE WHEN n.params ->> 'duration' ~ '^[0-9]{{1,9}}$' THEN (n.params ->> 'duration')::bigint END AS duration, -- Seconds; null: not told
  CASE WHEN n.params ->> 'call_status' ~ '^[1-7]$' THEN n.params ->> 'call_status' = '4' ELSE n.params ->> 'duration' ~ '^0*[1-9][0-9]{{0,8}}$' END AS is_answered, -- They talked: the call's status says so; where it has none, it lasted
  CASE n.params ->> 'call_status' WHEN '1' THEN 'left a message' WHEN '2' THEN 'call back later' WHEN '3' THEN 'not there' WHEN '4' THEN 'talked' WHEN '5' THEN 'wrong number' WHEN '6' THEN 'no answer' WHEN '7' THEN 'busy' END AS call_status, -- How it went
  n.params ->> 'call_result' AS call_result, -- What came of it
  CASE WHEN n.params ->> 'call_responsible' ~ '^[0-9]{{1,18}}$' THEN coalesce(k.name, 'user ' || (n.params ->> 'call_responsible')::bigint) ELSE coalesce(nullif(n.params ->> 'call_responsible', ''), u.name, 'user ' || nullif(n.responsible_user_id, 0), '(none)') END AS call_user, -- Who called or was called: the call's own responsible user, else the note's; a name where telephony gives one
  (n.created_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS created_date, -- Day of the call, in the account's time zone
  n.created_at, -- When it was
  n.entity_type, -- Kind of record that it is on: leads, contacts, companies or customers
  n.entity_id, -- Record that it is on
  CASE n.entity_type WHEN 'leads' THEN (SELECT e.name FROM {schema}.leads e WHERE e.id = n.entity_id) WHEN 'contacts' THEN (SELECT e.name FROM {schema}.contacts e WHERE e.id = n.entity_id) WHEN 'companies' THEN (SELECT e.name FROM {schema}.companies e WHERE e.id = n.entity_id) WHEN 'customers' THEN (SELECT e.name FROM {schema}.customers e WHERE e.id = n.entity_id) END AS entity_name, -- Name of that record
  coalesce(u.name, 'user ' || nullif(n.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user of the note
  g.name AS user_group, -- Department of the responsible user
  n.params ->> 'source' AS telephony, -- Telephone service that told of it
  n.params ->> 'link' AS link, -- Address of the recording
  n.params ->> 'uniq' AS uniq, -- Id of the call in the telephone service
  CASE WHEN n.params ->> 'call_responsible' ~ '^[0-9]{{1,18}}$' THEN (n.params ->> 'call_responsible')::bigint ELSE n.responsible_user_id END AS call_user_id, -- Id of that user; where telephony gives a name, the note's responsible user's
  n.responsible_user_id, -- Responsible user's id
  n.group_id, -- Department's id
  n.created_by, -- Id of the user who created the note; 0: robot or API
  {url} || '/' || n.entity_type || '/detail/' || n.entity_id AS url -- Address of the card of the record that it is on
FROM {schema}.notes n
LEFT JOIN {schema}.users u ON u.id = n.responsible_user_id
LEFT JOIN {schema}.user_groups g ON g.id = n.group_id
LEFT JOIN {schema}.users k ON k.id = CASE WHEN n.params ->> 'call_responsible' ~ '^[0-9]{{1,18}}$' THEN (n.params ->> 'call_responsible')::bigint END
WHERE n.note_type IN ('call_in', 'call_out') AND n._deleted_at IS NULL
