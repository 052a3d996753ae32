"""Verification: compares the account with the mirror. Every list is read whole and compared; what differs is
compared a second time before it counts.

Between the two passes an ordinary sync runs, if anything differed; what it fixes was only a newer change.
Differences left after the second pass are real, and increments do not see them; `repair` fixes them. The
result holds for the time between the first and the last request.
"""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from psycopg.types.json import Jsonb

from pipelines.accounts.target import Target
from pipelines.amocrm.client import CountingClient
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from pipelines.sync.account_sync import SyncRun, phases, select_entities
from pipelines.sync.context import EntityResult, NoProgress, Progress, SyncContext
from pipelines.sync.entity_sync import EntitySync
from pipelines.sync.exclusive import exclusive_sync
from pipelines.sync.hint_sync import HintSync
from pipelines.sync.preflight import preflight
from pipelines.sync.run_log import RunLog
from pipelines.sync.runtime import tuned_memory
from pipelines.verify.comparison import Comparison, ComparisonResult, Differences
from pipelines.verify.difference_details import Details

MAX_EXAMPLES = 20
"""Differences per entity stored as examples in mirror.verifications."""


@dataclass
class EntityVerification:
    """Result of one entity. `state` is equal, different, repaired, incomplete, skipped or failed; times are
    unix seconds."""

    entity: str
    state: str = "equal"
    reason: str = ""
    compared: int = 0
    """Records compared in the first pass."""
    differences: dict[str, Differences] = field(default_factory=dict)
    details: dict[str, Details] = field(default_factory=dict, repr=False)
    """What differs in some of the stale rows, by the path of their list. Personal data: never stored."""
    fixed_by_sync: int = 0
    """Differences of the first pass that the ordinary sync fixed."""
    repaired: int = 0
    """Differences that `repair` fixed."""
    requests: int = 0
    began: float = field(default_factory=time.time)
    ended: float = 0.0

    def count(self, kind: str) -> int:
        """Number of differences of a kind: missing, stale or extra."""
        return ComparisonResult(0, self.differences).count(kind)

    @property
    def difference_count(self) -> int:
        """Number of differences."""
        return sum(map(len, self.differences.values()))

    def described_examples(self, with_values: bool) -> list[str]:
        """Returns the examples with the columns that differ: `leads/123: stale: name, price`; with the values
        here and in amoCRM if `with_values`."""
        lines = []
        for path, keys in self.differences.items():
            for key, kind in keys.items():
                columns = self.details.get(path, {}).get(key, [])
                what = ("; ".join(each.with_values() for each in columns) if with_values
                        else ", ".join(each.column for each in columns))
                lines.append(f"{path}/{key[-1]}: {kind}" + (f": {what}" if what else ""))
        return lines[:MAX_EXAMPLES]

    @property
    def examples(self) -> list[str]:
        """The first MAX_EXAMPLES differences, e.g. "leads/123: stale"."""
        return [f"{path}/{key[-1]}: {kind}"
                for path, keys in self.differences.items() for key, kind in keys.items()][:MAX_EXAMPLES]


