-- Adds every record to `affected`: those with a row, then those that only events or observations name
INSERT INTO affected (entity_type, entity_id, event_kind)
SELECT 'leads', id, 'lead' FROM {schema}.leads
UNION ALL SELECT 'contacts', id, 'contact' FROM {schema}.contacts
UNION ALL SELECT 'companies', id, 'company' FROM {schema}.companies
UNION ALL SELECT 'customers', id, 'customer' FROM {schema}.customers
UNION ALL SELECT 'tasks', id, 'task' FROM {schema}.tasks
UNION ALL SELECT {elements}, id, 'catalog_' || catalog_id FROM {schema}.catalog_elements;

INSERT INTO affected (entity_type, entity_id, event_kind)
SELECT DISTINCT k.entity_type, x.entity_id, k.event_kind
FROM (SELECT entity_type AS event_kind, entity_id FROM {events} e
      WHERE entity_id IS NOT NULL AND (type = ANY({types}) OR type ~ {field_event})
      UNION ALL
      SELECT k.event_kind, o.entity_id FROM {observations} o JOIN {kinds} USING (entity_type)) x
JOIN {kinds} USING (event_kind)
WHERE NOT EXISTS (SELECT FROM affected a WHERE a.event_kind = x.event_kind AND a.entity_id = x.entity_id);

INSERT INTO affected (entity_type, entity_id, event_kind)
SELECT {elements}, x.entity_id, min(x.event_kind)
FROM (SELECT entity_type AS event_kind, entity_id FROM {events} e
      WHERE entity_id IS NOT NULL AND entity_type ~ {catalog} AND type ~ {field_event}
      UNION ALL
      SELECT NULL, entity_id FROM {observations} o WHERE entity_type = {elements}) x
WHERE NOT EXISTS (SELECT FROM affected a WHERE a.entity_type = {elements} AND a.entity_id = x.entity_id)
GROUP BY x.entity_id
