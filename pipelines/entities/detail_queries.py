"""Which records to ask for, of those that have no list (Over.sql in declare.py).

A record is known since its row's content was read or since the last complete pass, whichever is later: an unchanged row is not written.
What tells of a change is compared by when its own row came here, so nothing that comes late is missed; where both sides may have been
under way at once, a minute is allowed for.
"""

TALKS = """
SELECT DISTINCT told.id::int8 FROM {schema}.events e, jsonb_array_elements(e.value_after) v,
       LATERAL (SELECT coalesce(v -> 'message' ->> 'talk_id', v -> 'talk' ->> 'id') AS id) told
       LEFT JOIN {schema}.talks t ON t.talk_id::text = told.id
       CROSS JOIN LATERAL (SELECT greatest(%(since)s::timestamptz, t._synced_at) AS since) known
WHERE e.type IN ('incoming_chat_message', 'outgoing_chat_message', 'entity_direct_message', 'talk_created', 'talk_closed', 'ai_result',
                 'conversation_answered', 'talk_missed_event')
  AND told.id ~ '^[0-9]{{1,18}}$' AND (known.since IS NULL OR e._synced_at > known.since
       OR e.created_at BETWEEN known.since - interval '1 minute' AND known.since + interval '1 minute') ORDER BY 1"""
"""Talks (amocrm-api.md 3.23): the ids stand in events. A talk is read when an event is newer."""

ON = {"leads": "lead", "contacts": "contact", "companies": "company", "customers": "customer"}
_CAME = " OR ".join(
    f"(p.kind = '{kinds}' AND EXISTS (SELECT FROM {{schema}}.{kinds} o WHERE o.id = p.id AND o._synced_at > known.since)"
    f" AND NOT EXISTS (SELECT FROM {{schema}}.{kind}_files x WHERE x.{kind}_id = p.id AND x.file_uuid = f.uuid))" for kinds, kind in ON.items())
_CAME_BACK = " OR ".join(
    f"EXISTS (SELECT FROM {{schema}}.{kind}_files x JOIN {{schema}}.{kinds} o ON o.id = x.{kind}_id AND o._deleted_at IS NULL"
    f" AND o._synced_at > known.since WHERE x.file_uuid = f.uuid AND NOT coalesce(l.entities @> "
    f"jsonb_build_array(jsonb_build_object('entity_type', '{kinds}', 'id', o.id)), false))" for kinds, kind in ON.items())
_WENT = " OR ".join(
    f"EXISTS (SELECT FROM {{schema}}.{kind}_files x JOIN {{schema}}.{kinds} o ON o.id = x.{kind}_id AND o._deleted_at IS NOT NULL"
    f" AND o._synced_at > known.since WHERE x.file_uuid = f.uuid)" for kinds, kind in ON.items())
FILES = f"""
SELECT f.uuid FROM {{schema}}.files f LEFT JOIN {{schema}}.file_links l ON l.file_uuid = f.uuid
       CROSS JOIN LATERAL (SELECT greatest(%(since)s::timestamptz, l._synced_at) AS since) known
WHERE f._deleted_at IS NULL AND (known.since IS NULL OR f._synced_at > known.since
       OR EXISTS (SELECT FROM {{schema}}.notes n WHERE n.note_type = 'attachment' AND n.params ->> 'file_uuid' = f.uuid AND (
                  n._synced_at > known.since OR n.created_at BETWEEN known.since - interval '1 minute' AND known.since + interval '1 minute'))
       OR EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof(l.entities) WHEN 'array' THEN l.entities END) e, LATERAL (
                  SELECT e ->> 'entity_type' AS kind, CASE WHEN e ->> 'id' ~ '^[0-9]{{{{1,18}}}}$' THEN (e ->> 'id')::int8 END AS id) p
                  WHERE {_CAME})
       OR {_CAME_BACK} OR {_WENT}) ORDER BY 1"""
"""The records that a file hangs on (3.22): read when the file's row is newer, when an attachment note names it and is newer, or when a
record that it hangs on has come, come back or gone since."""
