"""The wide views: one row a record, names instead of ids, one typed column for each custom field.

Pure: (memory of the columns, columns of the file, the account's fields) → columns → SQL. A column that was once there stays: a renamed field keeps
its column, a deleted one leaves it empty, one whose type changes gets another. New columns go to the end, so that CREATE OR REPLACE VIEW always
does, and other people's views and grants survive.

The values of a record lie side by side in the table's primary key (owner, field, position). A few neighbouring fields are read by one LATERAL
aggregate each, which the planner leaves out when none of its columns is asked for (docs/benchmarks.md, "Wide views", has what else was measured).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from pipelines.bi.column_names import cut, readable, unlike

WIDEST = 1500
"""Postgres allows 1,600 columns; what comes in a later version needs room, too."""
TOGETHER, GROUPS = 10, 40
"""So many fields are read together; more of them where there would be more groups than that."""
MORE = "__more"
"""Two underscores: no name of a list or a field has them."""
TYPES = {
    **dict.fromkeys(("text", "textarea", "url", "streetaddress", "tracking_data", "select", "radiobutton", "category"), "text"),
    **dict.fromkeys(("numeric", "price", "monetary"), "numeric"),
    **dict.fromkeys(("date", "birthday"), "date"),
    **dict.fromkeys(("multiselect", "multitext", "smart_address"), "text[]"),
    "checkbox": "boolean", "date_time": "timestamp with time zone"}
"""amoCRM's type of field → the type of its column; jsonb, a list of the values, for all others."""
CELLS = {"text": "min(v.value_text) FILTER (WHERE v.field_id = {field} AND v.position = 0)",
         "numeric": "min(v.value_number) FILTER (WHERE v.field_id = {field} AND v.position = 0)",
         "date": "min(v.value_date) FILTER (WHERE v.field_id = {field} AND v.position = 0)",
         "timestamp with time zone": "min(v.value_at) FILTER (WHERE v.field_id = {field} AND v.position = 0)",
         "boolean": "bool_or(v.value_boolean) FILTER (WHERE v.field_id = {field} AND v.position = 0)",
         "text[]": "array_agg(v.value_text ORDER BY v.field_id, v.position) FILTER (WHERE v.field_id = {field})",
         "jsonb": "jsonb_agg(coalesce(v.value_json, to_jsonb(v.value_text)) ORDER BY v.field_id, v.position) FILTER (WHERE v.field_id = {field})"}


@dataclass(frozen=True)
class Wide:
    """A wide view. `values`: the table of its custom field values, `owner` the record's id there; without them it has no fields."""

    name: str
    file: str = ""
    entity_type: str = ""
    values: str = ""
    owner: str = ""
    catalog_id: int | None = None


WIDE = (
    Wide("leads", "leads", "leads", "lead_custom_field_values", "lead_id"),
    Wide("contacts", "contacts", "contacts", "contact_custom_field_values", "contact_id"),
    Wide("companies", "companies", "companies", "company_custom_field_values", "company_id"),
    Wide("customers", "customers", "customers", "customer_custom_field_values", "customer_id"),
    Wide("tasks", "tasks"), Wide("calls", "calls"), Wide("unsorted", "unsorted"))
CATALOG = Wide("", "catalog", "catalogs", "catalog_element_custom_field_values", "catalog_element_id")


def catalog_view(catalog_id: int, name: str | None, taken: Iterable[str]) -> Wide:
    """The view of a list that has none yet."""
    words = readable(name)
    return replace(CATALOG, catalog_id=catalog_id, name=unlike(cut(f"catalog_{words or catalog_id}", 40), set(taken), [str(catalog_id)]))


@dataclass(frozen=True)
class Field:
    """A custom field as the account has it now."""

    id: int
    name: str | None
    type: str | None
    is_live: bool

    @property
    def data_type(self) -> str:
        return TYPES.get(self.type or "", "jsonb")


@dataclass(frozen=True)
class Column:
    """A column of a view, as bi_columns remembers it. `label`: what the field is called now, or the file's name of the column."""

    view: str
    name: str
    position: int
    data_type: str
    field_id: int | None
    label: str | None
    is_live: bool = True

    @property
    def key(self) -> tuple[object, ...]:
        """What it shows; a field whose type has changed is something else."""
        return (self.field_id, self.data_type) if self.field_id is not None else (None, self.data_type, self.label)


