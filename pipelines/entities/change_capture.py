"""Change capture: SQL that runs between stage and upsert (`Entity.before_upsert`), where the previous and the
new version of a row can be compared.

    observations   changes of status, responsible user or custom field values since the previous reading
    history_due    records whose history has to be rebuilt at the end of the sync (`history/rebuild.py`)

Nothing is captured before history has been built for the first time: that build covers every record.
`updated_at` comes from amoCRM's clock. It says what a reading included if it is plausible: it has moved, and
it lies between the two readings.
"""

from __future__ import annotations

from typing import NamedTuple

from models.base import AccountBase
from pipelines.entities.field_types import OPTION_TYPES_SQL
from pipelines.entities.record_kinds import (
    CATALOG_ELEMENTS,
    CATALOG_EVENT_PATTERN,
    LIST_BY_EVENT_KIND,
)
from pipelines.schema.tables import table_schema_of

CLOCK_SLACK = "interval '1 minute'"
"""SQL interval: the largest difference assumed between amoCRM's clock and ours, and between a request's start
and its end."""
FIELD_EVENT_PATTERN = "^custom_field_([0-9]+_)?value_changed$"
"""Regular expression of Postgres: the event types that report a change of a custom field."""
EVENT_TYPES = ("lead_status_changed", "entity_responsible_changed",
               *(f"{kind}_added" for kind in LIST_BY_EVENT_KIND))
"""Event types that history is made from, besides FIELD_EVENT_PATTERN."""

ALL_RECORDS = "all"
"""entity_type of the row of history_due that stands for every record."""
BEFORE_FIRST_BUILD = f"EXISTS (SELECT FROM {{schema}}.history_due WHERE entity_type = '{ALL_RECORDS}')"
AFTER_FIRST_BUILD = f"NOT {BEFORE_FIRST_BUILD}"
UPDATED_AT_IS_PLAUSIBLE = (
    f"s.updated_at IS DISTINCT FROM t.updated_at AND s.updated_at >= t._synced_at - {CLOCK_SLACK} "
    f"AND s.updated_at <= s._synced_at + {CLOCK_SLACK}")
TIME_COLUMNS = f"""s._synced_at AS seen_at,
       CASE WHEN {UPDATED_AT_IS_PLAUSIBLE} THEN s.updated_at ELSE s._synced_at END AS changed_at,
       CASE WHEN t.updated_at >= t._synced_at - {CLOCK_SLACK} AND t.updated_at <= t._synced_at + {CLOCK_SLACK}
            THEN t.updated_at
            ELSE t._synced_at - {CLOCK_SLACK} END AS since"""
FROM_STAGE_AND_TABLE = """FROM {stage} s JOIN {table} t ON t.id = s.id
  WHERE t._synced_at <= s._synced_at AND t.created_at IS NOT NULL"""
"""SQL: pairs of the new row s and the previous row t. Left out, because they are no readings: new rows that
are older than the table's, skeletons of deleted records, and table rows that came from such a skeleton
only."""
INSERT_OBSERVATIONS = (
    "INSERT INTO {schema}.observations (entity_type, entity_id, attribute, field_id, seen_at, "
    "changed_at, since, value_before, value_after)")


