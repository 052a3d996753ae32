-- For each required field and the stage in which it must be filled: the deals, and those that have it empty
WITH required AS (
  SELECT r.entity_type, r.field_id, r.pipeline_id, r.status_id FROM {schema}.custom_field_required_statuses r
  JOIN {schema}.custom_fields f ON f.entity_type = r.entity_type AND f.id = r.field_id AND f._deleted_at IS NULL
  WHERE r.entity_type IN ('leads', 'contacts', 'companies')
), judged AS (
  SELECT r.*, l.id AS lead_id, NOT CASE r.entity_type
    WHEN 'leads' THEN EXISTS (SELECT FROM {schema}.lead_custom_field_values v WHERE v.lead_id = l.id AND v.field_id = r.field_id AND v.value_text <> '')
    WHEN 'contacts' THEN EXISTS (SELECT FROM {schema}.lead_contacts x JOIN {schema}.contact_custom_field_values v ON v.contact_id = x.contact_id AND v.field_id = r.field_id AND v.value_text <> '' WHERE x.lead_id = l.id AND x.is_main)
    ELSE EXISTS (SELECT FROM {schema}.lead_companies x JOIN {schema}.company_custom_field_values v ON v.company_id = x.company_id AND v.field_id = r.field_id AND v.value_text <> '' WHERE x.lead_id = l.id) END AS is_empty
  FROM required r JOIN {schema}.leads l ON l.pipeline_id = r.pipeline_id AND l.status_id = r.status_id AND l._deleted_at IS NULL
)
SELECT pipeline_id, status_id, entity_type, field_id, count(*) AS deals, count(*) FILTER (WHERE is_empty) AS empty,
       coalesce(array_agg(lead_id ORDER BY lead_id) FILTER (WHERE is_empty), '{{}}') AS lead_ids
FROM judged GROUP BY 1, 2, 3, 4
