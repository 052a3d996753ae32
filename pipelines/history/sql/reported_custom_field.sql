-- The changes of field values that events report, all values of a field in one row. Events that contain no
-- values are left out
INSERT INTO reported (entity_id, field_id, entity_type, at, id, changed_by, before, after)
SELECT entity_id, field::int8, entity_type, created_at, id, created_by,
       coalesce(jsonb_agg(value ORDER BY place) FILTER (WHERE side = 0), '[]'),
       coalesce(jsonb_agg(value ORDER BY place) FILTER (WHERE side = 1), '[]')
FROM (SELECT e.entity_id, a.entity_type, e.created_at, e.id, e.created_by, side, place,
             coalesce(x.value ->> 'field_id', substring(e.type FROM '[0-9]+')) AS field,
             jsonb_build_object('text', x.value -> 'text', 'enum_id', x.value -> 'enum_id') AS value
      FROM affected a
      JOIN {events} e ON e.entity_id = a.entity_id AND e.entity_type = a.event_kind, LATERAL (
             SELECT 0 AS side, place, element -> 'custom_field_value' AS value
             FROM jsonb_array_elements(CASE jsonb_typeof(e.value_before) WHEN 'array' THEN e.value_before
                                       ELSE '[]' END) WITH ORDINALITY b (element, place)
             UNION ALL SELECT 1, place, element -> 'custom_field_value'
             FROM jsonb_array_elements(CASE jsonb_typeof(e.value_after) WHEN 'array' THEN e.value_after
                                       ELSE '[]' END) WITH ORDINALITY n (element, place)) x
      WHERE e.type ~ {field_event} AND e.created_at IS NOT NULL AND jsonb_typeof(x.value) = 'object'
      OFFSET 0) x
WHERE field ~ '^[0-9]+$' AND length(field) <= 18
GROUP BY entity_id, field::int8, entity_type, created_at, id, created_by
