"""One Dagster asset per entity, made by a loop over the registry, and one per BI view. A partition is an
account; one run reads its assets concurrently in one process (design.md 7). No sync logic here: that is
`sync/account_sync.py`."""

import logging
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

import dagster as dg

from pipelines.bi import builder
from pipelines.entities.registry import ACCOUNT_ENTITY, ENTITIES
from pipelines.entities.spec import Entity
from pipelines.errors import AccountPausedError, SyncAlreadyRunningError, describe_fault
from pipelines.installation import open_installation
from pipelines.migrate import migrate
from pipelines.orchestration.dead_runs import PROCESS_TAG, prune_dagster_runs, this_process
from pipelines.orchestration.partitions import ACCOUNT_PARTITIONS, ACCOUNT_TAG, BI_PREFIX, ENTITY_PREFIX
from pipelines.schema.tables import table_schema_of
from pipelines.sync.account_sync import Report, sync
from pipelines.sync.context import EntityResult, NoProgress
from pipelines.sync.run_log import estimated_row_counts, prune_mirror_schema


class SyncOptions(dg.Config):
    """Options of a run, set in Dagster's launchpad or by a schedule."""

    full: bool = False
    allow_mass_delete: bool = False


class SyncRunner(Protocol):
    """Runs a sync or rebuilds the BI views. Implemented by `DagsterSyncRunner` and, with progress on the
    terminal, by the command line's `CliSyncRunner` (`orchestration/launcher.py`)."""

    def sync(self, account: str, only: list[str], options: SyncOptions, log: logging.Logger) -> Report: ...

    def rebuild_views(self, account: str) -> list[builder.ViewResult]: ...


