-- An observation that events explain is dropped: between the two readings an event brought what was seen, and no later one before the reading took
-- it away again. Of a field's values any event between will do: amoCRM's log writes them in words of its own
DELETE FROM {schema}.observations o USING affected a
WHERE a.entity_type = o.entity_type AND a.entity_id = o.entity_id AND EXISTS (
  SELECT FROM told e CROSS JOIN LATERAL (
    SELECT o.changed_at - CASE WHEN o.changed_at = o.seen_at THEN {slack} ELSE '0' END AS low,
           o.changed_at + CASE WHEN o.changed_at = o.seen_at THEN {slack} ELSE '0' END AS high) reading
  WHERE e.entity_id = o.entity_id AND e.field_id = o.field_id AND e.attribute = o.attribute AND e.entity_type = o.entity_type
    AND e.at >= o.since AND e.at <= reading.high
    AND (o.attribute = 'custom_field' AND e.at > o.since
         OR e.after = o.value_after AND (e.at >= reading.low OR NOT EXISTS (
           SELECT FROM told l WHERE l.entity_id = o.entity_id AND l.field_id = o.field_id AND l.attribute = o.attribute
             AND l.entity_type = o.entity_type AND (l.at, l.id) > (e.at, e.id) AND l.at < reading.low))))
