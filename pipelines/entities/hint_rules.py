"""SQL templates that enqueue hints (re-reads): entities name them in `before_upsert`, `after_upsert` and
`on_delete` (`entities/spec.py`).

Each statement adds to the queue `mirror.hints`, in the transaction that loads the rows it reacts to
(design.md 3, hint). A hint is a list's path, an id, and the time after which the record has to be read
(`told_at`). Facts: amocrm-api.md 3.20 (payloads of events), 4.1 and 4.2 (changes that move no updated_at).
"""

from __future__ import annotations

from typing import NamedTuple

from pipelines.cursors import SERVER_NOW, after_first_read, log_relevant_since
from pipelines.entities.field_types import OPTION_TYPES_SQL
from pipelines.entities.record_kinds import LIST_BY_EVENT_KIND, RECORD_KINDS, RECORD_LISTS_SQL, TASK

NON_CHANGING_EVENTS = (
    "^(.*_note_added|(incoming|outgoing)_(call|sms|mail|chat_message)|entity_direct_message"
    "|link_followed|robot_repl.*|intent_identified|nps_rate_added|talk_.*|conversation_answered"
    "|ai_result|meta_.*|page_mention|(video|picture)_.*|zoom_conference|dropbox_attachment)$")
"""Regular expression of the types of events about messages and notes, which change nothing in the record
itself."""


def enqueue_sql(source: str) -> str:
    """Returns the statement that enqueues hints. `source` is a SELECT of listing, id, told_at, deleted_at
    (the time of a delete event, else null) and of_links (true if the record's links may have changed, too).
    Ids on the suppression list get no hint."""
    return f"""
INSERT INTO mirror.hints AS h (account, listing, key, told_at, deleted_at, of_links)
SELECT %(account)s, listing, id::text, max(told_at), max(deleted_at), bool_or(of_links)
FROM ({source}) source WHERE id IS NOT NULL
AND NOT EXISTS (SELECT FROM mirror.forgotten f WHERE f.account = %(account)s AND f.entity = listing
                AND f.key = id::text AND f.because IS NULL)
GROUP BY listing, id ORDER BY listing, id::text
ON CONFLICT (account, listing, key) DO UPDATE SET told_at = greatest(h.told_at, excluded.told_at),
is_suspect = false, version = h.version + 1,
deleted_at = greatest(h.deleted_at, excluded.deleted_at), of_links = h.of_links OR excluded.of_links"""


EVENTS_RELEVANT_SINCE = log_relevant_since("events")
"""SELECT of the time from which events enqueue hints (`at`, in seconds since 1970)."""
EVENTS_ARE_OLD = f"%(latest)s < (SELECT at FROM ({EVENTS_RELEVANT_SINCE}) since)"
"""SQL condition that all events of a batch are older than that."""

KINDS_SQL = ", ".join(f"('{kind.singular}', '{kind.plural}', {kind.link_rank})"
                      for kind in (*RECORD_KINDS, TASK))
EVENT_HINTS = enqueue_sql(f"""
WITH kinds (name, listing, rank) AS (VALUES {KINDS_SQL}),
since AS ({EVENTS_RELEVANT_SINCE}),
late AS MATERIALIZED (SELECT s.* FROM {{stage}} s, since WHERE s.created_at >= to_timestamp(since.at)),
new AS (
    SELECT s.id, s.type, s.entity_type, s.entity_id, s.created_at AS at,
           s.value_after AS after, s.value_before AS before FROM late s
    WHERE s.type !~ '{NON_CHANGING_EVENTS}' AND NOT EXISTS (SELECT FROM {{table}} t WHERE t.id = s.id)),
sides AS (
    SELECT n.id, side ->> 'type' AS name, side ->> 'id' AS number
    FROM new n, LATERAL (VALUES (n.after), (n.before)) o (list),
         LATERAL jsonb_array_elements(CASE jsonb_typeof(list) WHEN 'array' THEN list END) v,
         LATERAL (SELECT coalesce(v -> 'link' -> 'entity', v -> 'unlink' -> 'entity') AS side) x
    WHERE n.type ~ 'linked$')
SELECT CASE WHEN b.rank < a.rank THEN b.listing ELSE a.listing END AS listing,
       CASE WHEN b.rank < a.rank THEN s.number::int8 ELSE n.entity_id END AS id, n.at AS told_at,
       CASE WHEN n.type ~ '^({'|'.join(LIST_BY_EVENT_KIND)})_deleted$' THEN n.at END AS deleted_at,
       n.type ~ '(^entity_merged|_restored)$' AS of_links
FROM new n JOIN kinds a ON a.name = n.entity_type
     LEFT JOIN sides s ON s.id = n.id AND s.number ~ '^[0-9]+$' AND length(s.number) < 19
     LEFT JOIN kinds b ON b.name = s.name
WHERE n.type !~ 'note_deleted$'
UNION ALL
SELECT a.listing || '/notes', number::int8, n.at, n.at, false
FROM new n JOIN kinds a ON a.name = n.entity_type,
     LATERAL (SELECT n.after -> 0 -> 'note' ->> 'id' AS number) x
WHERE n.type ~ 'note_deleted$' AND number ~ '^[0-9]+$' AND length(number) < 19""")
"""New events name the records to re-read; of a link, its owner only (schema.md, Links). Old events are
filtered out first (MATERIALIZED), before the costlier expressions run on them. A merge names the surviving
record only; the absorbed one is found through the links that moved to the survivor."""

