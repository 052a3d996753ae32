"""Columns and SQL of the wide views: one row per record, names instead of ids, one typed column per custom
field.

Pure: (stored columns, columns of the SQL file, the account's fields) → columns → SQL. A column is never
removed: a renamed field keeps its column, a deleted field leaves it empty, a field whose type changes gets
another column. New columns are appended, so that CREATE OR REPLACE VIEW always works, and grants and views of
others survive.

The values of a record are adjacent in the table's primary key (owner, field, position). Each group of
neighbouring fields is read by one LATERAL aggregate, which the planner removes when a query uses none of its
columns (docs/benchmarks.md, "Wide views", has the alternatives measured).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from pipelines.bi.column_names import make_unique, readable_name, truncate
from pipelines.entities.field_types import view_type_of
from pipelines.schema.texts import say

MAX_COLUMNS = 1500
"""Columns per view. Postgres allows 1,600; the rest is room for columns that later versions add."""
FIELDS_PER_JOIN, MAX_JOINS = 10, 40
"""Fields read by one LATERAL join, and LATERAL joins per view; above that number of joins, each reads more
fields."""
OVERFLOW_SUFFIX = "__more"
"""Suffix of the overflow view of a wide view. Names made from lists or fields never contain two
underscores."""
CELL_SQL = {"text": "min(v.value_text) FILTER (WHERE v.field_id = {field} AND v.position = 0)",
         "numeric": "min(v.value_number) FILTER (WHERE v.field_id = {field} AND v.position = 0)",
         "date": "min(v.value_date) FILTER (WHERE v.field_id = {field} AND v.position = 0)",
         "timestamp with time zone": "min(v.value_at) FILTER (WHERE v.field_id = {field} AND v.position = 0)",
         "boolean": "bool_or(v.value_boolean) FILTER (WHERE v.field_id = {field} AND v.position = 0)",
         "text[]": "array_agg(v.value_text ORDER BY v.field_id, v.position) FILTER (WHERE "
         "v.field_id = {field})",
         "jsonb": "jsonb_agg(coalesce(v.value_json, to_jsonb(v.value_text)) ORDER BY v.field_id, v.position) "
         "FILTER (WHERE v.field_id = {field})"}


@dataclass(frozen=True)
class WideView:
    """A wide view. `values` is the table of its custom field values, `owner` the record's id column there;
    empty if the view has no custom fields."""

    name: str
    file: str = ""
    entity_type: str = ""
    values: str = ""
    owner: str = ""
    catalog_id: int | None = None


WIDE_VIEWS = (
    WideView("leads", "leads", "leads", "lead_custom_field_values", "lead_id"),
    WideView("contacts", "contacts", "contacts", "contact_custom_field_values", "contact_id"),
    WideView("companies", "companies", "companies", "company_custom_field_values", "company_id"),
    WideView("customers", "customers", "customers", "customer_custom_field_values", "customer_id"),
    WideView("tasks", "tasks"), WideView("calls", "calls"), WideView("unsorted", "unsorted"))
CATALOG_TEMPLATE = WideView("", "catalog", "catalogs", "catalog_element_custom_field_values",
                            "catalog_element_id")


def catalog_view(catalog_id: int, name: str | None, taken: Iterable[str]) -> WideView:
    """The view for a list that has none yet, with a name that is not in `taken`."""
    words = readable_name(name)
    return replace(CATALOG_TEMPLATE, catalog_id=catalog_id,
                   name=make_unique(truncate(f"catalog_{words or catalog_id}", 40), set(taken),
                                    [str(catalog_id)]))


@dataclass(frozen=True)
class Field:
    """A custom field as it is now in the account."""

    id: int
    name: str | None
    type: str | None
    is_live: bool

    @property
    def data_type(self) -> str:
        return view_type_of(self.type)


@dataclass(frozen=True)
class Column:
    """A column of a view, as stored in bi_columns. `label` is the field's current name, or the column's name
    in the SQL file."""

    view: str
    name: str
    position: int
    data_type: str
    field_id: int | None
    label: str | None
    is_live: bool = True

    @property
    def key(self) -> tuple[object, ...]:
        """Identity of the column's content. A field with a changed type is different content."""
        return (self.field_id, self.data_type) if self.field_id is not None \
            else (None, self.data_type, self.label)


