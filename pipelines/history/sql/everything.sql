-- Adds every record to `affected`: those with a row, then those that only events or observations name
INSERT INTO affected (entity_type, entity_id, told)
SELECT 'leads', id, 'lead' FROM {schema}.leads
UNION ALL SELECT 'contacts', id, 'contact' FROM {schema}.contacts
UNION ALL SELECT 'companies', id, 'company' FROM {schema}.companies
UNION ALL SELECT 'customers', id, 'customer' FROM {schema}.customers;

INSERT INTO affected (entity_type, entity_id, told)
SELECT DISTINCT k.entity_type, x.entity_id, k.told
FROM (SELECT entity_type AS told, entity_id FROM {schema}.events
      WHERE entity_id IS NOT NULL AND (type = ANY({types}) OR type ~ {field_event})
      UNION ALL
      SELECT k.told, o.entity_id FROM {schema}.observations o JOIN {kinds} USING (entity_type)) x
JOIN {kinds} USING (told)
WHERE NOT EXISTS (SELECT FROM affected a WHERE a.told = x.told AND a.entity_id = x.entity_id)