@dataclass
class Verification:
    """Result of a verification; `seconds` of wall time."""

    run_id: str
    outcomes: list[EntityVerification]
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0: equal or repaired; 1: an entity failed; 3: an entity differs or could not be compared."""
        states = {outcome.state for outcome in self.outcomes}
        return 1 if "failed" in states else 3 if states & {"different", "incomplete"} else 0


def verify(target: Target, only: Sequence[str] = (), repair: bool = False,
           progress: Progress | None = None) -> Verification:
    """Compares the account with the mirror, repairs on request, and stores the results. Raises SyncRefused
    as a sync does."""
    began, entities = time.monotonic(), select_entities(only)
    verification = VerificationRun(
        SyncRun(SyncContext(target, progress or NoProgress()), RunLog(target, str(uuid.uuid4()))), entities)
    run = verification.run
    with exclusive_sync(target.connect, target.name, run.halt) as run.context.fence, tuned_memory():
        preflight(verification.run.context, refresh=True)
        verification.first_pass()
        if verification.differing_entities():
            verification.catch_up()
        if repair and verification.differing_entities():
            verification.repair()
    verification.save()
    return Verification(verification.run.log.run_id, list(verification.outcomes.values()),
                        time.monotonic() - began)


class VerificationRun:
    """One verification in progress: a result per entity, updated by each pass."""

    def __init__(self, run: SyncRun, entities: Sequence[Entity]) -> None:
        self.run, self.entities = run, entities
        self.outcomes = {entity.name: EntityVerification(entity.name) for entity in entities}

    def differing_entities(self) -> list[Entity]:
        """The entities that differ so far."""
        return [entity for entity in self.entities if self.outcomes[entity.name].difference_count]

    def first_pass(self) -> None:
        """Compares every entity."""
        self._run_full(self.entities, lambda entity: self._compare_entity(entity, None))

    def _run_full(self, entities: Sequence[Entity], work: Callable[[Entity], EntityResult]) -> None:
        """Runs `work` on the entities as in a full sync, phase by phase, in parallel within a phase."""
        self.run.context.full = True
        for phase in phases(entities):
            self.run.run_jobs([partial(work, entity) for entity in phase])
        self.run.context.full = False

    def compare_again(self) -> dict[str, int]:
        """Compares again what differed; returns the number of differences that are gone, by entity."""
        before = {entity.name: self.outcomes[entity.name].difference_count
                  for entity in self.differing_entities()}
        self._run_full(self.differing_entities(),
                       lambda entity: self._compare_entity(entity, self.outcomes[entity.name].differences))
        return {name: count - self.outcomes[name].difference_count for name, count in before.items()}

    def catch_up(self) -> None:
        """Runs an ordinary sync, then compares again: what changed since the last sync is no difference."""
        changed = [entity for entity in ENTITIES if entity.incremental or entity in self.differing_entities()]
        self.run.run_phases(changed)
        for name, count in self.compare_again().items():
            self.outcomes[name].fixed_by_sync = count

    def _compare_entity(self, entity: Entity, suspects: Mapping[str, Differences] | None) -> EntityResult:
        """Compares one entity: completely, or the given suspects only. An error becomes the state and
        reason of its result."""
        outcome, client, result = (
            self.outcomes[entity.name], CountingClient(self.run.target.client), EntityResult(entity.name))
        self.run.context.progress.started(entity.name)
        unavailable_because = entity.unavailable_because(self.run.context.account_info)
        if unavailable_because:
            result.state, result.reason = "skipped", unavailable_because
        else:
            with self.run.errors_as_result(result), self.run.autocommit_connection() as connection:
                comparison = Comparison(self.run.context, entity, client, connection, result)
                compared = (comparison.compare_suspects(suspects) if suspects is not None
                            else comparison.compare_all())
                outcome.compared = outcome.compared or compared.records
                outcome.details = compared.details
                outcome.differences = {path: keys for path, keys in compared.differences.items() if keys}
        self._finish_entity(outcome, result, client)
        return result

    def _finish_entity(self, outcome: EntityVerification, result: EntityResult,
                       client: CountingClient) -> None:
        """Updates the entity's verification from a pass, and reports it as finished."""
        outcome.requests += client.requests
        outcome.ended = time.time()
        outcome.reason = result.reason or outcome.reason
        outcome.state = (result.state if result.state != "complete"
                         else "different" if outcome.difference_count else "equal")
        result.counts.seen, result.requests = outcome.compared, client.requests
        self.run.context.progress.finished(result)

    def repair(self) -> None:
        """Loads what differs, marks deleted what is gone, processes the hints, and compares a third time."""
        self._run_full(self.differing_entities(), self._repair_entity)
        self.run.process_hints(self.entities, [EntityResult(entity.name) for entity in self.entities])
        for name, count in self.compare_again().items():
            outcome = self.outcomes[name]
            outcome.repaired, outcome.state = count, "repaired" if outcome.state == "equal" else outcome.state

    def _repair_entity(self, entity: Entity) -> EntityResult:
        """Repairs one entity: re-reads what differs, or syncs it whole if it has no incremental reads."""
        outcome, client, result = (
            self.outcomes[entity.name], CountingClient(self.run.target.client), EntityResult(entity.name))
        with self.run.errors_as_result(result), self.run.autocommit_connection() as connection:
            if entity.incremental:
                HintSync(self.run.context, entity, client, connection, result).repair(outcome.differences)
            else:
                EntitySync(self.run.context, entity, client, connection, result).run()
        outcome.requests += client.requests
        outcome.reason = result.reason or outcome.reason
        return result

    def save(self) -> None:
        """Stores the results in mirror.verifications."""
        with self.run.target.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO mirror.verifications (run_id, account, entity, state, reason, began_at, "
                "ended_at, compared, missing, extra, stale, examples, requests) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [self._row(each) for each in self.outcomes.values()])

    def _row(self, outcome: EntityVerification) -> list[Any]:
        began, ended = (datetime.datetime.fromtimestamp(at, datetime.UTC)
                        for at in (outcome.began, outcome.ended or time.time()))
        return [self.run.log.run_id, self.run.target.name, outcome.entity, outcome.state,
                outcome.reason or None, began, ended, outcome.compared, outcome.count("missing"),
                outcome.count("extra"), outcome.count("stale"),
                Jsonb(outcome.examples) if outcome.examples else None, outcome.requests]
