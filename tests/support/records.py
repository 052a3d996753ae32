"""Hypothesis strategies for records, made from the entities' declarations: a newly declared entity is
generated, and so tested, without further code."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from pipelines.entities.spec import Child, Entity, Record
from pipelines.normalize.field_values import LABEL_KEYS, PARSERS
from pipelines.normalize.normalizer import FIELD_VALUES
from pipelines.normalize.paths import put_at
from pipelines.schema.columns import INTEGER_ARRAY, LOCAL_TIME_FORMAT, TEXT_ARRAY, ColumnCodec
from pipelines.schema.tables import ApiColumn, TableSchema, table_schema_of

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
IDS = st.integers(1, 2**40)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2**53, 2**53),
                    st.floats(allow_nan=False, allow_infinity=False), TEXT)
JSON = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3),
                                                     st.dictionaries(TEXT, inner, max_size=3)), max_leaves=6)
VALUES_BY_CELL: dict[str, st.SearchStrategy[Any]] = {
    "integer_cell": st.integers(-2**63, 2**63 - 1), "text_cell": TEXT, "bool_cell": st.booleans(),
    "jsonb_cell": JSON,
    "timestamptz_cell": st.integers(-2 * 10**11, 9 * 10**12),
    "numeric_cell": st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    "date_cell": st.dates().map(str),
    "timestamp_cell": st.datetimes(min_value=datetime.datetime(1000, 1, 1)).map(
        lambda at: at.strftime(LOCAL_TIME_FORMAT))}
ARRAYS: dict[ColumnCodec, st.SearchStrategy[Any]] = {INTEGER_ARRAY: st.integers(-2**40, 2**40),
                                                     TEXT_ARRAY: TEXT}
FIELD_TYPES = st.one_of(st.sampled_from([*PARSERS, "legal_entity", "items", "linked_entity", "chained_list",
                                         "file", "unheard_of"]), st.none())
ANY_FIELD_VALUES = st.one_of(TEXT, st.integers(-2**40, 2**40), st.booleans(), st.none(), JSON,
                         st.dates().map(str),
                         st.decimals(allow_nan=False, allow_infinity=False).map(str),
                         st.integers(-10**10, 10**10).map(str), st.integers(-10**10, 10**10).map(float))
ELEMENT = st.fixed_dictionaries({}, optional={
    "value": ANY_FIELD_VALUES, "enum_id": st.one_of(IDS, st.none(), TEXT, IDS.map(str)),
    "enum_code": st.one_of(TEXT, st.none()), "enum": TEXT, "odd": JSON,
    "catalog_id": IDS, "catalog_element_id": IDS})
FIELD_IDS = st.one_of(st.integers(1, 6), st.integers(7, 9).map(str), st.integers(10, 11).map(float))
FIELD = st.fixed_dictionaries({"field_id": FIELD_IDS, "field_type": FIELD_TYPES,
                               "values": st.one_of(st.lists(ELEMENT, max_size=3), st.none())},
                              optional={"field_name": TEXT, "field_code": st.one_of(TEXT, st.none()),
                                        "is_computed": st.booleans(), "odd": JSON})


def with_one_label(entries: list[Record]) -> list[Record]:
    """Gives the entries of one field the name, code and type of the first of them: within an answer a field
    has one of each."""
    labels: dict[int, Record] = {}
    return [{name: value for name, value in entry.items() if name not in LABEL_KEYS} | labels.setdefault(
        int(float(entry["field_id"])), {name: entry[name] for name in LABEL_KEYS if name in entry})
        for entry in entries]


def valid_value(column: ApiColumn) -> st.SearchStrategy[Any]:
    """A value of the column's type."""
    if column.codec in ARRAYS:
        return st.lists(ARRAYS[column.codec], max_size=3)
    return VALUES_BY_CELL[column.codec.encode.__name__]


WHOLE_NUMBERS = ("integer_cell", "timestamptz_cell")


def in_other_clothes(column: ApiColumn) -> st.SearchStrategy[Any]:
    """A value of the column's type in another JSON type: a number as a text, a whole number with a point; a
    text as a number."""
    kind = column.codec.encode.__name__
    if kind in WHOLE_NUMBERS:
        return st.one_of(valid_value(column).map(str), st.integers(-2**53, 2**53).map(float),
                         st.integers(0, 2**31).map(lambda number: f"{number}.0"))
    if kind == "numeric_cell":
        return st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str)
    return st.integers(-2**63, 2**63 - 1) if kind == "text_cell" else valid_value(column)


