-- Every record that there is, or that events or observations tell of
INSERT INTO affected (entity_type, entity_id)
SELECT 'leads', id FROM {schema}.leads UNION ALL SELECT 'contacts', id FROM {schema}.contacts
UNION ALL SELECT 'companies', id FROM {schema}.companies UNION ALL SELECT 'customers', id FROM {schema}.customers
UNION SELECT k.entity_type, e.entity_id FROM {schema}.events e JOIN kinds k ON k.told = e.entity_type
WHERE e.entity_id IS NOT NULL AND (e.type = ANY({types}) OR e.type ~ {field_event})
UNION SELECT entity_type, entity_id FROM {schema}.observations
