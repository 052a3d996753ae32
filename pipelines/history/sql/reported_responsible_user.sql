-- The changes of responsible users that events report. An id that is no number means that the record has
-- none. `before` is null (unknown) if the event does not say it; events that do not say the user after are
-- left out
INSERT INTO reported (entity_id, field_id, entity_type, at, id, changed_by, before, after)
SELECT entity_id, 0, entity_type, created_at, id, created_by,
       CASE WHEN was ? 'id'
            THEN ARRAY[CASE WHEN was ->> 'id' ~ '^[0-9]+$' AND length(was ->> 'id') <= 18
                            THEN (was ->> 'id')::int8 END] END,
       ARRAY[CASE WHEN became ->> 'id' ~ '^[0-9]+$' AND length(became ->> 'id') <= 18
                  THEN (became ->> 'id')::int8 END]
FROM (SELECT e.entity_id, a.entity_type, e.created_at, e.id, e.created_by,
             e.value_before -> 0 -> 'responsible_user' AS was,
             e.value_after -> 0 -> 'responsible_user' AS became
      FROM affected a JOIN {events} e ON e.entity_id = a.entity_id AND e.entity_type = a.event_kind
      WHERE e.type = 'entity_responsible_changed' AND e.created_at IS NOT NULL OFFSET 0) x
WHERE became ? 'id'
