-- Adds the records that are due to `affected`. An element's catalog, by which events name its kind, is the
-- row's; without a row, its events'
WITH due AS (DELETE FROM {schema}.history_due RETURNING entity_type, entity_id)
INSERT INTO affected (entity_type, entity_id, event_kind)
SELECT entity_type, entity_id, event_kind FROM due JOIN {kinds} USING (entity_type)
UNION ALL
SELECT entity_type, entity_id,
       coalesce((SELECT 'catalog_' || c.catalog_id FROM {schema}.catalog_elements c WHERE c.id = entity_id),
                (SELECT min(e.entity_type) FROM {events} e
                 WHERE e.entity_id = due.entity_id AND e.entity_type ~ {catalog}))
FROM due WHERE entity_type = {elements}
