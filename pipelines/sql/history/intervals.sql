-- From when to when: from the record's creation to its first change, and from each change to the next
INSERT INTO intervals (entity_id, attribute, entity_type, entered_at, left_at, value, changed_by, source)
WITH numbered AS (
  SELECT *, lag(at) OVER (PARTITION BY entity_id, field_id, attribute, entity_type ORDER BY at) IS NULL AS is_first
  FROM changes WHERE field_id = 0
), entered AS (
  SELECT entity_id, attribute, entity_type, at, after AS value, changed_by, source FROM numbered
  UNION ALL SELECT entity_id, attribute, entity_type, r.born, n.before, r.created_by, 'created'
  FROM numbered n JOIN records r USING (entity_id, attribute, entity_type) WHERE n.is_first AND n.before IS NOT NULL AND r.born < n.at
  UNION ALL SELECT entity_id, attribute, entity_type, r.born, r.value, r.created_by, 'created'
  FROM records r LEFT JOIN numbered n USING (entity_id, attribute, entity_type) WHERE n.entity_id IS NULL AND r.value IS NOT NULL
)
SELECT entity_id, attribute, entity_type, at, lead(at) OVER (PARTITION BY entity_id, attribute, entity_type ORDER BY at), value, changed_by, source
FROM entered