def without_captures(templates: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the templates that capture nothing. A repair loads without captures: what it replaces was never
    true, and history is made again afterwards."""
    return tuple(each for each in templates if INSERT_OBSERVATIONS not in each
                 and "{schema}.history_due" not in each)


class CapturedAttribute(NamedTuple):
    """An attribute whose changes are captured. `condition`: SQL condition under which the values of its
    columns are known."""

    name: str
    columns: tuple[str, ...]
    condition: str


STATUS = CapturedAttribute("status", ("pipeline_id", "status_id"),
                           "num_nulls(s.pipeline_id, s.status_id, t.pipeline_id, t.status_id) = 0")
RESPONSIBLE = CapturedAttribute("responsible_user", ("responsible_user_id",), "true")

CAPTURE_EVENTS = (f"""
INSERT INTO {{schema}}.history_due (entity_type, entity_id)
SELECT DISTINCT coalesce(k.entity_type, '{CATALOG_ELEMENTS}'), s.entity_id
FROM {{stage}} s
LEFT JOIN (VALUES {", ".join(f"('{one}', '{many}')" for one, many in LIST_BY_EVENT_KIND.items())})
  k (event_kind, entity_type) ON k.event_kind = s.entity_type
WHERE (k.event_kind IS NOT NULL OR s.entity_type ~ '{CATALOG_EVENT_PATTERN}') AND s.entity_id IS NOT NULL
  AND {AFTER_FIRST_BUILD} AND (s.type IN {EVENT_TYPES} OR s.type ~ '{FIELD_EVENT_PATTERN}')
  AND NOT EXISTS (SELECT FROM {{table}} t WHERE t.id = s.id AND t._deleted_at IS NULL)
ON CONFLICT DO NOTHING""",)


def capture_changes(model: type[AccountBase], values: type[AccountBase] | None,
                    *attributes: CapturedAttribute, field_kind: str = "") -> tuple[str, ...]:
    """Returns the SQL templates that capture changes of one kind of record. `model`: its table, `values`: the
    table of its custom field values, if it has one, `field_kind`: `custom_fields.entity_type` of these
    fields, if it is not the table's name. The templates' placeholders: schema, stage, table, and the
    parameter values."""
    kind = str(model.__tablename__)
    return (*(_attribute_changes(model, kind, *attribute) for attribute in attributes),
            *([_field_value_changes(model, values, field_kind or kind)] if values else []),
            _history_due(kind, attributes))


def _pairs(model: type[AccountBase]) -> str:
    """Returns the FROM and WHERE of the pairs of the new row s and the previous row t."""
    has_flag = table_schema_of(model).has_column("is_deleted")
    return FROM_STAGE_AND_TABLE + (" AND s.is_deleted IS NOT TRUE" if has_flag else "")


def _row_expression(alias: str, columns: tuple[str, ...]) -> str:
    return f"ROW({', '.join(f'{alias}.{column}' for column in columns)})"


def _jsonb_object(alias: str, columns: tuple[str, ...]) -> str:
    return f"jsonb_build_object({', '.join(f'{name!r}, {alias}.{name}' for name in columns)})"


def _attribute_changes(model: type[AccountBase], kind: str, name: str, columns: tuple[str, ...],
                       condition: str) -> str:
    column_names = [column.name for column in table_schema_of(model).columns]
    absent_bits = sum(1 << column_names.index(column) for column in columns)
    return f"""
{INSERT_OBSERVATIONS}
SELECT '{kind}', s.id, '{name}', 0, {TIME_COLUMNS},
       {_jsonb_object("t", columns)}, {_jsonb_object("s", columns)}
{_pairs(model)} AND {_row_expression("t", columns)} IS DISTINCT FROM {_row_expression("s", columns)}
  AND s._absent & {absent_bits} = 0 AND {condition}
ON CONFLICT DO NOTHING"""


def _field_value_changes(model: type[AccountBase], values: type[AccountBase], field_kind: str) -> str:
    """Captures changes of custom field values, in records whose updated_at has moved. Compares options by id
    and numbers by value. Ignores deleted fields: amoCRM deletes their values with them."""
    table_schema, kind = table_schema_of(values), str(model.__tablename__)
    return f"""
WITH owners AS MATERIALIZED (
  SELECT s.id, {TIME_COLUMNS}
  {_pairs(model)} AND s.updated_at IS DISTINCT FROM t.updated_at AND s._lists & %(values)s <> 0
), staged AS ({_grouped_values(field_kind, f"stage_{table_schema.name}", table_schema.owner_key[0])}
), held AS ({_grouped_values(field_kind, f"{{schema}}.{table_schema.name}", table_schema.owner_key[0])}
)
{INSERT_OBSERVATIONS}
SELECT '{kind}', o.id, 'custom_field', field_id, o.seen_at, o.changed_at, o.since,
       coalesce(held.value, '[]'), coalesce(staged.value, '[]')
FROM staged FULL JOIN held USING (id, field_id) JOIN owners o USING (id)
LEFT JOIN {{schema}}.custom_fields f ON f.entity_type = '{field_kind}' AND f.id = field_id
WHERE staged.compared IS DISTINCT FROM held.compared AND f._deleted_at IS NULL ON CONFLICT DO NOTHING"""


def _grouped_values(field_kind: str, source: str, owner: str) -> str:
    return f"""
  SELECT o.id, v.field_id,
         jsonb_agg(jsonb_build_object('text', v.value_text, 'enum_id', v.enum_id)
                   ORDER BY v.position) AS value,
         jsonb_agg(CASE WHEN f.type IN {OPTION_TYPES_SQL} AND v.enum_id IS NOT NULL
                        THEN to_jsonb(v.enum_id)
                        WHEN v.value_number IS NOT NULL THEN to_jsonb(trim_scale(v.value_number))
                        WHEN coalesce(v.value_date::text, v.value_at::text, v.value_boolean::text) IS NOT NULL
                        THEN to_jsonb(v.value_text)
                        ELSE jsonb_build_array(v.value_text, v.enum_id, v.value_json) END
                   ORDER BY v.position) AS compared
  FROM owners o JOIN {source} v ON v.{owner} = o.id
  LEFT JOIN {{schema}}.custom_fields f ON f.entity_type = '{field_kind}' AND f.id = v.field_id
  GROUP BY o.id, v.field_id"""


def _history_due(kind: str, attributes: tuple[CapturedAttribute, ...]) -> str:
    columns = ("updated_at", *(column for attribute in attributes for column in attribute.columns))
    return f"""
INSERT INTO {{schema}}.history_due (entity_type, entity_id)
SELECT '{kind}', s.id FROM {{stage}} s LEFT JOIN {{table}} t ON t.id = s.id
WHERE {AFTER_FIRST_BUILD} AND (t.id IS NULL OR t._synced_at <= s._synced_at
                    AND {_row_expression("t", columns)} IS DISTINCT FROM {_row_expression("s", columns)})
ON CONFLICT DO NOTHING"""
