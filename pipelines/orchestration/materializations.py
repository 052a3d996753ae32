"""What a sync did → Dagster's words: which assets it materialized, and what is said of each.

A list is materialized when it was read to its end; in a batch only where rows changed, because a thousand
accounts at rest would fill Dagster's storage with events that say nothing. A view is materialized when a
table that it reads has changed, when it was built anew, when rows that are stored for it were refreshed and
differ, or when it never was in this partition: an asset downstream of it that follows its parents then runs
when, and only when, there is something new.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import dagster as dg
import psycopg

from pipelines.bi import builder
from pipelines.bi.state import ColumnInfo, view_columns
from pipelines.entities.registry import ENTITIES
from pipelines.installation import Installation
from pipelines.orchestration.partitions import list_key, view_key
from pipelines.schema.names import bi_schema
from pipelines.sync.context import EntityResult
from pipelines.sync.run_log import estimated_row_counts

READ_STATES = ("complete", "incomplete")
"""States of a list that was read."""
HISTORY_SOURCE = "events"
"""The list that the history tables are said to be made from."""


def list_facts(account: str, result: EntityResult, rows: Mapping[str, int]) -> dict[str, Any]:
    """Returns the metadata of a list. `rows`: approximate number of rows by table."""
    counts = result.counts
    facts: dict[str, Any] = {
        "dagster/table_name": f"{account}.{result.entity}",
        "state": result.state, "mode": result.mode, "rows seen": counts.seen, "rows changed": counts.changed,
        "inserted": counts.inserted, "updated": counts.updated, "tombstoned or deleted": counts.deleted,
        "quarantined": counts.quarantined, "requests": result.requests, "seconds": round(result.seconds, 3)}
    if result.entity in rows:
        facts["dagster/row_count"] = rows[result.entity]
    if result.watermark:
        facts["lag in seconds"] = max(0, int(time.time()) - result.watermark)
        facts["complete up to"] = dg.MetadataValue.timestamp(float(result.watermark))
    if result.reason:
        facts["reason"] = result.reason
    return facts


def short_facts(account: str, result: EntityResult, rows: Mapping[str, int]) -> dict[str, Any]:
    """Returns what of `list_facts` is worth its place in Dagster's storage at every tick of every account."""
    facts = list_facts(account, result, rows)
    return {name: facts[name] for name in ("dagster/table_name", "dagster/row_count", "rows changed",
                                             "complete up to", "reason") if name in facts}


@cache
def lists_by_view() -> dict[str, frozenset[str]]:
    """View → the lists from whose tables it reads."""
    lists = {table: entity.name for entity in ENTITIES for table in entity.tables}
    return {name: frozenset(lists.get(table, HISTORY_SOURCE) for table in tables)
            for name, tables in builder.view_tables().items()}


def due_views(results: Iterable[EntityResult], built: Sequence[builder.ViewResult],
              unseen: Iterable[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the views to be materialized, with their metadata: those over lists whose rows changed, those
    that were built, those whose stored rows differ since a refresh (it may come many syncs after the change),
    and those in `unseen`. A view that could not be built is not among them."""
    changed, unseen = {each.entity for each in results if each.counts.changed}, set(unseen)
    for name, lists in lists_by_view().items():
        group = view_group_results(name, built)
        if any(each.state == "failed" for each in group):
            continue
        causes = sorted(changed & lists)
        rebuilt = [each.view for each in group if each.state == "built"]
        facts: dict[str, Any] = {"changed lists": ", ".join(causes)} if causes else {}
        if any(each.has_news for each in group):
            facts["refreshed"] = True
        if rebuilt:
            facts |= {"built": ", ".join(rebuilt), "columns": sum(each.columns for each in group)}
        if facts or (name in unseen and group):
            yield name, facts


def chosen_views(built: Sequence[builder.ViewResult]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields all views that stand, for a run in which a person asked for views alone."""
    for name in lists_by_view():
        group = view_group_results(name, built)
        if group and not any(each.state == "failed" for each in group):
            yield name, {"columns": sum(each.columns for each in group)} | {each.view: each.state
                                                                          for each in group}


def view_group_results(name: str, built: Iterable[builder.ViewResult]) -> list[builder.ViewResult]:
    return [each for each in built if builder.view_group(each.view) == name]


def failed_views(built: Sequence[builder.ViewResult]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the views that could not be built, with the reason."""
    for name in lists_by_view():
        group = view_group_results(name, built)
        if any(each.state == "failed" for each in group):
            yield name, {"state": "failed"} | {each.view: each.reason or each.state for each in group}


def with_columns(account: str, views: Iterable[tuple[str, dict[str, Any]]],
                 columns: Mapping[str, Sequence[ColumnInfo]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Adds each view's name in Postgres and its columns with their types, which only Postgres knows; not to
    the lists' views (catalogs), which are several."""
    for name, facts in views:
        if name in columns:
            facts = facts | {"dagster/table_name": f"{bi_schema(account)}.{name}",
                             "dagster/column_schema": dg.TableSchema(
                                 [dg.TableColumn(*each) for each in columns[name]])}
        yield name, facts


def unseen_views(instance: dg.DagsterInstance, account: str) -> set[str]:
    """Returns the views that were never materialized for the account."""
    return {name for name in lists_by_view()
            if account not in instance.get_materialized_partitions(view_key(name))}


def table_facts(mirror: Installation,
                account: str) -> tuple[Mapping[str, int], Mapping[str, Sequence[ColumnInfo]]]:
    """Returns the approximate number of rows by table, and the columns by view. Both are missing if Postgres
    does not answer: a sync that is complete does not fail for what is said of it."""
    try:
        with mirror.connect() as connection:
            return estimated_row_counts(connection, account), view_columns(connection, account)
    except psycopg.Error:
        return {}, {}


def batch_events(account: str, results: Sequence[EntityResult], built: Sequence[builder.ViewResult],
                 rows: Mapping[str, int], columns: Mapping[str, Sequence[ColumnInfo]]
                 ) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    """Yields the events of one account in a batch: materializations of what changed, observations of what
    failed."""
    for result in results:
        if result.state in READ_STATES and result.counts.changed:
            yield dg.AssetMaterialization(list_key(result.entity), partition=account,
                                          metadata=short_facts(account, result, rows))
        elif result.state == "failed":
            yield dg.AssetObservation(list_key(result.entity), partition=account,
                                      metadata={"state": "failed"} | short_facts(account, result, rows))
    rebuilt = {name: columns[name] for name in columns
               if any(each.state == "built" for each in view_group_results(name, built))}
    for name, facts in with_columns(account, due_views(results, built), rebuilt):
        yield dg.AssetMaterialization(view_key(name), partition=account, metadata=facts)
