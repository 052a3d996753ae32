-- The deals' current stages; value is null for deals that only events name
INSERT INTO records (entity_id, entity_type, born, created_by, value, updated_at, synced_at)
SELECT l.id, 'leads', coalesce(l.created_at, l.updated_at, l._synced_at), l.created_by,
       ARRAY[l.pipeline_id, l.status_id], l.updated_at, l._synced_at
FROM affected a JOIN {schema}.leads l ON l.id = a.entity_id
WHERE a.entity_type = 'leads' AND l.pipeline_id IS NOT NULL AND l.status_id IS NOT NULL;

INSERT INTO records (entity_id, entity_type, born, created_by)
SELECT a.entity_id, 'leads', min(e.created_at), min(e.created_by)
FROM (SELECT entity_id FROM affected a
      WHERE entity_type = 'leads'
        AND NOT EXISTS (SELECT FROM records r WHERE r.entity_id = a.entity_id) OFFSET 0) a
JOIN {events} e ON e.entity_id = a.entity_id
WHERE e.entity_type = 'lead' AND e.type = 'lead_added' AND e.created_at IS NOT NULL GROUP BY a.entity_id
