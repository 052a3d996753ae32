-- Intervals: from each change to the next one, and before them one from the record's creation to the first
-- change, if there is any
SELECT entity_id, entity_type, at AS entered_at, left_at, after AS value, changed_by, source FROM changes
UNION ALL
SELECT r.entity_id, r.entity_type, r.born, c.at, CASE WHEN c.at IS NULL THEN r.value ELSE c.before END,
       r.created_by, 'created'
FROM records r LEFT JOIN (SELECT * FROM changes WHERE is_first) c USING (entity_id, entity_type)
WHERE CASE WHEN c.at IS NULL THEN r.value IS NOT NULL ELSE c.before IS NOT NULL AND r.born < c.at END
