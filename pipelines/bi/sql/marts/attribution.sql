-- Where deals come from (Источники): one row a deal, with its utm marks, its source, and the incoming lead that it was
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts)
SELECT
  l.id AS lead_id, -- Deal
  (l.created_at AT TIME ZONE z.name)::date AS created_date, -- Day of its creation, in the account's time zone
  coalesce(nullif(m.utm_source, ''), nullif(o.name, ''), nullif(i.source_name, ''), 'unknown') AS channel, -- utm_source; where there is none the source, or the incoming lead's source; else unknown
  m.utm_source, -- utm_source, from the deal's tracking fields
  m.utm_medium, -- utm_medium, from the deal's tracking fields
  m.utm_campaign, -- utm_campaign, from the deal's tracking fields
  m.utm_content, -- utm_content, from the deal's tracking fields
  m.utm_term, -- utm_term, from the deal's tracking fields
  o.name AS source, -- Source of the deal
  i.category AS unsorted_category, -- How it came in as an incoming lead: sip, mail, forms or chats; null: it was made by hand or by an integration
  i.source_name AS unsorted_source, -- Source of that incoming lead
  i.metadata ->> 'form_name' AS form_name, -- Its form
  p.name AS pipeline, -- Pipeline
  CASE l.status_id WHEN 142 THEN 'won' WHEN 143 THEN 'lost' ELSE 'open' END AS outcome, -- open, won or lost
  l.price, -- Value of the deal
  coalesce(u.name, 'user ' || nullif(l.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  l.created_at, -- When it was created
  l.pipeline_id, -- Pipeline's id
  l.source_id, -- Source's id
  l.responsible_user_id, -- Responsible user's id
  {url} || '/leads/detail/' || l.id AS url, -- Address of the deal's card
  (l.closed_at AT TIME ZONE z.name)::date AS closed_date, -- Day on which it was won or lost, in the account's time zone
  s.name AS status, -- Stage
  s.label AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  s.type IS NOT DISTINCT FROM 1 AS is_incoming, -- It is an incoming lead that waits to be accepted (Неразобранное)
  l.status_id -- Stage's id
FROM {schema}.leads l CROSS JOIN zone z
LEFT JOIN {schema}.sources o ON o.id = l.source_id
LEFT JOIN {schema}.pipelines p ON p.id = l.pipeline_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = l.pipeline_id AND s.id = l.status_id
LEFT JOIN {schema}.users u ON u.id = l.responsible_user_id
LEFT JOIN {stored_deal_marks} m ON m.lead_id = l.id
LEFT JOIN {schema}.unsorted i ON i.uid = m.unsorted_uid
WHERE l._deleted_at IS NULL
