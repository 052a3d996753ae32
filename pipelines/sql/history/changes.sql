-- What changed when: of several changes within one second the last, and none where the second left things as they were
INSERT INTO changes (entity_id, field_id, attribute, entity_type, at, before, after, changed_by, source)
WITH known AS (
  SELECT entity_id, field_id, attribute, entity_type, at, 0 AS rank, id, before, after, changed_by, 'event' AS source FROM told
  UNION ALL SELECT entity_id, field_id, attribute, entity_type, changed_at, 1, '', value_before, value_after, NULL, 'observed'
  FROM {schema}.observations JOIN affected USING (entity_type, entity_id)
), seconds AS (
  SELECT *, first_value(before) OVER (PARTITION BY entity_id, field_id, attribute, entity_type, at ORDER BY rank, id) AS first_before,
         lead(at) OVER (PARTITION BY entity_id, field_id, attribute, entity_type ORDER BY at, rank, id) AS next_at
  FROM known
), lasts AS (
  SELECT *, lag(after) OVER (PARTITION BY entity_id, field_id, attribute, entity_type ORDER BY at) AS former
  FROM seconds WHERE next_at IS DISTINCT FROM at
)
SELECT entity_id, field_id, attribute, entity_type, at, first_before, after, changed_by, source
FROM lasts WHERE (first_before = after OR source = 'observed') IS NOT TRUE OR coalesce(former, first_before) IS DISTINCT FROM after
