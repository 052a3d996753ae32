"""The job that syncs a batch of accounts: one run, in which each account stands for itself."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from pipelines.entities.registry import ACCOUNT_ENTITY
from pipelines.errors import describe_fault
from pipelines.installation import Installation, open_installation
from pipelines.orchestration.batches.plan import batch_op
from pipelines.orchestration.batches.side_by_side import Batch, BatchOutcome
from pipelines.orchestration.dead_runs import PROCESS_TAG, prune_dagster_runs, this_process
from pipelines.orchestration.materializations import batch_events, table_facts
from pipelines.orchestration.partitions import SHARD_TAGS, list_key, named

Event = dg.AssetMaterialization | dg.AssetObservation
MAX_REASONS = 5
"""Accounts whose reason the run's error message quotes; the others are in its metadata."""


class BatchOptions(dg.Config):
    """The accounts that one run syncs."""

    accounts: list[str]


def batch_job(tier: str, description: str, entities: Sequence[str]) -> dg.JobDefinition:
    """Returns the job that syncs a tier's lists of several accounts."""
    @dg.op(name=batch_op(tier), out=dg.Out(dg.Nothing), description=description)
    def sync_accounts(context: dg.OpExecutionContext, config: BatchOptions) -> Iterator[Event]:
        """Brings the tier's lists of the accounts up to date, several accounts at the same time."""
        context.instance.add_run_tags(context.run_id, {PROCESS_TAG: this_process()})
        yield from _sync(context, config.accounts, entities)

    @dg.job(name=named(f"sync_{tier}_batch"), tags=SHARD_TAGS,
            description=f"{description}, of many accounts in one run", executor_def=dg.in_process_executor)
    def job() -> None:
        sync_accounts()

    return job


def _sync(context: dg.OpExecutionContext, accounts: Sequence[str],
          entities: Sequence[str]) -> Iterator[Event]:
    """Yields the events: those that an op only logs are lost when it fails in the end."""
    mirror = open_installation()
    outcomes, began = list[BatchOutcome](), time.process_time()
    for outcome in Batch(mirror, entities, mirror.settings.amocrm_batch_at_once).sync(accounts):
        yield from _events(context, mirror, outcome)
        outcomes.append(outcome)
    yield dg.AssetObservation(
        list_key(ACCOUNT_ENTITY.name), description="Several accounts, synced in one run",
        metadata=_summary(outcomes) | {"CPU seconds": round(time.process_time() - began, 2)})
    _prune(context.instance, mirror, context.log)
    failed = {each.account: each.reason for each in outcomes if each.state == "failed"}
    if failed:
        raise dg.Failure(_failure(failed, len(outcomes)), metadata=dict(failed), allow_retries=False)


def _events(context: dg.OpExecutionContext, mirror: Installation, outcome: BatchOutcome) -> Iterator[Event]:
    """Yields what one account's sync changed. An idle account leaves no event."""
    if outcome.state in ("failed", "slow"):
        context.log.log(logging.ERROR if outcome.state == "failed" else logging.WARNING,
                        f"{outcome.account}: {outcome.state}: {outcome.reason}")
    if outcome.report is None:
        return
    has_news = outcome.changed or any(each.state == "built" for each in outcome.report.views)
    rows, columns = table_facts(mirror, outcome.account) if has_news else ({}, {})
    yield from batch_events(outcome.account, outcome.report.results, outcome.report.views, rows, columns)


def _summary(outcomes: Sequence[BatchOutcome]) -> dict[str, Any]:
    """The accounts of a batch in numbers, and a line for each that was not simply read."""
    states = Counter(each.state for each in outcomes)
    lines = [f"| {each.account} | {each.state} | {each.changed:,} | {each.seconds:.1f} | "
             f"{_cell(each.reason)} |" for each in outcomes if each.changed or each.state != "complete"]
    table = "\n".join(["| account | state | rows changed | seconds | reason |", "|---|---|---|---|---|",
                       *lines])
    return {"accounts": len(outcomes), "rows changed": sum(each.changed for each in outcomes),
            "idle": sum(each.state == "complete" and not each.changed for each in outcomes),
            "slowest, seconds": round(max((each.seconds for each in outcomes), default=0.0), 1),
            "requests": sum(result.requests for each in outcomes if each.report
                            for result in each.report.results),
            **{name: count for name, count in states.items() if name != "complete"},
            **({"not idle": dg.MetadataValue.md(table)} if lines else {})}


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:300]


def _failure(failed: Mapping[str, str], total: int) -> str:
    quoted = "; ".join(f"{account}: {reason}" for account, reason in list(failed.items())[:MAX_REASONS])
    more = f"; and {len(failed) - MAX_REASONS} more" if len(failed) > MAX_REASONS else ""
    return (f"{len(failed)} of {total} accounts failed; the others are current, and each of these is retried "
            f"in a run of its own: {quoted}{more}")


def _prune(instance: dg.DagsterInstance, mirror: Installation, log: logging.Logger) -> None:
    """Deletes old runs of Dagster. An error here is logged and fails nothing."""
    try:
        prune_dagster_runs(instance, mirror.settings.dagster_keep_days, mirror.settings.mirror_keep_days)
    except Exception as reason:
        log.warning("old runs could not be deleted: %s", describe_fault(reason), exc_info=True)
