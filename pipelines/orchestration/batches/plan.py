"""Which accounts a tick of a schedule syncs, and which of them share a run.

An account has a run of its own if it was never read completely, or if its last reading failed or did not
come to its end: then it is retried alone, and delays no other. The others share runs, `size` to each; with
few accounts each has a run of its own. Left out are the accounts that are paused, barred by amoCRM, or in a
run of the same tier that has not ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from pipelines.accounts.registry import due
from pipelines.accounts.target import Connection
from pipelines.config.settings import Settings
from pipelines.installation import Installation
from pipelines.orchestration.dead_runs import accounts_of
from pipelines.orchestration.partitions import ACCOUNT_PARTITIONS, named
from pipelines.postgres.locks import sync_lock

FEW_ACCOUNTS = 30
"""Below this number of accounts each has a run of its own: a process for each is affordable then, and a run
shows one account's story."""
BATCH_ACCOUNTS = 50
MAX_NAMES = 5
"""Accounts that a reason names; the others are counted."""
UNFINISHED_STATUSES = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED,
                       dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED,
                       dg.DagsterRunStatus.CANCELING]
READ_STANDING = """
SELECT a.name, bool_or(r.state IS NULL OR done.at IS NULL) AS is_new,
       bool_or(r.state = 'failed') AS has_failed, bool_or(r.state = 'running') AS is_open
FROM unnest(%(accounts)s::text[]) a (name) CROSS JOIN unnest(%(entities)s::text[]) e (name)
LEFT JOIN LATERAL (SELECT state FROM mirror.sync_runs r WHERE r.account = a.name AND r.entity = e.name
                   ORDER BY started_at DESC, id DESC LIMIT 1) r ON true
LEFT JOIN LATERAL (SELECT started_at AS at FROM mirror.sync_runs r
                   WHERE r.account = a.name AND r.entity = e.name
                   AND state IN ('complete', 'skipped', 'incomplete')
                   ORDER BY started_at DESC, id DESC LIMIT 1) done ON true
GROUP BY a.name ORDER BY min(done.at) NULLS FIRST, a.name"""
"""Of each account: is a list missing that was never read to its end, did the last reading of one fail, has it
not ended (it runs, or was stopped or killed)? Those that were read longest ago come first."""


@dataclass
class Plan:
    """What a tick requests. `reasons`: why the other accounts are left out."""

    alone: list[str] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def batch_size(settings: Settings, accounts: int) -> int:
    """Returns how many accounts share a run."""
    return settings.amocrm_batch_accounts or (BATCH_ACCOUNTS if accounts >= FEW_ACCOUNTS else 1)


def plan(instance: dg.DagsterInstance, mirror: Installation, tier: str, entities: Sequence[str],
         is_full: bool = False) -> Plan:
    """Returns what a tick of the tier requests. Adds the partitions of new accounts to `instance`.
    `is_full`: a sweep, in which each account has a run of its own."""
    partitions = set(instance.get_dynamic_partitions(str(ACCOUNT_PARTITIONS.name)))
    running = dict.fromkeys(_accounts_in_runs(instance, named(f"sync_{tier}")),
                            f"the {tier} run before has not ended yet") | dict.fromkeys(
        _accounts_in_runs(instance, named(f"sync_{tier}_batch")), f"in a {tier} batch that has not ended yet")
    with mirror.connect() as connection:
        reasons = _reasons(connection, mirror, partitions)
        reasons |= {name: running[name] for name in reasons if name in running and not reasons[name]}
        ready = [name for name, why_not in reasons.items() if not why_not]
        size = 1 if is_full else batch_size(mirror.settings, len(reasons))
        found = _divide(connection, ready, size, entities)
    found.reasons = list(_grouped(reasons))
    if set(ready) - partitions:
        instance.add_dynamic_partitions(str(ACCOUNT_PARTITIONS.name), sorted(set(ready) - partitions))
    return found


def _grouped(reasons: Mapping[str, str]) -> Iterable[str]:
    """Yields each reason once, with some of its accounts: a thousand may share it."""
    names: dict[str, list[str]] = {}
    for name, why_not in reasons.items():
        names.setdefault(why_not, []).append(name)
    for why_not, left_out in names.items():
        if why_not:
            more = f" and {len(left_out) - MAX_NAMES} more" if len(left_out) > MAX_NAMES else ""
            yield f"{', '.join(left_out[:MAX_NAMES])}{more}: {why_not}"


def _reasons(connection: Connection, mirror: Installation, partitions: set[str]) -> dict[str, str]:
    """Account → why it is not synced now; empty if it is due."""
    found = {each.name: why_not
             for each, why_not in due(connection, mirror.account, bool(mirror.configured_tokens))}
    if mirror.account not in found and mirror.settings.amocrm_base_url:
        found[mirror.account] = "" if mirror.account in partitions else (
            "it is no partition of `accounts` yet: run `amocrm-mirror sync` once")
    return found


def _divide(connection: Connection, ready: Sequence[str], size: int, entities: Sequence[str]) -> Plan:
    """Divides the accounts into those that have a run of their own, and batches of at most `size`."""
    if size == 1 or len(ready) < 2:
        return Plan(list(ready))
    alone, together = list[str](), list[str]()
    for name, is_new, has_failed, is_open in connection.execute(
            READ_STANDING, {"accounts": list(ready), "entities": list(entities)}).fetchall():
        if is_open and sync_lock(name).is_held(connection):
            continue  # it is being synced: nothing is missing
        (alone if is_new or has_failed or is_open else together).append(name)
    return Plan(alone, list(_chunks(together, size)))


def _chunks(names: Sequence[str], size: int) -> Iterable[list[str]]:
    """Divides the names into as few parts of at most `size` as there can be, of like length."""
    parts = -(-len(names) // size)
    return ([*names[place::parts]] for place in range(parts))


def batch_op(tier: str) -> str:
    """Returns the name of the op that syncs the tier's batches."""
    return f"sync_{tier}_accounts"


def batch_config(tier: str, accounts: Sequence[str]) -> dict[str, Any]:
    """Returns the configuration of a run that syncs these accounts."""
    return {"ops": {batch_op(tier): {"config": {"accounts": list(accounts)}}}}


def _accounts_in_runs(instance: dg.DagsterInstance, job: str) -> set[str]:
    """Returns the accounts in the job's runs that have not ended."""
    return {name for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED_STATUSES))
            for name in accounts_of(run)}
