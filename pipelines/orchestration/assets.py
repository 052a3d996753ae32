"""One Dagster asset per entity, made by a loop over the registry. A partition is an account; one run reads its assets in one
process, side by side (design.md 7). No logic here: what a sync does is sync.py's."""

import logging
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

import dagster as dg

from pipelines.bi import builder
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from pipelines.errors import Busy, Paused
from pipelines.installation import open_mirror
from pipelines.migrate import migrate
from pipelines.orchestration.dead_runs import PROCESS, prune_dagster, this_process
from pipelines.orchestration.partitions import ACCOUNT, ACCOUNTS, PREFIX, VIEWS
from pipelines.schema.tables import shape
from pipelines.sync.account_sync import Report, sync
from pipelines.sync.context import Result, Silent
from pipelines.sync.run_log import prune_memory, rows_about


class SyncOptions(dg.Config):
    """What a launchpad or a schedule may ask for."""

    full: bool = False
    allow_mass_delete: bool = False


class Syncing(Protocol):
    """What runs a sync: Dagster's is Syncer; the command line brings its own, which shows progress."""

    def sync(self, account: str, only: list[str], options: SyncOptions, log: logging.Logger) -> Report: ...

    def views(self, account: str) -> list[builder.Built]: ...


class Logged(Silent):
    """Progress into Dagster's run log."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log

    def finished(self, result: Result) -> None:
        say = self.log.error if result.state == "failed" else self.log.info
        say("%s: %s, %d records read, %d rows changed, %d requests, %.1f s%s", result.entity, result.state, result.counts.seen,
            result.counts.changed, result.requests, result.seconds, f" ({result.reason})" if result.reason else "")


class Syncer:
    """Runs a sync for a Dagster run: settings and database are looked up when it starts, not when definitions load; tables are made then."""

    def sync(self, account: str, only: list[str], options: SyncOptions, log: logging.Logger) -> Report:
        mirror = open_mirror(account)
        migrate(mirror.conninfo, mirror.schema)
        return sync(mirror.target(), only, options.full, Logged(log), options.allow_mass_delete)

    def views(self, account: str) -> list[builder.Built]:
        mirror = open_mirror(account)
        return migrate(mirror.conninfo, mirror.schema).views


def spec(entity: Entity) -> dg.AssetSpec:
    deps = [] if entity is ENTITIES[0] else [dg.AssetKey([PREFIX, ENTITIES[0].name])]
    columns = [dg.TableColumn(column.name, str(column.type).lower(), description=column.comment or "")
               for column in shape(entity.model).table.columns]
    return dg.AssetSpec([PREFIX, entity.name], group_name=entity.group, description=entity.description, deps=deps, skippable=True,
                        kinds={"postgres"}, metadata={"dagster/column_schema": dg.TableSchema(columns)})


def view_specs() -> list[dg.AssetSpec]:
    """History is made from events; whatever else a view looks at belongs to some list."""
    files, lists = builder.files(), {table: entity.name for entity in ENTITIES for table in entity.tables}
    return [dg.AssetSpec([VIEWS, name], group_name="bi", description=files[name].comment, skippable=True, kinds={"postgres"},
                         deps=sorted({dg.AssetKey([PREFIX, lists.get(table, "events")]) for table in tables}), metadata={
                             "dagster/column_schema": dg.TableSchema([dg.TableColumn(*each) for each in files[name].described])})
            for name, tables in builder.names().items()]


def view_results(built: list[builder.Built], selected: AbstractSet[dg.AssetKey],
                 everything: bool) -> Iterator[dg.MaterializeResult[Any] | dg.AssetObservation]:
    """A view that was built is materialized; of one that could not be, the reason is an observation. Those that are as they were keep silent,
    unless nothing else was asked for."""
    for name in builder.names():
        mine = [each for each in built if builder.group_of(each.view) == name]
        wrong = [each for each in mine if each.state == "failed"]
        said: dict[str, Any] = {each.view: each.reason or each.state for each in mine}
        if dg.AssetKey([VIEWS, name]) not in selected or not mine:
            continue
        if wrong:
            yield dg.AssetObservation([VIEWS, name], metadata={"state": "failed"} | said)
        elif everything or any(each.state == "built" for each in mine):
            yield dg.MaterializeResult(asset_key=[VIEWS, name], metadata={"columns": sum(each.columns for each in mine)} | said)


def metadata(result: Result, rows: Mapping[str, int]) -> dict[str, Any]:
    counts = result.counts
    facts: dict[str, Any] = {
        "state": result.state, "mode": result.mode, "rows seen": counts.seen, "rows changed": counts.changed, "inserted": counts.inserted,
        "updated": counts.updated, "tombstoned or deleted": counts.deleted, "quarantined": counts.quarantined, "requests": result.requests,
        "seconds": round(result.seconds, 3)}
    if result.entity in rows:
        facts["rows in the table, about"] = rows[result.entity]
    if result.watermark:
        facts["lag in seconds"] = max(0, int(time.time()) - result.watermark)
        facts["complete up to"] = dg.MetadataValue.timestamp(float(result.watermark))
    if result.reason:
        facts["reason"] = result.reason
    return facts


def remembered(instance: dg.DagsterInstance, account: str, log: logging.Logger) -> dict[str, int]:
    """Forgets the past, as far as the settings say; returns how many rows there are. What goes wrong here is no failure of the sync."""
    rows: dict[str, int] = {}
    try:
        mirror = open_mirror(account)
        with mirror.connect() as connection:
            rows = rows_about(connection, mirror.schema)
        prune_memory(mirror.connect, mirror.account, mirror.settings.mirror_keep_days, mirror.settings.mirror_webhook_days)
        prune_dagster(instance, mirror.settings.dagster_keep_days, mirror.settings.mirror_keep_days)
    except Exception as reason:
        log.warning("old runs are not forgotten: %s: %s", type(reason).__name__, reason)
    return rows


def _told(context: dg.AssetExecutionContext, built: list[builder.Built], everything: bool = False) -> Iterator[dg.MaterializeResult[Any]]:
    for event in view_results(built, context.selected_asset_keys, everything):
        if isinstance(event, dg.AssetObservation):
            context.log_event(event._replace(partition=context.partition_key))
        else:
            yield event


@dg.multi_asset(name="sync_account", specs=[*(spec(entity) for entity in ENTITIES), *view_specs()], can_subset=True, partitions_def=ACCOUNTS)
def sync_account(context: dg.AssetExecutionContext, config: SyncOptions, syncer: dg.ResourceParam[Syncing]) -> Iterator[dg.MaterializeResult[Any]]:
    """Brings the selected tables of one account up to date."""
    only = [entity.name for entity in ENTITIES if dg.AssetKey([PREFIX, entity.name]) in context.selected_asset_keys]
    context.instance.add_run_tags(context.run.run_id, {PROCESS: this_process()})
    if not only:
        yield from _told(context, syncer.views(context.partition_key), everything=True)
        return
    try:
        report = syncer.sync(context.partition_key, only, config, context.log)
    except (Busy, Paused) as reason:
        if ACCOUNT not in context.run.tags:
            raise
        context.log.info("nothing to do: %s", reason)
        return
    rows = remembered(context.instance, context.partition_key, context.log)
    for result in report.results:
        if result.state in ("complete", "incomplete"):
            yield dg.MaterializeResult(asset_key=[PREFIX, result.entity], metadata=metadata(result, rows))
        else:
            context.log_event(dg.AssetObservation([PREFIX, result.entity], partition=context.partition_key, metadata=metadata(result, rows)))
    yield from _told(context, report.views)
    failed = [result for result in report.results if result.state == "failed"]
    if failed:
        raise dg.Failure(f"{len(failed)} of {len(report.results)} entities failed; what the others landed is kept",
                         metadata={result.entity: result.reason for result in failed}, allow_retries=False)
