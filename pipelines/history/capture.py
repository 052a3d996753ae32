"""What a landing sees change: SQL that runs between stage and upsert (`Entity.before`), where the former reading and the new one lie side by side.

    observations   a status, a responsible user or a custom field's values that differ from the former reading
    history_due    records whose history the end of the sync has to look at again (pipelines/history.py)

While all is due (before history has been made for the first time) nothing is noted: every record will be looked at anyway. `updated_at` is
amoCRM's clock and says what a reading included, where it can be believed: it has moved, and lies between the two readings.
"""

from __future__ import annotations

from models.base import AccountBase
from pipelines.schema.tables import shape

SLACK = "interval '1 minute'"
"""So far may amoCRM's clock be from ours, or a request's end from its start."""
FIELD_EVENT = "^custom_field_([0-9]+_)?value_changed$"
KINDS = {"lead": "leads", "contact": "contacts", "company": "companies", "customer": "customers"}
"""entity_type as events say it, and as everything else does."""
EVENT_TYPES = ("lead_status_changed", "entity_responsible_changed", *(f"{kind}_added" for kind in KINDS))

ALL = "all"
"""The entity_type of history_due's row that says: every record's."""
UNSEEDED = f"EXISTS (SELECT FROM {{schema}}.history_due WHERE entity_type = '{ALL}')"
SEEDED = f"NOT {UNSEEDED}"
BELIEVED = (f"s.updated_at IS DISTINCT FROM t.updated_at AND s.updated_at >= t._synced_at - {SLACK} AND s.updated_at <= s._synced_at + {SLACK}")
MOMENTS = f"""s._synced_at AS seen_at, CASE WHEN {BELIEVED} THEN s.updated_at ELSE s._synced_at END AS changed_at,
       CASE WHEN t.updated_at >= t._synced_at - {SLACK} AND t.updated_at <= t._synced_at + {SLACK} THEN t.updated_at
            ELSE t._synced_at - {SLACK} END AS since"""
BOTH = """FROM {stage} s JOIN {table} t ON t.id = s.id
  WHERE t._synced_at <= s._synced_at AND s.is_deleted IS NOT TRUE AND t.created_at IS NOT NULL"""
"""Rows that lose against what the table holds, skeletons of deleted records, and rows known from such a skeleton alone are no readings."""
INTO = ("INSERT INTO {schema}.observations (entity_type, entity_id, attribute, field_id, seen_at, changed_at, since, value_before, value_after)")
OPTIONS = "'select', 'multiselect', 'radiobutton', 'category'"

STATUS = ("status", ("pipeline_id", "status_id"), "num_nulls(s.pipeline_id, s.status_id, t.pipeline_id, t.status_id) = 0")
RESPONSIBLE = ("responsible_user", ("responsible_user_id",), "true")
Attribute = tuple[str, tuple[str, ...], str]
"""(name, columns, condition under which they are known)"""

EVENTS = (f"""
INSERT INTO {{schema}}.history_due (entity_type, entity_id)
SELECT DISTINCT k.entity_type, s.entity_id
FROM {{stage}} s JOIN (VALUES {", ".join(f"('{one}', '{many}')" for one, many in KINDS.items())}) k (told, entity_type) ON k.told = s.entity_type
WHERE {SEEDED} AND s.entity_id IS NOT NULL AND (s.type IN {EVENT_TYPES} OR s.type ~ '{FIELD_EVENT}')
  AND NOT EXISTS (SELECT FROM {{table}} t WHERE t.id = s.id) ON CONFLICT DO NOTHING""",)


def readings(model: type[AccountBase], values: type[AccountBase], *attributes: Attribute) -> tuple[str, ...]:
    """The templates for a kind of record, whose custom field values are in the table of `values`."""
    kind = str(model.__tablename__)
    return (*(_observed(model, kind, *attribute) for attribute in attributes), _values(kind, values), _due(kind, attributes))


def _row(alias: str, columns: tuple[str, ...]) -> str:
    return f"ROW({', '.join(f'{alias}.{column}' for column in columns)})"


def _object(alias: str, columns: tuple[str, ...]) -> str:
    return f"jsonb_build_object({', '.join(f'{name!r}, {alias}.{name}' for name in columns)})"


def _observed(model: type[AccountBase], kind: str, name: str, columns: tuple[str, ...], known: str) -> str:
    places = [column.name for column in shape(model).columns]
    absent = sum(1 << places.index(column) for column in columns)
    return f"""
{INTO}
SELECT '{kind}', s.id, '{name}', 0, {MOMENTS}, {_object("t", columns)}, {_object("s", columns)}
{BOTH} AND {_row("t", columns)} IS DISTINCT FROM {_row("s", columns)} AND s._absent & {absent} = 0 AND {known} ON CONFLICT DO NOTHING"""


def _values(kind: str, values: type[AccountBase]) -> str:
    """Of the records whose updated_at moved. Options are compared by id, numbers by value; a field that is deleted takes its values along."""
    of = shape(values)
    return f"""
WITH owners AS MATERIALIZED (
  SELECT s.id, {MOMENTS}
  {BOTH} AND s.updated_at IS DISTINCT FROM t.updated_at AND s._lists & %(values)s <> 0
), staged AS ({_grouped(kind, f"stage_{of.name}", of.owner[0])}
), held AS ({_grouped(kind, f"{{schema}}.{of.name}", of.owner[0])}
)
{INTO}
SELECT '{kind}', o.id, 'custom_field', field_id, o.seen_at, o.changed_at, o.since, coalesce(held.value, '[]'), coalesce(staged.value, '[]')
FROM staged FULL JOIN held USING (id, field_id) JOIN owners o USING (id)
LEFT JOIN {{schema}}.custom_fields f ON f.entity_type = '{kind}' AND f.id = field_id
WHERE staged.compared IS DISTINCT FROM held.compared AND f._deleted_at IS NULL ON CONFLICT DO NOTHING"""


def _grouped(kind: str, source: str, owner: str) -> str:
    return f"""
  SELECT o.id, v.field_id, jsonb_agg(jsonb_build_object('text', v.value_text, 'enum_id', v.enum_id) ORDER BY v.position) AS value,
         jsonb_agg(CASE WHEN f.type IN ({OPTIONS}) AND v.enum_id IS NOT NULL THEN to_jsonb(v.enum_id)
                        WHEN v.value_number IS NOT NULL THEN to_jsonb(trim_scale(v.value_number))
                        WHEN coalesce(v.value_date::text, v.value_at::text, v.value_boolean::text) IS NOT NULL THEN to_jsonb(v.value_text)
                        ELSE jsonb_build_array(v.value_text, v.enum_id, v.value_json) END ORDER BY v.position) AS compared
  FROM owners o JOIN {source} v ON v.{owner} = o.id LEFT JOIN {{schema}}.custom_fields f ON f.entity_type = '{kind}' AND f.id = v.field_id
  GROUP BY o.id, v.field_id"""


def _due(kind: str, attributes: tuple[Attribute, ...]) -> str:
    columns = ("updated_at", *(column for attribute in attributes for column in attribute[1]))
    return f"""
INSERT INTO {{schema}}.history_due (entity_type, entity_id)
SELECT '{kind}', s.id FROM {{stage}} s LEFT JOIN {{table}} t ON t.id = s.id
WHERE {SEEDED} AND (t.id IS NULL OR t._synced_at <= s._synced_at AND {_row("t", columns)} IS DISTINCT FROM {_row("s", columns)})
ON CONFLICT DO NOTHING"""
