-- Duplicates (Дубли): contacts, or companies, that share a telephone number or an e-mail address once these are written in one way
SELECT
  s.entity_type, -- contacts or companies
  CASE s.code WHEN 'PHONE' THEN 'phone' ELSE 'email' END AS shared, -- What they share: phone or email
  n.value, -- The number (digits only; Russian ones begin with 7) or the address (lower case)
  cardinality(s.ids)::bigint AS records, -- How many share it
  s.ids, -- Which ones, the oldest first
  CASE s.entity_type WHEN 'contacts' THEN ARRAY(SELECT c.name FROM {schema}.contacts c WHERE c.id = ANY (s.ids) ORDER BY c.id) ELSE ARRAY(SELECT c.name FROM {schema}.companies c WHERE c.id = ANY (s.ids) ORDER BY c.id) END AS names, -- What they are called
  ARRAY(SELECT {url} || '/' || s.entity_type || '/detail/' || i.id FROM unnest(s.ids) i (id) ORDER BY i.id) AS urls -- Addresses of their cards
FROM {stored_shared_values} s
LEFT JOIN {schema}.contact_custom_field_values p ON s.entity_type = 'contacts' AND p.contact_id = s.place[1] AND p.field_id = s.place[2] AND p.position = s.place[3]
LEFT JOIN {schema}.company_custom_field_values q ON s.entity_type = 'companies' AND q.company_id = s.place[1] AND q.field_id = s.place[2] AND q.position = s.place[3]
CROSS JOIN LATERAL (SELECT s.code, coalesce(p.value_text, q.value_text) AS value_text) w
CROSS JOIN LATERAL (SELECT CASE w.code WHEN 'PHONE' THEN regexp_replace(w.value_text, '[^0-9]', '', 'g') ELSE lower(btrim(w.value_text)) END AS words) x
CROSS JOIN LATERAL (SELECT CASE WHEN w.code = 'EMAIL' THEN x.words WHEN x.words ~ '^7[0-9]{{10}}$' OR x.words ~ '^8[0-9]{{10}}$' AND w.value_text NOT LIKE '%+%' THEN '7' || right(x.words, 10) WHEN x.words ~ '^9[0-9]{{9}}$' THEN '7' || x.words ELSE x.words END AS value) n
