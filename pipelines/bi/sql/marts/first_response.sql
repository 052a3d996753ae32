-- First response time: how long a new deal waited until a person called, wrote or answered a call, on the deal or on its main contact
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts)
SELECT
  l.id AS lead_id, -- Deal
  l.name, -- Name of the deal
  p.name AS pipeline, -- Pipeline
  o.name AS source, -- Source
  coalesce(u.name, 'user ' || nullif(l.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user of the deal
  (l.created_at AT TIME ZONE z.name)::date AS created_date, -- Day of its creation, in the account's time zone
  l.created_at, -- When it was created
  f.at AS responded_at, -- When a person first called, wrote or talked; null: nobody yet, or nobody before the deal was closed
  f.what AS response, -- How: outgoing_call, outgoing_sms, outgoing_chat_message, outgoing_mail, entity_direct_message, or an incoming_call that was answered
  f.response_seconds, -- After how many seconds
  f.working_seconds, -- Of these, the ones that fell into working hours (tables working_hours and holidays); null of deals created before 2009
  CASE WHEN f.at IS NOT NULL THEN coalesce(r.name, 'user ' || nullif(f.user_id, 0), '(none)') END AS responded_by, -- Who responded: of a call its own responsible user; (none): somebody who is no user; null: nobody yet
  l.pipeline_id, -- Pipeline's id
  l.source_id, -- Source's id
  l.responsible_user_id, -- Responsible user's id
  {url} || '/leads/detail/' || l.id AS url, -- Address of the deal's card
  s.name AS status, -- Stage
  s.label AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  s.type IS NOT DISTINCT FROM 1 AS is_incoming, -- It is an incoming lead that waits to be accepted (Неразобранное)
  ARRAY(SELECT t.name FROM {schema}.lead_tags x JOIN {schema}.tags t ON t.entity_type = 'leads' AND t.id = x.tag_id WHERE x.lead_id = l.id ORDER BY 1) AS tags, -- Tags of the deal
  l.status_id -- Stage's id
FROM {schema}.leads l CROSS JOIN zone z
LEFT JOIN {stored_first_touches} f ON f.lead_id = l.id
LEFT JOIN {schema}.pipelines p ON p.id = l.pipeline_id
LEFT JOIN {schema}.sources o ON o.id = l.source_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = l.pipeline_id AND s.id = l.status_id
LEFT JOIN {schema}.users u ON u.id = l.responsible_user_id
LEFT JOIN {schema}.users r ON r.id = f.user_id
WHERE l._deleted_at IS NULL
