-- Adds an observation where the last known value is not the record's current one, although the record was
-- read after it: a change that no event reported. A reading includes an event if updated_at is at least as
-- late, or if the reading began well after the event; otherwise the record lags behind its events, and the
-- events win
INSERT INTO {observations}
       (entity_type, entity_id, attribute, field_id, seen_at, changed_at, since, value_before, value_after)
SELECT r.entity_type, r.entity_id, {attribute}, 0, seen_at,
       CASE WHEN r.updated_at > last.at AND r.updated_at <= r.synced_at + {slack}
       THEN r.updated_at ELSE seen_at END, last.at, {last}, {now}
FROM (SELECT DISTINCT ON (entity_id, entity_type) * FROM (
        SELECT entity_id, entity_type, at, 0 AS rank, id, after FROM reported
        UNION ALL SELECT entity_id, entity_type, changed_at, 1, '', {seen_after}
        FROM {observations} o JOIN affected USING (entity_type, entity_id)
        WHERE o.attribute = {attribute}) known
      ORDER BY entity_id, entity_type, at DESC, rank DESC, id DESC) last
JOIN records r USING (entity_id, entity_type), LATERAL (SELECT greatest(r.synced_at, last.at) AS seen_at) s
WHERE r.value <> last.after
  AND (last.rank = 1 OR last.at < r.synced_at - {slack}
       OR last.at <= r.updated_at AND r.updated_at <= r.synced_at + {slack})
ON CONFLICT (entity_type, entity_id, attribute, field_id, seen_at) DO UPDATE
SET changed_at = excluded.changed_at, since = excluded.since, value_before = excluded.value_before,
    value_after = excluded.value_after
