"""Dictionary → the sources of dbt: an account's tables and its views for people, with descriptions, types,
data tests, freshness, and the keys of the mirror's assets in Dagster. Pure.

Syntax of dbt 1.10.8 and later: `config`, `arguments`, `loaded_at_query`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.bi.builder import CATALOG_VIEWS, view_entities, view_group, views_of_mirror_state
from pipelines.bi.state import OWN_MARK
from pipelines.bi.wide import WIDE_VIEWS
from pipelines.dictionary.from_models import base_dictionary
from pipelines.dictionary.model import TABLE, Column, Relation
from pipelines.dictionary.origins import entities_by_table
from pipelines.schema.names import bi_schema
from pipelines.schema.texts import say, speaking

Yaml = dict[str, Any]
JINJA = re.compile(r"\{[{%#]")
PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
KEYED_VIEWS = {*(view.name for view in WIDE_VIEWS), CATALOG_VIEWS}
"""Views with one row per record, whose first column is the record's id."""
REFERENCE_TAG = "amocrm_references"
"""Tag of the tests of references: they read two tables whole, and only warn."""
TABLES, VIEWS = ("Tables of the amoCRM account {}, as amocrm-mirror keeps them",
                 "Views for people over the amoCRM account {}: one row per record, and reports")


@dataclass(frozen=True)
class Account:
    """What an account has: the views of its BI schema, the lists that it does not offer, and its language."""

    schema: str
    views: tuple[Relation, ...] = ()
    absent: frozenset[str] = frozenset()
    """Lists that were skipped and never read: they have no freshness."""
    language: str = "en"
    fresh_hours: float = 26
    """Age at which a source is stale; it warns at half of it."""

    @property
    def own_views(self) -> tuple[Relation, ...]:
        """The views that the mirror made. What others put there, dbt's own models included, is left out."""
        return tuple(view for view in self.views if OWN_MARK in view.comment)

    @property
    def has_freshness(self) -> bool:
        return bool(views_of_mirror_state() & {view.name for view in self.own_views})


@dataclass(frozen=True)
class AssetKeys:
    """Prefixes of the keys of the mirror's assets in Dagster. With `are_shared` a child table and the view of
    a list have the key of the asset that fills them, too; dagster-dbt refuses equal keys unless it is set to
    take them."""

    lists: Sequence[str] = ("amocrm",)
    views: Sequence[str] = ("amocrm_bi",)
    are_shared: bool = False

    def of_table(self, table: str) -> list[str] | None:
        entity, place = entities_by_table().get(table, (None, ""))
        return [*self.lists, entity.name] if entity and (self.are_shared or not place) else None

    def of_view(self, view: str) -> list[str] | None:
        group = view_group(view)
        return [*self.views, group] if self.are_shared or group == view else None


@dataclass(frozen=True)
class _Writer:
    """Turns relations into tables of dbt's sources."""

    account: Account
    keys: AssetKeys
    tables: frozenset[str] = field(default_factory=frozenset)

    def tables_of(self, relations: Sequence[Relation]) -> list[Yaml]:
        return [self._table(relation) for relation in relations]

    def _table(self, relation: Relation) -> Yaml:
        is_view = relation.group == "bi"
        key = (self.keys.of_view if is_view else self.keys.of_table)(relation.name)
        config: Yaml = {"meta": {"dagster": {"asset_key": key}}} if key else {}
        query = self._view_age(relation.name) if is_view else self._table_age(relation.name)
        if query and self.account.has_freshness:
            config |= {"freshness": _freshness(self.account.fresh_hours), "loaded_at_query": query}
        return {"name": relation.name, "description": plain(relation.comment.replace(f" ({OWN_MARK})", "")),
                **({"config": config} if config else {}),
                "columns": [self._column(relation, place, column)
                            for place, column in enumerate(relation.columns)]}

    def _column(self, relation: Relation, place: int, column: Column) -> Yaml:
        tests = [*self._key_tests(relation, place, column), *self._reference_tests(relation, column)]
        return {"name": column.name, "description": plain(column.comment), "data_type": column.type,
                **({} if PLAIN_NAME.fullmatch(column.name) else {"quote": True}),
                **({"data_tests": tests} if tests else {})}

    def _key_tests(self, relation: Relation, place: int, column: Column) -> Iterator[str]:
        """Of a table's key in one column, and of the id of a view with one row per record: there a join that
        doubles rows would show."""
        keys = [each.name for each in relation.columns if each.is_key]
        if keys == [column.name] or (relation.group == "bi" and not place
                                     and view_group(relation.name) in KEYED_VIEWS):
            yield from ("unique", "not_null")

    def _reference_tests(self, relation: Relation, column: Column) -> Iterator[Yaml]:
        """Of references that Postgres does not enforce. They warn: lists are paged independently, and users
        disappear."""
        if relation.kind != TABLE or len(column.refers) != 1 or column.refers[0].is_enforced:
            return
        target = column.refers[0]
        if target.table not in self.tables:
            return
        only = [f'"{column.name}" <> 0'] if column.type == "bigint" else []
        only += ["_deleted_at IS NULL"] if "_deleted_at" in {each.name for each in relation.columns} else []
        yield {"relationships": {
            "arguments": {"to": f"source('{self.account.schema}', '{target.table}')", "field": target.column},
            "config": {"severity": "warn", "tags": [REFERENCE_TAG],
                       **({"where": " AND ".join(only)} if only else {})}}}

    def _table_age(self, table: str) -> str:
        entity, _ = entities_by_table().get(table, (None, ""))
        if entity is None or entity.name in self.account.absent:
            return ""
        return f"SELECT complete_up_to FROM {self._freshness_view} WHERE list = '{entity.name}'"

    def _view_age(self, view: str) -> str:
        """The oldest of the lists that the view shows; none while one of them was never read."""
        group = view_group(view)
        shown = view_entities().get(group, set()) - self.account.absent
        if not shown or group in views_of_mirror_state():
            return ""
        return ("SELECT CASE WHEN bool_and(is_there OR state = 'skipped') THEN min(complete_up_to) END "
                f"FROM {self._freshness_view} WHERE '{group}' = ANY (string_to_array(views, ', '))")

    @property
    def _freshness_view(self) -> str:
        return f'"{bi_schema(self.account.schema)}".freshness'


def sources(account: Account, keys: AssetKeys) -> list[Yaml]:
    """Two sources: the account's tables, and its views. Each is called as its schema."""
    with speaking(account.language):
        described = (say(TABLES, account.schema), say(VIEWS, account.schema))
    tables = base_dictionary(account.language).relations
    writer = _Writer(account, keys, frozenset(relation.name for relation in tables))
    made: list[Yaml] = []
    for schema, description, relations in (
            (account.schema, described[0], tables),
            (bi_schema(account.schema), described[1], account.own_views)):
        if relations:
            made.append({"name": schema, "schema": schema, "description": plain(description),
                         "tables": writer.tables_of(relations)})
    return made


def plain(text: str) -> str:
    """The text as dbt shows it: what looks like a template in it (a custom field's name, say) is not one.
    Without this a field called {{ env_var('…') }} would put that variable into dbt's pages."""
    return JINJA.sub(lambda found: "{{ '" + found[0] + "' }}", text)


def _freshness(hours: float) -> Yaml:
    return {"warn_after": _duration(hours / 2), "error_after": _duration(hours)}


def _duration(hours: float) -> Yaml:
    if hours == int(hours):
        return {"count": int(hours), "period": "hour"}
    return {"count": max(1, round(hours * 60)), "period": "minute"}