TASK_HINTS = enqueue_sql(f"""
SELECT k.kind AS listing, k.number AS id, s._synced_at AS told_at, NULL::timestamptz AS deleted_at,
       false AS of_links
FROM {{stage}} s LEFT JOIN {{table}} t ON t.id = s.id,
     LATERAL (VALUES (s.entity_type, s.entity_id), (t.entity_type, t.entity_id)) k (kind, number)
WHERE (t.id IS NULL OR t._deleted_at IS NOT NULL OR ROW(t.entity_id, t.is_completed, t.complete_till)
       IS DISTINCT FROM ROW(s.entity_id, s.is_completed, s.complete_till))
AND k.kind IN {RECORD_LISTS_SQL} AND k.number > 0
AND {after_first_read("tasks")}""")
"""A task that was added, removed or moved changes closest_task_at of its record, which moves no
updated_at."""

DELETED_TASK_HINTS = enqueue_sql(f"""
SELECT t.entity_type AS listing, t.entity_id AS id, {SERVER_NOW} AS told_at,
       NULL::timestamptz AS deleted_at, false AS of_links
FROM {{schema}}.tasks t JOIN {{gone}} g USING (id)
WHERE t.entity_type IN {RECORD_LISTS_SQL} AND t.entity_id > 0""")

PURCHASE_HINTS = enqueue_sql(f"""
SELECT 'customers' AS listing, k.number AS id, s._synced_at AS told_at, NULL::timestamptz AS deleted_at,
       false AS of_links
FROM {{stage}} s LEFT JOIN {{table}} t ON t.id = s.id,
     LATERAL (VALUES (s.customer_id), (t.customer_id)) k (number)
WHERE ROW(t.customer_id, t.price, coalesce(t.is_deleted, false))
      IS DISTINCT FROM ROW(s.customer_id, s.price, coalesce(s.is_deleted, false))
AND {after_first_read("customers")}""")
"""A purchase changes its customer's ltv, purchases_count and average_check."""


def deleted_owner_hints(kind: str) -> str:
    """Enqueues the tasks and notes of deleted records: a merge moves them to the surviving record."""
    return enqueue_sql(f"""
SELECT 'tasks' AS listing, o.id, {SERVER_NOW} AS told_at, NULL::timestamptz AS deleted_at, false AS of_links
FROM {{schema}}.tasks o JOIN {{gone}} g ON o.entity_type = '{kind}' AND o.entity_id = g.id
WHERE o._deleted_at IS NULL
UNION ALL SELECT '{kind}/notes', o.id, {SERVER_NOW}, NULL, false
FROM {{schema}}.notes o JOIN {{gone}} g ON o.entity_type = '{kind}' AND o.entity_id = g.id
WHERE o._deleted_at IS NULL""")


DELETED_PURCHASE_HINTS = enqueue_sql(f"""
SELECT 'customers' AS listing, t.customer_id AS id, {SERVER_NOW} AS told_at,
       NULL::timestamptz AS deleted_at, false AS of_links
FROM {{schema}}.transactions t JOIN {{gone}} g USING (id)""")

DELETED_UNSORTED_HINTS = enqueue_sql(f"""
SELECT 'leads' AS listing, c.lead_id AS id, {SERVER_NOW} AS told_at,
       NULL::timestamptz AS deleted_at, false AS of_links
FROM {{schema}}.unsorted_leads c JOIN {{gone}} g ON g.uid = c.unsorted_uid
UNION ALL SELECT 'contacts', c.contact_id, {SERVER_NOW}, NULL, false
FROM {{schema}}.unsorted_contacts c JOIN {{gone}} g ON g.uid = c.unsorted_uid
UNION ALL SELECT 'companies', c.company_id, {SERVER_NOW}, NULL, false
FROM {{schema}}.unsorted_companies c JOIN {{gone}} g ON g.uid = c.unsorted_uid""")
"""An incoming lead that was accepted or declined: the records that came with it become visible, or are
deleted."""


class ValueTable(NamedTuple):
    """A table of custom field values. `kind`: entity_type of the fields; `owner_column`: the column with the
    id of the record that has the value."""

    kind: str
    name: str
    owner_column: str


def removed_option_hints(values: ValueTable) -> str:
    """Enqueues the records with a value whose option the field no longer has."""
    return enqueue_sql(f"""
SELECT '{values.kind}' AS listing, v.{values.owner_column} AS id, {SERVER_NOW} AS told_at,
       NULL::timestamptz AS deleted_at, false AS of_links
FROM {{schema}}.custom_fields f JOIN {{schema}}.{values.name} v ON v.field_id = f.id
WHERE f.entity_type = '{values.kind}' AND f.type IN {OPTION_TYPES_SQL}
AND ROW(f.entity_type, f.id)::text IN (SELECT key FROM touched) AND v.enum_id IS NOT NULL
AND NOT EXISTS (SELECT FROM {{schema}}.custom_field_enums e
                WHERE e.entity_type = f.entity_type AND e.field_id = f.id AND e.id = v.enum_id)""")


def relabel_values(values: ValueTable) -> str:
    """Updates the text of values whose option was renamed (schema.md, rule 5)."""
    return f"""
UPDATE {{schema}}.{values.name} v SET value_text = e.value
FROM {{schema}}.custom_fields f, {{schema}}.custom_field_enums e
WHERE f.entity_type = '{values.kind}' AND f.type IN {OPTION_TYPES_SQL}
AND ROW(f.entity_type, f.id)::text IN (SELECT key FROM touched)
AND e.entity_type = f.entity_type AND e.field_id = f.id AND v.field_id = f.id AND v.enum_id = e.id
AND v.value_text IS DISTINCT FROM e.value"""


def delete_field_values(values: ValueTable) -> str:
    """Deletes the values of deleted fields (schema.md, rule 5)."""
    return (f"DELETE FROM {{schema}}.{values.name} v USING {{gone}} g "
            f"WHERE g.entity_type = '{values.kind}' AND v.field_id = g.id")
