-- The records' current responsible users; value is null for records that only events name
INSERT INTO records (entity_id, entity_type, born, created_by, value, updated_at, synced_at)
SELECT r.id, a.entity_type, r.created_at, r.created_by, ARRAY[r.responsible_user_id], r.updated_at,
       r._synced_at
FROM affected a JOIN (
  SELECT 'leads' AS entity_type, id, responsible_user_id, created_by, created_at, updated_at, _synced_at
  FROM {schema}.leads
  UNION ALL SELECT 'contacts', id, responsible_user_id, created_by, created_at, updated_at, _synced_at
  FROM {schema}.contacts
  UNION ALL SELECT 'companies', id, responsible_user_id, created_by, created_at, updated_at, _synced_at
  FROM {schema}.companies
  UNION ALL SELECT 'customers', id, responsible_user_id, created_by, created_at, updated_at, _synced_at
  FROM {schema}.customers
  UNION ALL SELECT 'tasks', id, responsible_user_id, created_by, created_at, updated_at, _synced_at
  FROM {schema}.tasks
) r ON r.entity_type = a.entity_type AND r.id = a.entity_id
WHERE r.created_at IS NOT NULL;

INSERT INTO records (entity_id, entity_type, born, created_by)
SELECT a.entity_id, a.entity_type, min(e.created_at), min(e.created_by)
FROM (SELECT * FROM affected a
      WHERE NOT EXISTS (SELECT FROM records r
                        WHERE r.entity_id = a.entity_id AND r.entity_type = a.entity_type) OFFSET 0) a
JOIN {events} e ON e.entity_id = a.entity_id AND e.entity_type = a.event_kind
WHERE e.type = a.event_kind || '_added' AND e.created_at IS NOT NULL GROUP BY a.entity_id, a.entity_type
