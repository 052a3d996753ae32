-- The utm marks of each deal, and which incoming lead it was
SELECT l.id AS lead_id,
  (SELECT min(v.value_text) FROM {schema}.lead_custom_field_values v WHERE v.lead_id = l.id AND v.position = 0 AND v.field_id = ANY (ARRAY(SELECT f.id FROM {schema}.custom_fields f WHERE f.entity_type = 'leads' AND f._deleted_at IS NULL AND f.type = 'tracking_data' AND 'utm_source' IN (lower(f.code), lower(f.name))))) AS utm_source,
  (SELECT min(v.value_text) FROM {schema}.lead_custom_field_values v WHERE v.lead_id = l.id AND v.position = 0 AND v.field_id = ANY (ARRAY(SELECT f.id FROM {schema}.custom_fields f WHERE f.entity_type = 'leads' AND f._deleted_at IS NULL AND f.type = 'tracking_data' AND 'utm_medium' IN (lower(f.code), lower(f.name))))) AS utm_medium,
  (SELECT min(v.value_text) FROM {schema}.lead_custom_field_values v WHERE v.lead_id = l.id AND v.position = 0 AND v.field_id = ANY (ARRAY(SELECT f.id FROM {schema}.custom_fields f WHERE f.entity_type = 'leads' AND f._deleted_at IS NULL AND f.type = 'tracking_data' AND 'utm_campaign' IN (lower(f.code), lower(f.name))))) AS utm_campaign,
  (SELECT min(v.value_text) FROM {schema}.lead_custom_field_values v WHERE v.lead_id = l.id AND v.position = 0 AND v.field_id = ANY (ARRAY(SELECT f.id FROM {schema}.custom_fields f WHERE f.entity_type = 'leads' AND f._deleted_at IS NULL AND f.type = 'tracking_data' AND 'utm_content' IN (lower(f.code), lower(f.name))))) AS utm_content,
  (SELECT min(v.value_text) FROM {schema}.lead_custom_field_values v WHERE v.lead_id = l.id AND v.position = 0 AND v.field_id = ANY (ARRAY(SELECT f.id FROM {schema}.custom_fields f WHERE f.entity_type = 'leads' AND f._deleted_at IS NULL AND f.type = 'tracking_data' AND 'utm_term' IN (lower(f.code), lower(f.name))))) AS utm_term,
  i.uid AS unsorted_uid
FROM {schema}.leads l
LEFT JOIN LATERAL (
  SELECT n.uid FROM {schema}.unsorted_leads x JOIN {schema}.unsorted n ON n.uid = x.unsorted_uid
  WHERE x.lead_id = l.id ORDER BY n.created_at, n.uid LIMIT 1) i ON true
WHERE l._deleted_at IS NULL