class DagsterLogProgress(NoProgress):
    """Writes progress to Dagster's run log."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log

    def reached(self, message: str) -> None:
        self.log.info("%s", message)

    def finished(self, result: EntityResult) -> None:
        say = self.log.error if result.state == "failed" else self.log.info
        say("%s: %s, %d records read, %d rows changed, %d requests, %.1f s%s", result.entity, result.state,
            result.counts.seen, result.counts.changed, result.requests, result.seconds,
            f" ({result.reason})" if result.reason else "")


class DagsterSyncRunner:
    """Runs a sync for a Dagster run. Settings and database are looked up, and the tables migrated, when the
    run starts, not when Dagster loads the definitions."""

    def sync(self, account: str, only: list[str], options: SyncOptions, log: logging.Logger) -> Report:
        mirror = open_installation(account)
        migrate(mirror.conninfo, mirror.schema)
        return sync(mirror.target(), only, options.full, DagsterLogProgress(log), options.allow_mass_delete)

    def rebuild_views(self, account: str) -> list[builder.ViewResult]:
        mirror = open_installation(account)
        return migrate(mirror.conninfo, mirror.schema).views


def asset_spec(entity: Entity) -> dg.AssetSpec:
    deps = [] if entity.is_account else [dg.AssetKey([ENTITY_PREFIX, ACCOUNT_ENTITY.name])]
    columns = [dg.TableColumn(column.name, str(column.type).lower(), description=column.comment or "")
               for column in table_schema_of(entity.model).table.columns]
    return dg.AssetSpec([ENTITY_PREFIX, entity.name], group_name=entity.group, description=entity.description,
                        deps=deps, skippable=True, kinds={"postgres"},
                        metadata={"dagster/column_schema": dg.TableSchema(columns)})


def view_specs() -> list[dg.AssetSpec]:
    """Returns one asset per BI view. A table that no entity declares is a history table: it is made from
    events."""
    files, lists = builder.files_by_view(), {table: entity.name for entity in ENTITIES
                                             for table in entity.tables}
    return [dg.AssetSpec(
        [BI_PREFIX, name], group_name="bi", description=files[name].comment, skippable=True,
        kinds={"postgres"},
        deps=sorted({dg.AssetKey([ENTITY_PREFIX, lists.get(table, "events")]) for table in tables}),
        metadata={"dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(*each) for each in files[name].column_schema])})
        for name, tables in builder.view_tables().items()]


def view_results(built: list[builder.ViewResult], selected: AbstractSet[dg.AssetKey],
                 everything: bool) -> Iterator[dg.MaterializeResult[Any] | dg.AssetObservation]:
    """Yields a materialization for each rebuilt view, and an observation with the reason for each that
    failed. Unchanged views are reported only if `everything`: the run selected nothing but views."""
    for name in builder.view_tables():
        group = [each for each in built if builder.view_group(each.view) == name]
        failed = [each for each in group if each.state == "failed"]
        details: dict[str, Any] = {each.view: each.reason or each.state for each in group}
        if dg.AssetKey([BI_PREFIX, name]) not in selected or not group:
            continue
        if failed:
            yield dg.AssetObservation([BI_PREFIX, name], metadata={"state": "failed"} | details)
        elif everything or any(each.state == "built" for each in group):
            yield dg.MaterializeResult(asset_key=[BI_PREFIX, name],
                                       metadata={"columns": sum(each.columns for each in group)} | details)


def result_metadata(result: EntityResult, rows: Mapping[str, int]) -> dict[str, Any]:
    counts = result.counts
    facts: dict[str, Any] = {
        "state": result.state, "mode": result.mode, "rows seen": counts.seen, "rows changed": counts.changed,
        "inserted": counts.inserted, "updated": counts.updated, "tombstoned or deleted": counts.deleted,
        "quarantined": counts.quarantined, "requests": result.requests, "seconds": round(result.seconds, 3)}
    if result.entity in rows:
        facts["rows in the table, about"] = rows[result.entity]
    if result.watermark:
        facts["lag in seconds"] = max(0, int(time.time()) - result.watermark)
        facts["complete up to"] = dg.MetadataValue.timestamp(float(result.watermark))
    if result.reason:
        facts["reason"] = result.reason
    return facts


def apply_retention(instance: dg.DagsterInstance, account: str, log: logging.Logger) -> dict[str, int]:
    """Deletes old run records and Dagster runs, as the retention settings say. Returns the approximate number
    of rows per table. An error here is logged and does not fail the sync."""
    rows: dict[str, int] = {}
    try:
        mirror = open_installation(account)
        with mirror.connect() as connection:
            rows = estimated_row_counts(connection, mirror.schema)
        prune_mirror_schema(mirror.connect, mirror.account, mirror.settings.mirror_keep_days,
                            mirror.settings.mirror_webhook_days)
        prune_dagster_runs(instance, mirror.settings.dagster_keep_days, mirror.settings.mirror_keep_days)
    except Exception as reason:
        log.warning("old runs could not be deleted: %s", describe_fault(reason), exc_info=True)
    return rows


def view_events(context: dg.AssetExecutionContext, built: list[builder.ViewResult],
                everything: bool = False) -> Iterator[dg.MaterializeResult[Any]]:
    """Yields the materializations of the views; observations are logged, because an asset cannot yield
    them."""
    for event in view_results(built, context.selected_asset_keys, everything):
        if isinstance(event, dg.AssetObservation):
            context.log_event(event._replace(partition=context.partition_key))
        else:
            yield event


@dg.multi_asset(name="sync_account", specs=[*(asset_spec(entity) for entity in ENTITIES), *view_specs()],
                can_subset=True, partitions_def=ACCOUNT_PARTITIONS)
def sync_account(context: dg.AssetExecutionContext, config: SyncOptions,
                 syncer: dg.ResourceParam[SyncRunner]) -> Iterator[dg.MaterializeResult[Any]]:
    """Brings the selected tables of one account up to date."""
    only = [entity.name for entity in ENTITIES
            if dg.AssetKey([ENTITY_PREFIX, entity.name]) in context.selected_asset_keys]
    context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: this_process()})
    if not only:
        yield from view_events(context, syncer.rebuild_views(context.partition_key), everything=True)
        return
    try:
        report = syncer.sync(context.partition_key, only, config, context.log)
    except (SyncAlreadyRunningError, AccountPausedError) as reason:
        if ACCOUNT_TAG not in context.run.tags:
            raise
        context.log.info("nothing to do: %s", reason)
        return
    rows = apply_retention(context.instance, context.partition_key, context.log)
    for result in report.results:
        if result.state in ("complete", "incomplete"):
            yield dg.MaterializeResult(asset_key=[ENTITY_PREFIX, result.entity],
                                       metadata=result_metadata(result, rows))
        else:
            context.log_event(dg.AssetObservation([ENTITY_PREFIX, result.entity],
                                                  partition=context.partition_key,
                                                  metadata=result_metadata(result, rows)))
    yield from view_events(context, report.views)
    failed = [result for result in report.results if result.state == "failed"]
    if failed:
        raise dg.Failure(
            f"{len(failed)} of {len(report.results)} entities failed; rows of the others are kept",
            metadata={result.entity: result.reason for result in failed}, allow_retries=False)
