"""One Dagster asset per entity, made by a loop over the registry, and one per BI view. A partition is an
account; one run reads its assets concurrently in one process (design.md 7). No sync logic here: that is
`sync/account_sync.py`."""

import datetime
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import dagster as dg

from pipelines.bi import builder
from pipelines.bi.state import ColumnInfo
from pipelines.config.settings import Settings
from pipelines.entities.registry import ACCOUNT_ENTITY, ENTITIES
from pipelines.entities.spec import Entity
from pipelines.errors import AccountPausedError, SyncAlreadyRunningError, describe_fault
from pipelines.installation import Installation, open_installation
from pipelines.migrate import ensure_current, migrate
from pipelines.orchestration.dead_runs import PROCESS_TAG, prune_dagster_runs, this_process
from pipelines.orchestration.materializations import (
    READ_STATES,
    chosen_views,
    due_views,
    failed_views,
    list_facts,
    lists_by_view,
    table_facts,
    unseen_views,
    with_columns,
)
from pipelines.orchestration.partitions import ACCOUNT_PARTITIONS, SETTINGS, list_key, view_key
from pipelines.schema.tables import table_schema_of
from pipelines.sync.account_sync import Report, sync
from pipelines.sync.context import EntityResult, NoProgress
from pipelines.sync.run_log import prune_mirror_schema

_SETTINGS = SETTINGS or Settings.model_construct()
OWNERS = [each.strip() for each in _SETTINGS.dagster_owners.split(",") if each.strip()]
FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=datetime.timedelta(hours=_SETTINGS.mirror_fresh_hours))
"""A list that changes is materialized when it does, every list by the nightly sweep."""


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
        ensure_current(mirror.conninfo, mirror.schema)
        return sync(mirror.target(), only, options.full, DagsterLogProgress(log), options.allow_mass_delete)

    def rebuild_views(self, account: str) -> list[builder.ViewResult]:
        return current_views(open_installation(account))


def current_views(mirror: Installation) -> list[builder.ViewResult]:
    """Migrates the account, builds its views, and refreshes what they store."""
    built = {each.view: each for each in migrate(mirror.conninfo, mirror.schema).views}
    with mirror.connect_autocommit() as connection:
        refreshed = builder.refresh_views(connection, mirror.schema)
    return [built.get(each.view, each) if each.state == "unchanged" else each for each in refreshed]


def asset_spec(entity: Entity) -> dg.AssetSpec:
    columns = [dg.TableColumn(column.name, str(column.type).lower(), description=column.comment or "")
               for column in table_schema_of(entity.model).table.columns]
    return dg.AssetSpec(list_key(entity.name), group_name=entity.group, description=entity.description,
                        deps=[] if entity.is_account else [list_key(ACCOUNT_ENTITY.name)], skippable=True,
                        kinds={"amocrm", "postgres"}, owners=OWNERS, freshness_policy=FRESHNESS,
                        metadata={"dagster/column_schema": dg.TableSchema(columns)})


def view_specs() -> list[dg.AssetSpec]:
    """Returns one asset per BI view. The columns' types are in its materializations: only Postgres knows
    them."""
    files = builder.files_by_view()
    return [dg.AssetSpec(
        view_key(name), group_name="bi", description=files[name].comment, skippable=True,
        kinds={"postgres", "view"}, owners=OWNERS, deps=sorted(map(list_key, lists)),
        metadata={"dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(*each) for each in files[name].column_schema])})
        for name, lists in lists_by_view().items()]


def apply_retention(instance: dg.DagsterInstance, account: str,
                    log: logging.Logger) -> tuple[Mapping[str, int], Mapping[str, Sequence[ColumnInfo]]]:
    """Deletes old run records and Dagster runs, as the retention settings say. Returns the approximate number
    of rows by table, and the columns by view. An error here is logged and does not fail the sync."""
    facts: tuple[Mapping[str, int], Mapping[str, Sequence[ColumnInfo]]] = ({}, {})
    try:
        mirror = open_installation(account)
        facts = table_facts(mirror, account)
        prune_mirror_schema(mirror.connect, mirror.account, mirror.settings.mirror_keep_days,
                            mirror.settings.mirror_webhook_days)
        prune_dagster_runs(instance, mirror.settings.dagster_keep_days, mirror.settings.mirror_keep_days)
    except Exception as reason:
        log.warning("old runs could not be deleted: %s", describe_fault(reason), exc_info=True)
    return facts


def view_events(context: dg.AssetExecutionContext, results: Sequence[EntityResult],
                built: Sequence[builder.ViewResult],
                columns: Mapping[str, Sequence[ColumnInfo]]) -> Iterator[dg.MaterializeResult[Any]]:
    """Yields the materializations of the views that have news, and of those that the account never had. A
    view that the run did not select, and one that could not be built, has its event in the log: an asset
    cannot yield these, and what it logs reaches the storage with what it yields next."""
    account, selected = context.partition_key, context.selected_asset_keys
    for name, facts in failed_views(built):
        if view_key(name) in selected:
            context.log_event(dg.AssetObservation(view_key(name), partition=account, metadata=facts))
    views = list(with_columns(account, due_views(results, built, unseen_views(context.instance, account))
                              if results else chosen_views(built), columns))
    for name, facts in views:
        if results and view_key(name) not in selected:
            context.log_event(dg.AssetMaterialization(view_key(name), partition=account, metadata=facts))
    for name, facts in views:
        if view_key(name) in selected:
            yield dg.MaterializeResult(asset_key=view_key(name), metadata=facts)


@dg.multi_asset(name="sync_account", specs=[*(asset_spec(entity) for entity in ENTITIES), *view_specs()],
                can_subset=True, partitions_def=ACCOUNT_PARTITIONS)
def sync_account(context: dg.AssetExecutionContext, config: SyncOptions,
                 syncer: dg.ResourceParam[SyncRunner]) -> Iterator[dg.MaterializeResult[Any]]:
    """Brings the selected tables of one account up to date."""
    only = [entity.name for entity in ENTITIES if list_key(entity.name) in context.selected_asset_keys]
    account = context.partition_key
    context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: this_process()})
    if not only:
        built = syncer.rebuild_views(account)
        yield from view_events(context, [], built, table_facts(open_installation(account), account)[1])
        return
    try:
        report = syncer.sync(account, only, config, context.log)
    except (SyncAlreadyRunningError, AccountPausedError) as reason:
        context.log.warning("nothing was read: %s", reason)
        return
    rows, columns = apply_retention(context.instance, account, context.log)
    facts = {result.entity: list_facts(account, result, rows) for result in report.results}
    for result in report.results:
        if result.state not in READ_STATES:
            context.log_event(dg.AssetObservation(list_key(result.entity), partition=account,
                                                  metadata=facts[result.entity]))
    views = list(view_events(context, report.results, report.views, columns))
    for result in report.results:
        if result.state in READ_STATES:
            yield dg.MaterializeResult(asset_key=list_key(result.entity), metadata=facts[result.entity])
    yield from views
    failed = [result for result in report.results if result.state == "failed"]
    if failed:
        raise dg.Failure(
            f"{len(failed)} of {len(report.results)} entities failed; rows of the others are kept",
            metadata={result.entity: result.reason for result in failed}, allow_retries=False)
