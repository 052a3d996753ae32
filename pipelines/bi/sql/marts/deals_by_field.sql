-- Closed deals by the account's own select fields (Свои поля): deals won and lost by the day of closing, for each field with options and each of its values
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
counted AS (
  SELECT (l.closed_at AT TIME ZONE z.name)::date AS closed_date, l.pipeline_id, l.responsible_user_id, l.source_id, v.field_id, v.value_text,
         count(*) AS deals, count(*) FILTER (WHERE l.status_id = 142) AS won, coalesce(sum(l.price) FILTER (WHERE l.status_id = 142), 0) AS won_value
  FROM {schema}.leads l CROSS JOIN zone z
  JOIN {schema}.lead_custom_field_values v ON v.lead_id = l.id AND v.value_text <> ''
  WHERE l._deleted_at IS NULL AND l.status_id IN (142, 143) AND v.field_id IN (
    SELECT f.id FROM {schema}.custom_fields f WHERE f.entity_type = 'leads' AND f._deleted_at IS NULL AND f.type IN ('select', 'multiselect', 'radiobutton', 'category'))
  GROUP BY 1, 2, 3, 4, 5, 6
)
SELECT
  f.name AS field, -- Field
  c.value_text AS field_value, -- Its value. A deal with several values of one field counts in each of them
  c.closed_date, -- Day on which the deals were won or lost, in the account's time zone
  date_trunc('month', c.closed_date::timestamp)::date AS closed_month, -- Month of that day
  p.name AS pipeline, -- Pipeline
  coalesce(u.name, 'user ' || nullif(c.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  o.name AS source, -- Source of the deals
  c.deals, -- Deals closed: won and lost
  c.won, -- Deals won
  c.deals - c.won AS lost, -- Deals lost
  c.won_value, -- Value of the deals won
  c.field_id, -- Field's id
  c.pipeline_id, -- Pipeline's id
  c.responsible_user_id, -- Responsible user's id
  c.source_id -- Source's id
FROM counted c
LEFT JOIN {schema}.custom_fields f ON f.entity_type = 'leads' AND f.id = c.field_id
LEFT JOIN {schema}.pipelines p ON p.id = c.pipeline_id
LEFT JOIN {schema}.sources o ON o.id = c.source_id
LEFT JOIN {schema}.users u ON u.id = c.responsible_user_id
