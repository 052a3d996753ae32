"""Schedules: each tier of lists by its own cron, off until a setting says on. What a sync does is sync.py's.

Dagster builds schedules from static and time partitions only (build_schedule_from_partitioned_job); accounts are dynamic ones, so each tick
names its partitions itself: every account of the database that is neither paused nor, within the hour, refused by amoCRM. One that is new becomes a
partition there and then. The queue admits some runs at once, and one per value of ACCOUNT (launch.INSTANCE); a tick leaves an account out while its
run before has not ended, and the lock of a sync that something else started makes the run end without a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg

from pipelines.accounts.registry import due
from pipelines.amocrm.client import Patience
from pipelines.amocrm.errors import AmoError
from pipelines.bi.builder import names
from pipelines.config.settings import Settings, SettingsRefused, load_settings
from pipelines.entities.registry import names_of
from pipelines.errors import SyncRefused
from pipelines.installation import Connection, Mirror, open_mirror
from pipelines.orchestration.checks import CHECKS
from pipelines.orchestration.dead_runs import bury
from pipelines.orchestration.partitions import ACCOUNT, ACCOUNTS, PREFIX, VIEWS
from pipelines.webhooks.subscription import Tended, subscribed, tend

ONCE = Patience(tries=2, throttled=2, read=15.0)
"""A tick has a minute."""
UNFINISHED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED,
              dg.DagsterRunStatus.CANCELING]


@dataclass(frozen=True)
class Tier:
    name: str
    cron: str
    what: str
    entities: list[str]
    full: bool = False


def settings() -> Settings | None:
    """None where they cannot be used: the run or the command that needs them says why, and definitions load all the same."""
    try:
        return load_settings()
    except SettingsRefused:
        return None


def tiers(known: Settings | None) -> list[Tier]:
    crons = known or Settings.model_construct()
    moving, directories = names_of("moving"), names_of("directories")
    return [Tier("moving", crons.amocrm_schedule_moving, "What changed in the lists that move", moving),
            Tier("directories", crons.amocrm_schedule_directories, "The lists that are read whole", directories),
            Tier("sweep", crons.amocrm_schedule_sweep, "Every list whole: what no increment can see", moving + directories, True)]


def job_of(tier: Tier) -> dg.UnresolvedAssetJobDefinition:
    """Without checks: Dagster leaves them out of a run in which one of their assets was skipped, and an account never offers every list."""
    selection = dg.AssetSelection.assets(*([PREFIX, name] for name in tier.entities), *([VIEWS, name] for name in names())).without_checks()
    return dg.define_asset_job(f"sync_{tier.name}", selection, description=tier.what,
                               config={"ops": {"sync_account": {"config": {"full": tier.full}}}})


def status(known: Settings | None) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if known and known.amocrm_schedules else dg.DefaultScheduleStatus.STOPPED


def fan_out(instance: dg.DagsterInstance, mirror: Mirror, tier: Tier, job: str) -> tuple[list[dg.RunRequest], list[str]]:
    """A run for each account whose turn it is, and why it is not the others'."""
    partitions = set(instance.get_dynamic_partitions(str(ACCOUNTS.name)))
    with mirror.connect() as connection:
        turns = {each.name: why_not for each, why_not in due(connection, mirror.account, bool(mirror.configured))}
    if mirror.account not in turns and mirror.settings.amocrm_base_url:
        turns[mirror.account] = "" if mirror.account in partitions else "it is no partition of `accounts` yet: run `amocrm-mirror sync` once"
    running = {run.tags.get(ACCOUNT) for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED))}
    turns |= {name: f"the {tier.name} run before has not ended yet" for name in turns if name in running and not turns[name]}
    ready = [name for name, why_not in turns.items() if not why_not]
    if set(ready) - partitions:
        instance.add_dynamic_partitions(str(ACCOUNTS.name), sorted(set(ready) - partitions))
    return ([dg.RunRequest(run_key=name, partition_key=name, tags={ACCOUNT: name}) for name in ready],
            [f"{name}: {why_not}" for name, why_not in turns.items() if why_not])


def schedule_of(tier: Tier, job: dg.UnresolvedAssetJobDefinition, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    @dg.schedule(job=job, cron_schedule=tier.cron, name=f"{tier.name}_schedule", default_status=status, description=tier.what)
    def tick(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        bury(context.instance)
        requests, reasons = fan_out(context.instance, open_mirror(), tier, job.name)
        yield from requests
        if not requests:
            yield dg.SkipReason("; ".join(reasons) or "there is no account yet: `amocrm-mirror accounts add`, or `amocrm-mirror auth`")

    return tick


def checking(known: Settings | None) -> dg.ScheduleDefinition:
    """A run of their own, which asks amoCRM for nothing: after a sync that fails or never starts there would be no checks."""
    job = dg.define_asset_job("checks", dg.AssetSelection.checks(*CHECKS),
                              description="Every asset check, of every account")
    return dg.ScheduleDefinition("checks_schedule", job=job, cron_schedule=(known or Settings.model_construct()).amocrm_schedule_checks,
                                 default_status=status(known))


def tending(job: dg.UnresolvedAssetJobDefinition, known: Settings | None) -> dg.ScheduleDefinition:
    """A tick that asks amoCRM one thing, and starts a sync of what moves where a gap has to be covered: what happened while amoCRM told us
    nothing is what changed since that list's last good reading, which is no later than the last good delivery's."""
    @dg.schedule(job=job, cron_schedule=(known or Settings.model_construct()).amocrm_schedule_webhooks, name="webhooks_schedule",
                 default_status=status(known), description="Looks whether amoCRM has switched the webhook off, and switches it on again")
    def tick(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        mirror = open_mirror()
        with mirror.connect_autocommit() as connection:
            resting = {each.name for each, why_not in due(connection, mirror.account, bool(mirror.configured)) if why_not}
            tended = {account: _tended(mirror.of(account), connection) for account in subscribed(connection) if account not in resting}
        known = context.instance.get_dynamic_partitions(str(ACCOUNTS.name))
        gaps = [account for account, each in tended.items() if each.gap and account in known]
        said = "; ".join(f"{account}: {each.said}" for account, each in tended.items()) or "no account has a webhook"
        context.log.info(said)
        return [dg.RunRequest(run_key=account, partition_key=account, tags={ACCOUNT: account}) for account in gaps] or dg.SkipReason(said)

    return tick


def _tended(mirror: Mirror, connection: Connection) -> Tended:
    """One account that cannot be asked does not stop the others."""
    try:
        return tend(mirror.target(ONCE), connection)
    except (AmoError, SyncRefused) as reason:
        return Tended(f"amoCRM could not be asked: {reason}", works=False)


known = settings()
TIERS = tiers(known)
SYNCS = [job_of(tier) for tier in TIERS]
SCHEDULES = [*(schedule_of(tier, job, status(known)) for tier, job in zip(TIERS, SYNCS, strict=True)), tending(SYNCS[0], known), checking(known)]
