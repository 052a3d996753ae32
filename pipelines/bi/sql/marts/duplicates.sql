-- Duplicates (Дубли): contacts, or companies, that share a telephone number or an e-mail address once these are written in one way
WITH told AS (
  SELECT 'contacts' AS entity_type, c.id, c.name, f.code, v.value_text FROM {schema}.contact_custom_field_values v
  JOIN {schema}.custom_fields f ON f.entity_type = 'contacts' AND f.id = v.field_id AND f.code IN ('PHONE', 'EMAIL')
  JOIN {schema}.contacts c ON c.id = v.contact_id AND c._deleted_at IS NULL
  UNION ALL
  SELECT 'companies', c.id, c.name, f.code, v.value_text FROM {schema}.company_custom_field_values v
  JOIN {schema}.custom_fields f ON f.entity_type = 'companies' AND f.id = v.field_id AND f.code IN ('PHONE', 'EMAIL')
  JOIN {schema}.companies c ON c.id = v.company_id AND c._deleted_at IS NULL
), plain AS (
  SELECT *, CASE code WHEN 'PHONE' THEN regexp_replace(value_text, '[^0-9]', '', 'g') ELSE lower(btrim(value_text)) END AS words FROM told
), normal AS (
  SELECT entity_type, id, name, code, CASE WHEN code = 'EMAIL' THEN words WHEN words ~ '^7[0-9]{{10}}$' OR words ~ '^8[0-9]{{10}}$' AND value_text NOT LIKE '%+%' THEN '7' || right(words, 10) WHEN words ~ '^9[0-9]{{9}}$' THEN '7' || words ELSE words END AS value
  FROM plain WHERE CASE code WHEN 'PHONE' THEN length(words) >= 6 ELSE words LIKE '%_@_%' END
), once AS (
  SELECT DISTINCT entity_type, code, value, id, name FROM normal
)
SELECT
  entity_type, -- contacts or companies
  CASE code WHEN 'PHONE' THEN 'phone' ELSE 'email' END AS shared, -- What they share: phone or email
  value, -- The number (digits only; Russian ones begin with 7) or the address (lower case)
  count(*) AS records, -- How many share it
  array_agg(id ORDER BY id) AS ids, -- Which ones, the oldest first
  array_agg(name ORDER BY id) AS names, -- What they are called
  array_agg({url} || '/' || entity_type || '/detail/' || id ORDER BY id) AS urls -- Addresses of their cards
FROM once
GROUP BY entity_type, code, value
HAVING count(*) > 1
