"""Records as hypothesis strategies, made from the declarations: a new entity is generated, and so tested, by being declared."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from pipelines.entities.spec import Child, Entity, Record
from pipelines.normalize.field_values import PARSERS
from pipelines.normalize.normalizer import VALUES
from pipelines.normalize.paths import put
from pipelines.schema.columns import INTEGERS, LOCAL, TEXTS, Kind
from pipelines.schema.tables import Column, Shape, shape

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
IDS = st.integers(1, 2**40)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2**53, 2**53), st.floats(allow_nan=False, allow_infinity=False), TEXT)
JSON = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)), max_leaves=6)
BY_CELL: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-2**63, 2**63 - 1), "text": TEXT, "flag": st.booleans(), "document": JSON,
    "instant": st.integers(-2 * 10**11, 9 * 10**12), "number": st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    "day": st.dates().map(str), "local_time": st.datetimes(min_value=datetime.datetime(1000, 1, 1)).map(lambda at: at.strftime(LOCAL))}
ARRAYS: dict[Kind, st.SearchStrategy[Any]] = {INTEGERS: st.integers(-2**40, 2**40), TEXTS: TEXT}
FIELD_TYPES = st.one_of(st.sampled_from([*PARSERS, "legal_entity", "items", "linked_entity", "chained_list", "file", "unheard_of"]), st.none())
FIELD_VALUES = st.one_of(TEXT, st.integers(-2**40, 2**40), st.booleans(), st.none(), JSON, st.dates().map(str),
                         st.decimals(allow_nan=False, allow_infinity=False).map(str))
ELEMENT = st.fixed_dictionaries({}, optional={
    "value": FIELD_VALUES, "enum_id": st.one_of(IDS, st.none(), TEXT), "enum_code": st.one_of(TEXT, st.none()), "enum": TEXT, "odd": JSON,
    "catalog_id": IDS, "catalog_element_id": IDS})
FIELD = st.fixed_dictionaries({"field_id": st.integers(1, 6), "field_type": FIELD_TYPES, "values": st.lists(ELEMENT, max_size=3)},
                              optional={"field_name": TEXT, "field_code": st.one_of(TEXT, st.none()), "is_computed": st.booleans(), "odd": JSON})


def proper(column: Column) -> st.SearchStrategy[Any]:
    """A value of the column's type."""
    if column.kind in ARRAYS:
        return st.lists(ARRAYS[column.kind], max_size=3)
    return BY_CELL[column.kind.cell.__name__]


def value_of(column: Column) -> st.SearchStrategy[Any]:
    """A value of the column's type, mostly; sometimes what the API should never have sent."""
    return st.one_of(proper(column), proper(column), proper(column), st.none(), st.just([]), st.just({}), JSON)


def objects(of: Shape, skip: set[str], key: set[str]) -> st.SearchStrategy[Record]:
    columns = [column for column in of.columns if column.name not in skip and not column.is_derived]

    def build(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Record:
        record: Record = {}
        for column in columns:
            if column.name in key:
                put(record, column.path, draw(proper(column)))
            elif draw(st.integers(0, 5)):
                put(record, column.path, draw(value_of(column)))
        record |= draw(st.dictionaries(TEXT.map(lambda name: f"x_{name}"), JSON, max_size=2))
        return record

    return st.composite(lambda draw: build(draw))()


def elements(child: Child) -> st.SearchStrategy[Any]:
    of = shape(child.model)
    proper_ones = objects(of, set(of.owner), set(of.key) - set(of.owner))
    if child.feed:
        attributes = [shape(child.feed.model).column(name) for name in child.feed.attributes if name not in of.key]
        told = st.fixed_dictionaries({}, optional={column.name: proper(column) for column in attributes if column.name != "id"})
        proper_ones = st.tuples(proper_ones, told).map(lambda pair: pair[1] | pair[0])
    return st.one_of(st.lists(proper_ones, max_size=3), st.none(), st.lists(JSON, max_size=1))


def records(entity: Entity, fixed: Record) -> st.SearchStrategy[Record]:
    """Whole records of an entity, with children, values, feeds and attributes that nobody documented."""
    of = shape(entity.model)
    of_key = set(of.key) - set(fixed)

    def build(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Record:
        record: Record = draw(objects(of, set(fixed) | set(entity.derived), of_key))
        for child in entity.children:
            if child.path and draw(st.integers(0, 3)):
                put(record, child.path, draw(elements(child)))
        for feed in entity.feeds:
            attributes = [shape(feed.model).column(name) for name in feed.attributes]
            if draw(st.integers(0, 3)):
                put(record, feed.path, [draw(st.fixed_dictionaries({column.name: proper(column) for column in attributes}))])
        if entity.values and draw(st.integers(0, 3)):
            record[VALUES] = draw(st.one_of(st.none(), st.lists(FIELD, max_size=4)))
        return record

    return st.composite(lambda draw: build(draw))()
