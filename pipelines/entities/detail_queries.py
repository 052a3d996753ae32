"""SQL that selects which records without a list endpoint have to be fetched (`DetailOf.due_sql`,
`entities/spec.py`).

A record is up to date since the later of: the read that produced its row's content, the last complete pass (a
read that changes nothing does not write the row). A record is due when the row that mentions it was loaded
after that, so a mention that arrives late is not missed; one minute of overlap covers reads in progress.
"""

from pipelines.entities.record_kinds import CUSTOMER, RECORD_KINDS

DUE_TALKS = """
SELECT DISTINCT mentioned.id::int8 AS id FROM {schema}.events e, LATERAL (
         SELECT e.entity_id::text AS id WHERE e.entity_type = 'talk'
         UNION ALL SELECT coalesce(v -> 'message' ->> 'talk_id', v -> 'talk' ->> 'id')
         FROM jsonb_array_elements(
           CASE jsonb_typeof(e.value_after) WHEN 'array' THEN e.value_after END) v) mentioned
       LEFT JOIN {schema}.talks t ON t.talk_id::text = mentioned.id
       CROSS JOIN LATERAL (SELECT greatest(%(since)s::timestamptz, t._synced_at) AS since) known
WHERE e.type IN ('incoming_chat_message', 'outgoing_chat_message', 'entity_direct_message', 'talk_created',
                 'talk_closed', 'ai_result', 'conversation_answered', 'talk_missed_event')
  AND mentioned.id ~ '^[0-9]{{1,18}}$'
  AND (%(since)s::timestamptz IS NULL OR known.since IS NULL OR e._synced_at > known.since
       OR e.created_at BETWEEN known.since - interval '1 minute' AND known.since + interval '1 minute')
UNION
SELECT t.talk_id FROM {schema}.talks t WHERE t._deleted_at IS NULL AND %(since)s::timestamptz IS NULL
ORDER BY 1"""
"""Talks that are due (amocrm-api.md 3.23): those that an event newer than their row names and, if since is
null, every talk that an event or the table knows. An event names a talk in its payload, or is about it
(entity_type talk)."""

_OWNER_LOADED = " OR ".join(
    f"(p.kind = '{kinds}'"
    f" AND EXISTS (SELECT FROM {{schema}}.{kinds} o WHERE o.id = p.id AND o._synced_at > known.since)"
    f" AND NOT EXISTS (SELECT FROM {{schema}}.{kind}_files x"
    f" WHERE x.{kind}_id = p.id AND x.file_uuid = f.uuid))"
    for kinds, kind, *_ in RECORD_KINDS)
_OWNER_RESTORED = " OR ".join(
    f"EXISTS (SELECT FROM {{schema}}.{kind}_files x"
    f" JOIN {{schema}}.{kinds} o ON o.id = x.{kind}_id AND o._deleted_at IS NULL"
    f" AND o._synced_at > known.since WHERE x.file_uuid = f.uuid AND NOT coalesce(l.entities @> "
    f"jsonb_build_array(jsonb_build_object('entity_type', '{kinds}', 'id', o.id)), false))"
    for kinds, kind, *_ in RECORD_KINDS)
_OWNER_DELETED = " OR ".join(
    f"EXISTS (SELECT FROM {{schema}}.{kind}_files x"
    f" JOIN {{schema}}.{kinds} o ON o.id = x.{kind}_id AND o._deleted_at IS NOT NULL"
    f" AND o._synced_at > known.since WHERE x.file_uuid = f.uuid)" for kinds, kind, *_ in RECORD_KINDS)
_OWNER_DELETED_UNREAD = (
    f"EXISTS (SELECT FROM {{schema}}.{CUSTOMER.singular}_files x"
    f" JOIN {{schema}}.{CUSTOMER.plural} o ON o.id = x.{CUSTOMER.singular}_id AND o._deleted_at IS NULL"
    f" JOIN {{schema}}.events e ON e.entity_type = '{CUSTOMER.singular}' AND e.entity_id = o.id"
    f" AND e.type = '{CUSTOMER.singular}_deleted' AND e._synced_at > known.since WHERE x.file_uuid = f.uuid)")
"""Customers may be switched off, and are not read then: an event alone says that one was deleted."""
DUE_FILES = f"""
SELECT f.uuid FROM {{schema}}.files f LEFT JOIN {{schema}}.file_links l ON l.file_uuid = f.uuid
       CROSS JOIN LATERAL (SELECT greatest(%(since)s::timestamptz, l._synced_at) AS since) known
WHERE f._deleted_at IS NULL AND (known.since IS NULL OR f._synced_at > known.since
       OR EXISTS (SELECT FROM {{schema}}.notes n
                  WHERE n.note_type = 'attachment' AND n.params ->> 'file_uuid' = f.uuid AND (
                  n._synced_at > known.since OR n.created_at BETWEEN known.since - interval '1 minute'
                                                                 AND known.since + interval '1 minute'))
       OR EXISTS (SELECT FROM jsonb_array_elements(
                  CASE jsonb_typeof(l.entities) WHEN 'array' THEN l.entities END) e, LATERAL (
                  SELECT e ->> 'entity_type' AS kind,
                           CASE WHEN e ->> 'id' ~ '^[0-9]{{{{1,18}}}}$' THEN (e ->> 'id')::int8 END AS id) p
                  WHERE {_OWNER_LOADED})
       OR {_OWNER_RESTORED} OR {_OWNER_DELETED} OR {_OWNER_DELETED_UNREAD}) ORDER BY 1"""
"""Files whose links (the records they are attached to) are due (3.22): the file's row is newer, or an
attachment note names the file and is newer, or since then one of the linked records was loaded, restored or
deleted."""
