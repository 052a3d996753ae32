-- When and how a person first responded to each deal, and after how many seconds
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
days AS (
  SELECT g::date AS day, (g::date + w.opens_at) AT TIME ZONE z.name AS opens_at, (g::date + w.closes_at) AT TIME ZONE z.name AS closes_at,
         w.weekday IS NOT NULL AND y.day IS NULL AS is_working
  FROM zone z CROSS JOIN generate_series(timestamp '2009-01-01', (now() AT TIME ZONE z.name)::date::timestamp, interval '1 day') g
  LEFT JOIN {schema}.working_hours w ON w.weekday = extract(isodow FROM g)
  LEFT JOIN {schema}.holidays y ON y.day = g::date
), worked AS (
  SELECT day, opens_at, closes_at, CASE WHEN is_working THEN greatest(0, extract(epoch FROM closes_at - opens_at)) ELSE 0 END AS seconds FROM days
), calendar AS (
  SELECT *, sum(seconds) OVER (ORDER BY day) - seconds AS before FROM worked
), touches AS (
  SELECT entity_type || 's' AS entity_type, entity_id, created_at AS at, nullif(created_by, 0) AS user_id, type AS what, 2 AS rank FROM {schema}.events
  WHERE entity_type IN ('lead', 'contact') AND (type = 'outgoing_call' OR created_by <> 0
    AND type IN ('outgoing_sms', 'outgoing_chat_message', 'outgoing_mail', 'entity_direct_message'))
  UNION ALL
  SELECT n.entity_type, n.entity_id, n.created_at, CASE WHEN n.params ->> 'call_responsible' ~ '^[0-9]{{1,18}}$' THEN (n.params ->> 'call_responsible')::bigint ELSE n.responsible_user_id END, CASE n.note_type WHEN 'call_in' THEN 'incoming_call' WHEN 'call_out' THEN 'outgoing_call' ELSE 'outgoing_sms' END, 1 FROM {schema}.notes n
  WHERE n._deleted_at IS NULL AND n.entity_type IN ('leads', 'contacts') AND (n.note_type = 'call_out' OR n.note_type = 'sms_out' AND n.created_by <> 0 OR n.note_type = 'call_in'
    AND CASE WHEN n.params ->> 'call_status' ~ '^[1-7]$' THEN n.params ->> 'call_status' = '4' ELSE n.params ->> 'duration' ~ '^0*[1-9][0-9]{{0,8}}$' END)
), of_deals AS (
  SELECT entity_id AS lead_id, at, user_id, what, rank FROM touches WHERE entity_type = 'leads'
  UNION ALL
  SELECT x.lead_id, t.at, t.user_id, t.what, t.rank FROM touches t JOIN {schema}.lead_contacts x ON x.contact_id = t.entity_id AND x.is_main WHERE t.entity_type = 'contacts'
), firsts AS (
  SELECT DISTINCT ON (d.lead_id) d.* FROM of_deals d
  JOIN {schema}.leads l ON l.id = d.lead_id AND d.at >= l.created_at AND (d.at <= l.closed_at OR l.closed_at IS NULL)
  ORDER BY d.lead_id, d.at, d.user_id IS NULL, d.rank, d.what, d.user_id
)
SELECT f.lead_id, f.at, f.user_id, f.what, extract(epoch FROM f.at - l.created_at)::bigint AS response_seconds,
  round(
    cb.before + CASE WHEN cb.seconds > 0 THEN greatest(0, extract(epoch FROM least(f.at, cb.closes_at) - cb.opens_at)) ELSE 0 END
    - ca.before - CASE WHEN ca.seconds > 0 THEN greatest(0, extract(epoch FROM least(l.created_at, ca.closes_at) - ca.opens_at)) ELSE 0 END
  )::bigint AS working_seconds
FROM firsts f JOIN {schema}.leads l ON l.id = f.lead_id CROSS JOIN zone z
LEFT JOIN calendar ca ON ca.day = (l.created_at AT TIME ZONE z.name)::date
LEFT JOIN calendar cb ON cb.day = (f.at AT TIME ZONE z.name)::date
