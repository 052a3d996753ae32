-- Changes of one attribute, each with the time of the next one. Of several changes within one second the last
-- counts; a second that ends with the value it began with is no change
WITH known AS (
  SELECT entity_id, field_id, entity_type, at, 0 AS rank, id, before, after, changed_by, 'event' AS source
  FROM reported
  UNION ALL
  SELECT entity_id, field_id, entity_type, changed_at, 1, '', {seen_before}, {seen_after}, NULL, 'observed'
  FROM {observations} o JOIN affected USING (entity_type, entity_id) WHERE o.attribute = {attribute}
), seconds AS (
  SELECT *,
         first_value(before) OVER (PARTITION BY entity_id, field_id, entity_type, at
                                   ORDER BY rank, id) AS first_before,
         lead(at) OVER (PARTITION BY entity_id, field_id, entity_type ORDER BY at, rank, id) AS next_at
  FROM known
), lasts AS (
  SELECT *, lag(after) OVER (PARTITION BY entity_id, field_id, entity_type ORDER BY at) AS former
  FROM seconds WHERE next_at IS DISTINCT FROM at
)
SELECT entity_id, field_id, entity_type, at, lag(at) OVER thing IS NULL AS is_first,
       lead(at) OVER thing AS left_at, first_before AS before, after,
       changed_by, source
FROM lasts
WHERE (first_before = after OR source = 'observed') IS NOT TRUE
   OR coalesce(former, first_before) IS DISTINCT FROM after
WINDOW thing AS (PARTITION BY entity_id, field_id, entity_type ORDER BY at)
