-- Contacts, or companies, that share a telephone number or an e-mail address: which ones, and where the first of them has it (record, field, position)
WITH written AS (
  SELECT 'contacts' AS entity_type, c.id, v.field_id, v.position, f.code, v.value_text FROM {schema}.contact_custom_field_values v
  JOIN {schema}.custom_fields f ON f.entity_type = 'contacts' AND f.id = v.field_id AND f.code IN ('PHONE', 'EMAIL')
  JOIN {schema}.contacts c ON c.id = v.contact_id AND c._deleted_at IS NULL
  UNION ALL
  SELECT 'companies', c.id, v.field_id, v.position, f.code, v.value_text FROM {schema}.company_custom_field_values v
  JOIN {schema}.custom_fields f ON f.entity_type = 'companies' AND f.id = v.field_id AND f.code IN ('PHONE', 'EMAIL')
  JOIN {schema}.companies c ON c.id = v.company_id AND c._deleted_at IS NULL
), plain AS (
  SELECT *, CASE code WHEN 'PHONE' THEN regexp_replace(value_text, '[^0-9]', '', 'g') ELSE lower(btrim(value_text)) END AS words FROM written
), normal AS (
  SELECT entity_type, id, field_id, position, code, CASE WHEN code = 'EMAIL' THEN words WHEN words ~ '^7[0-9]{{10}}$' OR words ~ '^8[0-9]{{10}}$' AND value_text NOT LIKE '%+%' THEN '7' || right(words, 10) WHEN words ~ '^9[0-9]{{9}}$' THEN '7' || words ELSE words END AS value
  FROM plain WHERE CASE code WHEN 'PHONE' THEN length(words) >= 6 ELSE words LIKE '%_@_%' END
)
SELECT entity_type, code, array_agg(DISTINCT id ORDER BY id) AS ids, min(ARRAY[id, field_id, position]) AS place
FROM normal GROUP BY entity_type, code, value HAVING count(DISTINCT id) > 1