def any_value(column: ApiColumn) -> st.SearchStrategy[Any]:
    """A value of the column's type, mostly; sometimes one that the API should never send."""
    return st.one_of(
        valid_value(column), valid_value(column), in_other_clothes(column), st.none(), st.just([]),
        st.just({}), JSON)


def key_in_other_clothes(column: ApiColumn) -> st.SearchStrategy[Any]:
    numbers = st.integers(-2**63, 2**63 - 1)
    kind = column.codec.encode.__name__
    return {"integer_cell": numbers.map(str), "text_cell": numbers}.get(kind, valid_value(column))


def objects(of: TableSchema, skip: set[str], key: set[str]) -> st.SearchStrategy[Record]:
    """JSON objects for a table: without the columns of `skip`, always with valid values for those of
    `key`."""
    columns = [column for column in of.columns if column.name not in skip and not column.is_derived]

    def build(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Record:
        record: Record = {}
        for column in columns:
            if column.name in key:
                put_at(record, column.path, draw(valid_value(column) | key_in_other_clothes(column)))
            elif draw(st.integers(0, 5)):
                put_at(record, column.path, draw(any_value(column)))
        for name in {column.path[0] for column in columns if len(column.path) > 1}:
            if not draw(st.integers(0, 9)) and not any(column.path[0] == name for column in columns
                                                       if column.name in key):
                record[name] = draw(st.sampled_from([None, [], {}, "odd"]))
        record |= draw(st.dictionaries(TEXT.map(lambda name: f"x_{name}"), JSON, max_size=2))
        return record

    return st.composite(lambda draw: build(draw))()


def elements(child: Child) -> st.SearchStrategy[Any]:
    """Lists for a child table, mostly valid."""
    of = table_schema_of(child.model)
    valid = objects(of, set(of.owner_key), set(of.key) - set(of.owner_key))
    if child.embedded_entity:
        attributes = [table_schema_of(child.embedded_entity.model).column(name)
                      for name in child.embedded_entity.attributes if name not in of.key]
        embedded = st.fixed_dictionaries(
            {}, optional={column.name: st.one_of(valid_value(column), in_other_clothes(column))
                          for column in attributes if column.name != "id"})
        valid = st.tuples(valid, embedded).map(lambda pair: pair[1] | pair[0])
    return st.one_of(st.lists(valid, max_size=3), st.none(), st.lists(JSON, max_size=1))


def options(child: Child) -> st.SearchStrategy[Any]:
    """Values of an attribute that holds elements of a child: lists, objects in the place of lists, and what
    is neither."""
    of = table_schema_of(child.model)  # is_nested says which attribute held the element: no attribute
    valid = st.lists(objects(of, {*of.owner_key, "is_nested"}, set(of.key) - set(of.owner_key)), max_size=3)
    return st.one_of(valid, st.lists(JSON, max_size=3), st.dictionaries(TEXT, JSON, max_size=3), SCALARS)


def records(entity: Entity, fixed: Record) -> st.SearchStrategy[Record]:
    """Complete records of an entity, with children, values, embedded entities and undocumented attributes."""
    of = table_schema_of(entity.model)
    of_key = set(of.key) - set(fixed)

    def build(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Record:
        record: Record = draw(objects(of, set(fixed) | set(entity.derived), of_key))
        for child in entity.children:
            if child.path and draw(st.integers(0, 3)) and (
                    len(child.path) == 1 or isinstance(record.get(child.path[0], {}), dict)):
                put_at(record, child.path, draw(elements(child)))
            for name in child.consumes if child.read else ():
                if draw(st.integers(0, 3)):
                    record[name] = draw(options(child))
        for feed in entity.embedded_entities:
            attributes = [table_schema_of(feed.model).column(name) for name in feed.attributes]
            if draw(st.integers(0, 3)) and isinstance(record.get(feed.path[0], {}), dict):
                put_at(record, feed.path, [draw(st.fixed_dictionaries(
                    {column.name: st.one_of(valid_value(column), in_other_clothes(column))
                     for column in attributes}))])
        if entity.field_values and draw(st.integers(0, 3)):
            record[FIELD_VALUES] = draw(st.one_of(st.none(), st.lists(FIELD, max_size=4).map(with_one_label)))
        return record

    return st.composite(lambda draw: build(draw))()
