-- What events tell: one row a change of one thing. A value that cannot be read is null, not known; before may be, after not
INSERT INTO told (entity_id, field_id, attribute, entity_type, at, id, changed_by, before, after)
SELECT e.entity_id, v.field_id, v.attribute, a.entity_type, e.created_at, e.id, e.created_by, v.before, v.after
FROM affected a JOIN kinds k USING (entity_type) JOIN {schema}.events e ON e.entity_id = a.entity_id AND e.entity_type = k.told, LATERAL (
  SELECT 0 AS field_id, 'status' AS attribute,
         CASE WHEN b ->> 'id' ~ '^[0-9]{{1,18}}$' AND b ->> 'pipeline_id' ~ '^[0-9]{{1,18}}$'
              THEN jsonb_build_object('pipeline_id', (b ->> 'pipeline_id')::int8, 'status_id', (b ->> 'id')::int8) END AS before,
         CASE WHEN n ->> 'id' ~ '^[0-9]{{1,18}}$' AND n ->> 'pipeline_id' ~ '^[0-9]{{1,18}}$'
              THEN jsonb_build_object('pipeline_id', (n ->> 'pipeline_id')::int8, 'status_id', (n ->> 'id')::int8) END AS after
  FROM (SELECT e.value_before -> 0 -> 'lead_status', e.value_after -> 0 -> 'lead_status' OFFSET 0) x (b, n)
  WHERE e.type = 'lead_status_changed' AND a.entity_type = 'leads'
  UNION ALL
  SELECT 0, 'responsible_user',
         CASE WHEN b ? 'id' THEN jsonb_build_object('responsible_user_id', CASE WHEN b ->> 'id' ~ '^[0-9]{{1,18}}$' THEN (b ->> 'id')::int8 END) END,
         CASE WHEN n ? 'id' THEN jsonb_build_object('responsible_user_id', CASE WHEN n ->> 'id' ~ '^[0-9]{{1,18}}$' THEN (n ->> 'id')::int8 END) END
  FROM (SELECT e.value_before -> 0 -> 'responsible_user', e.value_after -> 0 -> 'responsible_user' OFFSET 0) x (b, n)
  WHERE e.type = 'entity_responsible_changed'
  UNION ALL
  SELECT CASE WHEN f.id ~ '^[0-9]{{1,18}}$' THEN f.id::int8 END, 'custom_field',
         coalesce(jsonb_agg(f.value ORDER BY side.place, f.place) FILTER (WHERE side.place = 0), '[]'),
         coalesce(jsonb_agg(f.value ORDER BY side.place, f.place) FILTER (WHERE side.place = 1), '[]')
  FROM (VALUES (0, e.value_before), (1, e.value_after)) side (place, list),
       jsonb_array_elements(CASE jsonb_typeof(side.list) WHEN 'array' THEN side.list ELSE '[]' END) WITH ORDINALITY x (element, place),
       LATERAL (SELECT coalesce(x.element -> 'custom_field_value' ->> 'field_id', substring(e.type FROM '[0-9]+')) AS id, x.place,
                       jsonb_build_object('text', x.element -> 'custom_field_value' -> 'text',
                                          'enum_id', x.element -> 'custom_field_value' -> 'enum_id') AS value) f
  WHERE e.type ~ {field_event} AND jsonb_typeof(x.element -> 'custom_field_value') = 'object'
  GROUP BY 1) v
WHERE (e.type IN ('lead_status_changed', 'entity_responsible_changed') OR e.type ~ {field_event}) AND e.created_at IS NOT NULL
  AND v.field_id IS NOT NULL AND v.after IS NOT NULL
