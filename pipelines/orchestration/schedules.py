"""Schedules: each tier of lists by its own cron expression, off until a setting turns them on. No sync logic
here: that is `sync/account_sync.py`.

Dagster builds schedules from static and time partitions only (build_schedule_from_partitioned_job). Accounts
are dynamic partitions, so each tick names its partitions itself: every account of the database that is
neither paused nor, within the hour, refused by amoCRM. A new account is added as a partition by the tick.
Dagster's queue limits the runs in all and to one per value of ACCOUNT_TAG (DAGSTER_YAML in
`orchestration/instance.py`). A tick skips an account whose previous run has not ended. If another process
holds the account's sync lock, the run ends without a failure.

A schedule has one job, so a tier of which many accounts share a run has two schedules: one for the accounts
that have a run of their own, one for the batches (`batches/plan.py` decides which).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from pipelines.accounts.registry import due
from pipelines.amocrm.client import RetryPolicy
from pipelines.amocrm.errors import AmoError
from pipelines.bi.builder import view_tables
from pipelines.config.settings import Settings
from pipelines.entities.registry import names_in_tier
from pipelines.errors import SyncRefusedError
from pipelines.installation import Connection, Installation, open_installation
from pipelines.orchestration.batches.job import batch_job
from pipelines.orchestration.batches.plan import Plan, batch_config, plan
from pipelines.orchestration.checks import CHECKS
from pipelines.orchestration.dead_runs import fail_dead_runs
from pipelines.orchestration.partitions import (
    ACCOUNT_PARTITIONS,
    ACCOUNT_TAG,
    BATCH_TAG,
    SETTINGS,
    SHARD_TAGS,
    list_key,
    named,
    view_key,
)
from pipelines.webhooks.subscription import WebhookHealth, check_webhook, subscribed_accounts

TICK_RETRIES = RetryPolicy(max_tries=2, max_throttled=2, read_timeout=15.0, payment_patience=0.0)
"""Retries of a request made by a tick, which Dagster gives a minute."""


@dataclass(frozen=True)
class Tier:
    """A group of entities that one schedule syncs. `full`: every list is swept."""

    name: str
    cron: str
    description: str
    entities: list[str]
    full: bool = False


def tiers(settings: Settings | None) -> list[Tier]:
    crons = settings or Settings.model_construct()
    moving, directories = names_in_tier("moving"), names_in_tier("directories")
    return [
        Tier("moving", crons.amocrm_schedule_moving, "Changes in the lists that change all the time", moving),
        Tier("directories", crons.amocrm_schedule_directories, "The lists that are read whole", directories),
        Tier("sweep", crons.amocrm_schedule_sweep, "Every list whole: finds what no increment can see",
             moving + directories, True)]


def sync_job(tier: Tier) -> dg.UnresolvedAssetJobDefinition:
    """Returns the job that syncs a tier. Checks are left out: Dagster skips them in a run in which one of
    their assets was skipped, and an account never offers every list."""
    selection = dg.AssetSelection.assets(*map(list_key, tier.entities),
                                         *map(view_key, view_tables())).without_checks()
    return dg.define_asset_job(named(f"sync_{tier.name}"), selection, description=tier.description,
                               tags=SHARD_TAGS,
                               config={"ops": {"sync_account": {"config": {"full": tier.full}}}})


COMMAND_JOB = named("sync")


def command_line_job(keys: Sequence[dg.AssetKey] | None = None) -> dg.UnresolvedAssetJobDefinition:
    """Returns the job of the runs that the command line makes; `keys`: the assets of one of them (None:
    all)."""
    selection = dg.AssetSelection.all() if keys is None else dg.AssetSelection.assets(*keys)
    return dg.define_asset_job(COMMAND_JOB, selection.without_checks(), tags=SHARD_TAGS,
                               description="Everything, as `amocrm-mirror sync` reads it")


def default_status(settings: Settings | None) -> dg.DefaultScheduleStatus:
    return (dg.DefaultScheduleStatus.RUNNING if settings and settings.amocrm_schedules
            else dg.DefaultScheduleStatus.STOPPED)


def sync_schedule(tier: Tier, job: dg.UnresolvedAssetJobDefinition,
                  status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """Returns the schedule of the accounts that have a run of their own."""
    @dg.schedule(job=job, cron_schedule=tier.cron, name=named(f"{tier.name}_schedule"), default_status=status,
                 description=f"{tier.description}, an account in a run of its own")
    def tick(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        mirror = open_installation()
        fail_dead_runs(context.instance, mirror.connect_autocommit)
        planned = plan(context.instance, mirror, tier.name, tier.entities, tier.full)
        yield from (dg.RunRequest(run_key=name, partition_key=name, tags={ACCOUNT_TAG: name})
                    for name in planned.alone)
        if not planned.alone:
            yield dg.SkipReason(_skip_reason(planned))

    return tick


def batch_schedule(tier: Tier, job: dg.JobDefinition,
                   status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """Returns the schedule of the accounts that share runs."""
    @dg.schedule(job=job, cron_schedule=tier.cron, name=named(f"{tier.name}_batch_schedule"),
                 default_status=status, description=f"{tier.description}, many accounts in a run")
    def tick(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        planned = plan(context.instance, open_installation(), tier.name, tier.entities)
        for place, names in enumerate(planned.batches):
            yield dg.RunRequest(run_key=f"batch {place}", tags={BATCH_TAG: tier.name},
                                run_config=batch_config(tier.name, names))
        if not planned.batches:
            yield dg.SkipReason(f"each account has a run of its own ({tier.name}_schedule)" if planned.alone
                                else _skip_reason(planned))

    return tick


def _skip_reason(planned: Plan) -> str:
    if planned.batches:
        return f"every account is in a batch: {sum(map(len, planned.batches))} accounts"
    return "; ".join(planned.reasons) or ("there is no account yet: `amocrm-mirror accounts add`, or "
                                          "`amocrm-mirror auth`")


def checks_schedule(settings: Settings | None) -> dg.ScheduleDefinition:
    """Returns the schedule of the checks. They have a run of their own, which sends amoCRM no request: as
    part of a sync they would be missing after one that fails or never starts."""
    job = dg.define_asset_job(named("checks"), dg.AssetSelection.checks(*CHECKS), tags=SHARD_TAGS,
                              description="Every asset check, of every account")
    return dg.ScheduleDefinition(named("checks_schedule"), job=job,
                                 cron_schedule=(settings
                                                or Settings.model_construct()).amocrm_schedule_checks,
                                 default_status=default_status(settings))


def webhook_schedule(job: dg.UnresolvedAssetJobDefinition,
                     settings: Settings | None) -> dg.ScheduleDefinition:
    """Returns the schedule that checks each account's webhook with one request to amoCRM, and starts a sync
    of the moving lists (`job`) if deliveries were missed. That sync covers the gap: it reads what changed
    since each list's watermark, which is no later than the last successful delivery."""
    @dg.schedule(job=job, cron_schedule=(settings or Settings.model_construct()).amocrm_schedule_webhooks,
                 name=named("webhooks_schedule"), default_status=default_status(settings),
                 description="Checks whether amoCRM has switched the webhook off, and switches it on again")
    def tick(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        mirror = open_installation()
        with mirror.connect_autocommit() as connection:
            resting = {each.name for each, why_not
                       in due(connection, mirror.account, bool(mirror.configured_tokens)) if why_not}
            tended = {account: _check_webhook(mirror.for_account(account), connection)
                      for account in subscribed_accounts(connection) if account not in resting}
        known = context.instance.get_dynamic_partitions(str(ACCOUNT_PARTITIONS.name))
        gaps = [account for account, each in tended.items() if each.gap and account in known]
        said = "; ".join(f"{account}: {each.message}"
                         for account, each in tended.items()) or "no account has a webhook"
        context.log.info(said)
        return [dg.RunRequest(run_key=account, partition_key=account, tags={ACCOUNT_TAG: account})
                for account in gaps] or dg.SkipReason(said)

    return tick


def _check_webhook(mirror: Installation, connection: Connection) -> WebhookHealth:
    """Checks one account's webhook. Errors become a result, so that one account does not stop the others."""
    try:
        return check_webhook(mirror.target(TICK_RETRIES), connection)
    except (AmoError, SyncRefusedError) as reason:
        return WebhookHealth(f"amoCRM could not be asked: {reason}")


TIERS = tiers(SETTINGS)
SYNC_JOBS = [sync_job(tier) for tier in TIERS]
BATCHED_TIERS = [tier for tier in TIERS if not tier.full]
BATCH_JOBS = [batch_job(tier.name, tier.description, tier.entities) for tier in BATCHED_TIERS]
SCHEDULES = [
    *(sync_schedule(tier, job, default_status(SETTINGS)) for tier, job in zip(TIERS, SYNC_JOBS, strict=True)),
    *(batch_schedule(tier, job, default_status(SETTINGS))
      for tier, job in zip(BATCHED_TIERS, BATCH_JOBS, strict=True)),
    webhook_schedule(SYNC_JOBS[0], SETTINGS), checks_schedule(SETTINGS)]
