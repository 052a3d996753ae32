-- Incoming leads that nobody has accepted or declined yet, one row each
SELECT
  i.uid, -- Id of the incoming lead
  i.category, -- sip, mail, forms or chats
  p.name AS pipeline, -- Pipeline
  i.source_name, -- Name of the source
  (i.created_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS created_date, -- Day on which it came, in the account's time zone
  i.created_at, -- When it came
  (SELECT e.name FROM {schema}.unsorted_leads x JOIN {schema}.leads e ON e.id = x.lead_id WHERE x.unsorted_uid = i.uid ORDER BY e.id LIMIT 1) AS lead, -- Name of its deal
  (SELECT e.name FROM {schema}.unsorted_contacts x JOIN {schema}.contacts e ON e.id = x.contact_id WHERE x.unsorted_uid = i.uid ORDER BY e.id LIMIT 1) AS contact, -- Name of its contact
  (SELECT e.name FROM {schema}.unsorted_companies x JOIN {schema}.companies e ON e.id = x.company_id WHERE x.unsorted_uid = i.uid ORDER BY e.id LIMIT 1) AS company, -- Name of its company
  i.metadata ->> 'phone' AS phone, -- Number that called (sip)
  CASE jsonb_typeof(i.metadata -> 'from') WHEN 'object' THEN i.metadata #>> '{{from,email}}' ELSE i.metadata ->> 'from' END AS sender, -- Who it came from: a number, a name in a messenger, an address
  i.metadata ->> 'form_name' AS form_name, -- Form (forms)
  i.metadata ->> 'form_page' AS form_page, -- Page of the form (forms)
  i.metadata ->> 'subject' AS subject, -- Subject (mail)
  coalesce(i.metadata ->> 'last_message_text', i.metadata ->> 'content_summary') AS message, -- Last message (chats), or beginning of the text (mail)
  i.metadata AS content, -- What came in, by category
  i.pipeline_id, -- Pipeline's id
  (SELECT min(x.lead_id) FROM {schema}.unsorted_leads x WHERE x.unsorted_uid = i.uid) AS lead_id, -- Its deal's id
  (SELECT min(x.contact_id) FROM {schema}.unsorted_contacts x WHERE x.unsorted_uid = i.uid) AS contact_id, -- Its contact's id
  i.source_uid, -- Id of the source
  i.source_name AS source, -- Name of the source, under the name that it has in all views
  {url} || '/leads/detail/' || (SELECT min(x.lead_id) FROM {schema}.unsorted_leads x WHERE x.unsorted_uid = i.uid) AS url -- Address of its deal's card; null: it has no deal
FROM {schema}.unsorted i
LEFT JOIN {schema}.pipelines p ON p.id = i.pipeline_id
WHERE i._deleted_at IS NULL
