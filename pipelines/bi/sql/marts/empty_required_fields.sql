-- Required fields that are empty, by stage: deals that are in a stage in which a field must be filled, and how many of them have it empty
WITH required AS (
  SELECT r.entity_type, r.field_id, r.pipeline_id, r.status_id, f.name FROM {schema}.custom_field_required_statuses r
  JOIN {schema}.custom_fields f ON f.entity_type = r.entity_type AND f.id = r.field_id AND f._deleted_at IS NULL
  WHERE r.entity_type IN ('leads', 'contacts', 'companies')
), judged AS (
  SELECT r.*, l.id AS lead_id, NOT CASE r.entity_type
    WHEN 'leads' THEN EXISTS (SELECT FROM {schema}.lead_custom_field_values v WHERE v.lead_id = l.id AND v.field_id = r.field_id AND v.value_text <> '')
    WHEN 'contacts' THEN EXISTS (SELECT FROM {schema}.lead_contacts x JOIN {schema}.contact_custom_field_values v ON v.contact_id = x.contact_id AND v.field_id = r.field_id AND v.value_text <> '' WHERE x.lead_id = l.id AND x.is_main)
    ELSE EXISTS (SELECT FROM {schema}.lead_companies x JOIN {schema}.company_custom_field_values v ON v.company_id = x.company_id AND v.field_id = r.field_id AND v.value_text <> '' WHERE x.lead_id = l.id) END AS is_empty
  FROM required r JOIN {schema}.leads l ON l.pipeline_id = r.pipeline_id AND l.status_id = r.status_id AND l._deleted_at IS NULL
)
SELECT
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  j.entity_type, -- Whose field it is: the deal's (leads), its main contact's (contacts) or its company's (companies)
  j.name AS field, -- Field
  count(*) AS deals, -- Deals that are in the stage
  count(*) FILTER (WHERE j.is_empty) AS empty, -- Of them, those whose field is empty, or that have no such contact or company
  round(count(*) FILTER (WHERE j.is_empty)::numeric / count(*), 4) AS share_empty, -- empty / deals
  coalesce(array_agg(j.lead_id ORDER BY j.lead_id) FILTER (WHERE j.is_empty), '{{}}') AS lead_ids, -- These deals
  s.sort AS status_sort, -- Order of the stage
  j.pipeline_id, -- Pipeline's id
  j.status_id, -- Stage's id
  j.field_id, -- Field's id
  coalesce(array_agg({url} || '/leads/detail/' || j.lead_id ORDER BY j.lead_id) FILTER (WHERE j.is_empty), '{{}}') AS urls, -- Addresses of their cards
  s.label AS status_label -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
FROM judged j
LEFT JOIN {schema}.pipelines p ON p.id = j.pipeline_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = j.pipeline_id AND s.id = j.status_id
WHERE s.type IS DISTINCT FROM 1
GROUP BY p.name, s.name, s.sort, s.label, j.entity_type, j.name, j.pipeline_id, j.status_id, j.field_id
