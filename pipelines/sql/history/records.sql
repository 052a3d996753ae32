-- What the records are now: one row a thing that always has a value; value is null for a record known from its events alone
INSERT INTO records (entity_id, attribute, entity_type, born, created_by, value, updated_at, synced_at)
SELECT l.id, 'status', a.entity_type, coalesce(l.created_at, l.updated_at, l._synced_at), l.created_by,
       jsonb_build_object('pipeline_id', l.pipeline_id, 'status_id', l.status_id), l.updated_at, l._synced_at
FROM affected a JOIN {schema}.leads l ON l.id = a.entity_id
WHERE a.entity_type = 'leads' AND l.pipeline_id IS NOT NULL AND l.status_id IS NOT NULL;

INSERT INTO records (entity_id, attribute, entity_type, born, created_by, value, updated_at, synced_at)
SELECT r.id, 'responsible_user', a.entity_type, r.created_at, r.created_by, jsonb_build_object('responsible_user_id', r.responsible_user_id),
       r.updated_at, r._synced_at
FROM affected a JOIN (
  SELECT 'leads' AS entity_type, id, responsible_user_id, created_by, created_at, updated_at, _synced_at FROM {schema}.leads
  UNION ALL SELECT 'contacts', id, responsible_user_id, created_by, created_at, updated_at, _synced_at FROM {schema}.contacts
  UNION ALL SELECT 'companies', id, responsible_user_id, created_by, created_at, updated_at, _synced_at FROM {schema}.companies
  UNION ALL SELECT 'customers', id, responsible_user_id, created_by, created_at, updated_at, _synced_at FROM {schema}.customers
) r ON r.entity_type = a.entity_type AND r.id = a.entity_id
WHERE r.created_at IS NOT NULL;

ANALYZE records;

INSERT INTO records (entity_id, attribute, entity_type, born, created_by)
SELECT e.entity_id, t.attribute, a.entity_type, min(e.created_at), min(e.created_by)
FROM affected a JOIN kinds k USING (entity_type) JOIN {schema}.events e ON e.entity_id = a.entity_id AND e.entity_type = k.told,
     (VALUES ('status'), ('responsible_user')) t (attribute)
WHERE e.type = k.told || '_added' AND e.created_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM records r WHERE r.entity_type = a.entity_type AND r.entity_id = a.entity_id)
GROUP BY e.entity_id, t.attribute, a.entity_type
