-- The changes of stages that events report. `before` is null (unknown) if the event's stage cannot be read;
-- events whose stage after cannot be read are left out
INSERT INTO reported (entity_id, field_id, entity_type, at, id, changed_by, before, after)
SELECT entity_id, 0, 'leads', created_at, id, created_by,
       CASE WHEN p ~ '^[0-9]+$' AND s ~ '^[0-9]+$' AND length(p) <= 18 AND length(s) <= 18
            THEN ARRAY[p::int8, s::int8] END,
       ARRAY[pipeline::int8, status::int8]
FROM (SELECT e.entity_id, e.created_at, e.id, e.created_by,
             e.value_before -> 0 -> 'lead_status' ->> 'pipeline_id' AS p,
             e.value_before -> 0 -> 'lead_status' ->> 'id' AS s,
             e.value_after -> 0 -> 'lead_status' ->> 'pipeline_id' AS pipeline,
             e.value_after -> 0 -> 'lead_status' ->> 'id' AS status
      FROM affected a JOIN {events} e ON e.entity_id = a.entity_id
      WHERE a.entity_type = 'leads' AND e.entity_type = 'lead' AND e.type = 'lead_status_changed'
        AND e.created_at IS NOT NULL OFFSET 0) x
WHERE pipeline ~ '^[0-9]+$' AND status ~ '^[0-9]+$' AND length(pipeline) <= 18 AND length(status) <= 18
