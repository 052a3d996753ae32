-- Deals per value of one custom select field, with a phone of their main contacts
WITH field AS (
  SELECT f.id, f.name
  FROM custom_fields f JOIN lead_custom_field_values v ON v.field_id = f.id
  WHERE f.entity_type = 'leads' AND f.type = 'select'
  GROUP BY f.id, f.name ORDER BY count(*) DESC, f.id LIMIT 1
), phone AS (
  SELECT v.contact_id, min(v.value_text) AS phone
  FROM contact_custom_field_values v JOIN custom_fields f ON f.entity_type = 'contacts' AND f.id = v.field_id
  WHERE f.code = 'PHONE' GROUP BY v.contact_id
)
SELECT field.name AS field, v.value_text AS option, count(*) AS deals, sum(l.price) AS value,
       count(phone.phone) AS with_phone, min(phone.phone) AS a_phone
FROM leads l
CROSS JOIN field
JOIN lead_custom_field_values v ON v.lead_id = l.id AND v.field_id = field.id
LEFT JOIN lead_contacts c ON c.lead_id = l.id AND c.is_main
LEFT JOIN phone ON phone.contact_id = c.contact_id
WHERE l._deleted_at IS NULL
GROUP BY field.name, v.value_text
ORDER BY deals DESC;
