-- Drops observations that events explain: between the two readings an event brought the observed value, and
-- no later event before the reading replaced it. For field values any event between the readings suffices:
-- amoCRM's log writes values in a form of its own
DELETE FROM {observations} o USING (
  SELECT o.entity_type, o.entity_id, o.field_id, o.seen_at, o.since, e.at, e.after = {seen_after} AS is_it,
         r.low,
         coalesce(lead(e.at) OVER (PARTITION BY o.entity_type, o.entity_id, o.field_id, o.seen_at
                                   ORDER BY e.at, e.id), 'infinity') AS next_at
  FROM affected a JOIN {observations} o USING (entity_type, entity_id), LATERAL (
         SELECT o.changed_at - slack AS low, o.changed_at + slack AS high
         FROM (SELECT CASE WHEN o.changed_at = o.seen_at THEN {slack} ELSE '0' END AS slack) x) r, reported e
  WHERE o.attribute = {attribute} AND e.entity_id = o.entity_id AND e.field_id = o.field_id
    AND e.entity_type = o.entity_type
    AND e.at >= o.since AND e.at <= r.high) e
WHERE o.entity_type = e.entity_type AND o.entity_id = e.entity_id AND o.attribute = {attribute}
  AND o.field_id = e.field_id AND o.seen_at = e.seen_at
  AND (o.attribute = 'custom_field' AND e.at > e.since OR e.is_it AND e.next_at >= e.low)