def columns(wide: Wide, memory: Sequence[Column], base: Sequence[tuple[str, str]], fields: Sequence[Field]) -> list[Column]:
    """The columns that the view, and the views for what it has no room for, should have, in their order."""
    wanted = [Column(wide.name, name, 0, type_, None, name) for name, type_ in base]
    wanted += [Column(wide.name, "", 0, field.data_type, field.id, field.name) for field in fields if field.is_live]
    known, labels = {each.key: each for each in memory}, {field.id: field.name for field in fields}
    alive = {each.key: each.label for each in wanted}
    found = [replace(each, is_live=each.key in alive, label=labels.get(each.field_id, each.label) if each.field_id else each.label)
             for each in memory]
    for each in wanted:
        if each.key not in known:
            found.append(_added(wide, each, found))
            known[each.key] = found[-1]
    return sorted(found, key=lambda each: (each.view, each.position))


def _added(wide: Wide, each: Column, found: Sequence[Column]) -> Column:
    """A new column, behind the others, in the last of the views."""
    view, number = wide.name, 1
    while sum(one.view == view for one in found) >= WIDEST:
        number += 1
        view = f"{wide.name}{MORE}{number - 1 if number > 2 else ''}"
    here = [one for one in found if one.view == view]
    taken = {one.name for one in here} | ({"id"} if view != wide.name else set())
    endings = [each.data_type.split()[0].rstrip("[]")]
    if each.field_id is not None:
        endings = [*([] if any(one.field_id == each.field_id for one in found) else [str(each.field_id)]), *endings,
                   f"{each.field_id}_{endings[0]}", f"{each.field_id}_{len(here)}"]
    name = unlike(each.name or readable(each.label) or f"field_{each.field_id}", taken, [*endings, str(len(here))])
    return replace(each, view=view, name=name, position=len(here) + 1)


def query(wide: Wide, schema: str, base: Composable, view: str, shown: Sequence[Column]) -> Composed:
    """The SELECT of one view, from the columns that it has."""
    fields = sorted((each for each in shown if each.field_id is not None and each.is_live), key=lambda each: each.field_id or 0)
    size = max(TOGETHER, math.ceil(len(fields) / GROUPS))
    groups = [fields[start:start + size] for start in range(0, len(fields), size)]
    place = {each.name: number for number, group in enumerate(groups) for each in group}
    cells: list[Composable] = [SQL("b.id")] if view != wide.name else []
    cells += [_cell(each, place) for each in shown]
    joins = [_lateral(wide, schema, number, group) for number, group in enumerate(groups)]
    return SQL("SELECT {} FROM ({}) b{}").format(SQL(", ").join(cells), base, SQL("").join(joins))


def _cell(each: Column, place: dict[str, int]) -> Composed:
    if each.name in place:
        return SQL("{}.{}").format(Identifier(f"x{place[each.name]}"), Identifier(each.name))
    if each.is_live:
        return SQL("b.{} AS {}").format(Identifier(each.label or each.name), Identifier(each.name))
    return SQL("NULL::{} AS {}").format(SQL(each.data_type), Identifier(each.name))


def _lateral(wide: Wide, schema: str, number: int, group: Sequence[Column]) -> Composed:
    cells = [SQL("{} AS {}").format(SQL(CELLS[each.data_type]).format(field=Literal(each.field_id)), Identifier(each.name)) for each in group]
    return SQL(" LEFT JOIN LATERAL (SELECT {} FROM {} v WHERE v.{} = b.id AND v.field_id BETWEEN {} AND {}) {} ON true").format(
        SQL(", ").join(cells), Identifier(schema, wide.values), Identifier(wide.owner), Literal(group[0].field_id), Literal(group[-1].field_id),
        Identifier(f"x{number}"))


def comment(each: Column, from_file: dict[str, str], field: Field | None) -> str:
    if each.field_id is None:
        return from_file.get(each.label or "", "") if each.is_live else "Not shown any more"
    told = f"{each.label or 'field'} (amoCRM field {each.field_id}"
    if each.is_live or field is None:
        return f"{told}{f', {field.type}' if field else ''})"
    return f"{told}; {f'has the type {field.type} now: see the other column of this field' if field.is_live else 'deleted in amoCRM'})"