def view_columns(wide: WideView, stored: Sequence[Column], base: Sequence[tuple[str, str]],
            fields: Sequence[Field]) -> list[Column]:
    """The columns that the view and its overflow views should have, ordered by view and position. `stored`
    are the stored columns, `base` (name, type) of the columns of the SQL file."""
    wanted = [Column(wide.name, name, 0, type_, None, name) for name, type_ in base]
    wanted += [Column(wide.name, "", 0, field.data_type, field.id, field.name) for field in fields
               if field.is_live]
    by_key, labels = {each.key: each for each in stored}, {field.id: field.name for field in fields}
    wanted_labels = {each.key: each.label for each in wanted}
    found = [replace(each, is_live=each.key in wanted_labels,
                     label=labels.get(each.field_id, each.label) if each.field_id else each.label)
             for each in stored]
    for each in wanted:
        if each.key not in by_key:
            found.append(_new_column(wide, each, found))
            by_key[each.key] = found[-1]
    return sorted(found, key=lambda each: (each.view, each.position))


def _new_column(wide: WideView, each: Column, found: Sequence[Column]) -> Column:
    """A new column, appended to the last overflow view, or to the view itself while it has room."""
    view, number = wide.name, 1
    while sum(one.view == view for one in found) >= MAX_COLUMNS:
        number += 1
        view = f"{wide.name}{OVERFLOW_SUFFIX}{number - 1 if number > 2 else ''}"
    here = [one for one in found if one.view == view]
    taken = {one.name for one in here} | ({"id"} if view != wide.name else set())
    endings = [each.data_type.split()[0].rstrip("[]")]
    if each.field_id is not None:
        endings = [*([] if any(one.field_id == each.field_id for one in found) else [str(each.field_id)]),
                   *endings, f"{each.field_id}_{endings[0]}", f"{each.field_id}_{len(here)}"]
    name = make_unique(each.name or readable_name(each.label) or f"field_{each.field_id}", taken,
                  [*endings, str(len(here))])
    return replace(each, view=view, name=name, position=len(here) + 1)


def view_query(wide: WideView, schema: str, base: Composable, view: str, shown: Sequence[Column]) -> Composed:
    """The SELECT of one view. `base` is the query of the SQL file, `shown` are the columns of this view."""
    fields = sorted((each for each in shown if each.field_id is not None and each.is_live),
                    key=lambda each: each.field_id or 0)
    size = max(FIELDS_PER_JOIN, math.ceil(len(fields) / MAX_JOINS))
    groups = [fields[start:start + size] for start in range(0, len(fields), size)]
    place = {each.name: number for number, group in enumerate(groups) for each in group}
    cells: list[Composable] = [SQL("b.id")] if view != wide.name else []
    cells += [_cell_sql(each, place) for each in shown]
    joins = [_lateral_join(wide, schema, number, group) for number, group in enumerate(groups)]
    return SQL("SELECT {} FROM ({}) b{}").format(SQL(", ").join(cells), base, SQL("").join(joins))


def _cell_sql(each: Column, place: dict[str, int]) -> Composed:
    if each.name in place:
        return SQL("{}.{}").format(Identifier(f"x{place[each.name]}"), Identifier(each.name))
    if each.is_live:
        return SQL("b.{} AS {}").format(Identifier(each.label or each.name), Identifier(each.name))
    return SQL("NULL::{} AS {}").format(SQL(each.data_type), Identifier(each.name))


def _lateral_join(wide: WideView, schema: str, number: int, group: Sequence[Column]) -> Composed:
    cells = [SQL("{} AS {}").format(SQL(CELL_SQL[each.data_type]).format(field=Literal(each.field_id)),
                                    Identifier(each.name)) for each in group]
    return SQL(
        " LEFT JOIN LATERAL (SELECT {} FROM {} v "
        "WHERE v.{} = b.id AND v.field_id BETWEEN {} AND {}) {} ON true").format(
        SQL(", ").join(cells), Identifier(schema, wide.values), Identifier(wide.owner),
        Literal(group[0].field_id), Literal(group[-1].field_id),
        Identifier(f"x{number}"))


def column_comment(each: Column, from_file: dict[str, str], field: Field | None) -> str:
    """The database comment of a column, in the language of the block of `speaking`. `field` is None if the
    account no longer has the field."""
    if each.field_id is None:
        return say(from_file.get(each.label or "", "")) if each.is_live else say("Not shown any more")
    prefix = f"{each.label or say('field')} ({say('amoCRM field')} {each.field_id}"
    if each.is_live or field is None:
        return f"{prefix}{f', {field.type}' if field else ''})"
    why = say("has the type {} now: see the other column of this field", field.type) if field.is_live \
        else say("deleted in amoCRM")
    return f"{prefix}; {why})"
