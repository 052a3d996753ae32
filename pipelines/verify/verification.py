"""Verification: compares the account with the mirror. Every list is read whole and compared; what differs is
read and compared a second time before it counts. The history tables are compared with a history that is made
beside them. Without `repair` no row of the account is written.

A difference does not count while amoCRM itself says that the record changed after the mirror's last read
(`verify/behind.py`): the next sync brings that change. The result holds for the time between the first and
the last request.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from psycopg.sql import SQL, Identifier

from pipelines.accounts.target import Target
from pipelines.amocrm.client import CountingClient
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity, Phase
from pipelines.history.compare import HISTORY_TABLES
from pipelines.sync.account_sync import SyncRun, phases, planned_entity, select_entities
from pipelines.sync.context import EntityResult, NoProgress, Progress, SyncContext
from pipelines.sync.exclusive import exclusive_sync
from pipelines.sync.preflight import preflight
from pipelines.sync.run_log import RunLog, last_runs
from pipelines.sync.runtime import tuned_memory
from pipelines.verify.behind import RecordChanges, is_behind
from pipelines.verify.comparison import Comparison
from pipelines.verify.differences import ByList
from pipelines.verify.history import HistoryVerification
from pipelines.verify.outcomes import EntityVerification, Verification, save
from pipelines.verify.repair import repair_entity


def verify(target: Target, only: Sequence[str] = (), repair: bool = False,
           progress: Progress | None = None) -> Verification:
    """Compares the account with the mirror, repairs on request, and stores the results. Raises SyncRefused
    as a sync does."""
    began = time.monotonic()
    history = [name for name in HISTORY_TABLES if not only or name in only]
    names = [name for name in only if name not in HISTORY_TABLES]
    entities = select_entities(names) if names or not only else []
    run = SyncRun(SyncContext(target, progress or NoProgress()), RunLog(target, str(uuid.uuid4())))
    verification = VerificationRun(run, entities, HistoryVerification(run.context, history))
    with exclusive_sync(target.connect, target.name, run.halt) as run.context.fence, tuned_memory():
        preflight(run.context, refresh=True)
        verification.compare()
        if repair and verification.differs():
            verification.repair()
    outcomes = [*verification.outcomes.values(), *verification.history.outcomes]
    save(target, run.log.run_id, outcomes)
    every = [*(entity.name for entity in ENTITIES), *HISTORY_TABLES]
    return Verification(run.log.run_id, outcomes, time.monotonic() - began,
                        [name for name in every if name not in {each.entity for each in outcomes}])


class VerificationRun:
    """One verification in progress: a result per entity, updated by each pass."""

    def __init__(self, run: SyncRun, entities: Sequence[Entity], history: HistoryVerification) -> None:
        self.run, self.entities, self.history = run, entities, history
        self.outcomes = {entity.name: EntityVerification(entity.name) for entity in entities}
        self.watermarks: dict[str, float] = {}
        """Entity → up to when the last complete sync has read it, unix seconds."""
        self.changes: RecordChanges = set()
        """Records that new events or queued hints name."""

    def differing_entities(self) -> list[Entity]:
        """The entities that differ so far."""
        return [entity for entity in self.entities if self.outcomes[entity.name].difference_count]

    def differs(self) -> bool:
        """True if any entity or history table differs."""
        return bool(self.differing_entities()) or self.history.differs

    def compare(self) -> None:
        """Compares every entity, and what differs once more; then the history tables."""
        self._read_state()
        self.run.context.progress.planned(
            [planned_entity(entity, is_whole=True) for entity in self.entities],
            lambda: self.run.target.client.requests)
        self._run_full(self.entities, lambda entity: self._compare_entity(entity, None))
        self._set_behind_apart()
        self.compare_again()
        self._set_behind_apart()
        self.run.context.progress.working("comparing the history")
        self.history.compare()

    def _read_state(self) -> None:
        """Reads up to when each entity was read, and which records are queued to be read again."""
        with self.run.target.connect() as connection:
            runs = last_runs(connection, self.run.target.name, self.outcomes)
            hints = connection.execute("SELECT listing, key FROM mirror.hints WHERE account = %s "
                                       "AND NOT is_suspect", [self.run.target.name]).fetchall()
        self.watermarks = {name: row["watermark"].timestamp() for name, row in runs.items()
                           if row["watermark"]}
        self.changes |= {(path, int(key) if key.isdecimal() else key) for path, key in hints}

    def _run_full(self, entities: Sequence[Entity], work: Callable[[Entity], EntityResult]) -> None:
        """Runs `work` on the entities as in a full sync, phase by phase, in parallel within a phase."""
        self.run.context.full = True
        for phase in phases(entities):
            self.run.run_jobs([partial(work, entity) for entity in phase])
        self.run.context.full = False

    def compare_again(self) -> None:
        """Compares again what differed."""
        self._run_full(self.differing_entities(),
                       lambda entity: self._compare_entity(entity, self.outcomes[entity.name].differences))

    def _compare_entity(self, entity: Entity, suspects: ByList | None) -> EntityResult:
        """Compares one entity: completely, or the given suspects only. An error becomes the state and
        reason of its result."""
        outcome, client, result = (
            self.outcomes[entity.name], CountingClient(self.run.target.client), EntityResult(entity.name))
        self.run.context.progress.started(entity.name)
        unavailable_because = entity.unavailable_because(self.run.context.account_info)
        with self.run.errors_as_result(result), self.run.autocommit_connection() as connection:
            if unavailable_because:
                result.state, result.reason = "skipped", unavailable_because
                count = SQL("SELECT count(*) FROM {} WHERE _deleted_at IS NULL").format(
                    Identifier(self.run.target.schema, entity.name))
                [(outcome.not_compared.unproven["rows of a list that this account does not have"],)] = (
                    connection.execute(count).fetchall())
            else:
                comparison = Comparison(self.run.context, entity, client, connection, result,
                                        self.watermarks.get(entity.name))
                found = (comparison.compare_all() if suspects is None
                         else comparison.compare_suspects(suspects, outcome.embedded))
                self.changes |= found.changes
                if suspects is None:
                    outcome.compared, outcome.not_compared = found.records, found.not_compared
                outcome.differences = {path: keys for path, keys in found.differences.items() if keys}
                outcome.embedded = found.embedded
        outcome.requests += client.requests
        outcome.set_state(result.state, result.reason)
        result.counts.seen, result.requests = outcome.compared, client.requests
        self.run.context.progress.finished(result)
        return result

    def _set_behind_apart(self) -> None:
        """Takes out of the differences what only changed after the mirror's last read, and embedded objects
        that their own list reports, too."""
        own = {(name, key) for name, outcome in self.outcomes.items()
               for keys in outcome.differences.values() for key in keys}
        for name, outcome in self.outcomes.items():
            for path, keys in outcome.differences.items():
                for key, each in list(keys.items()):
                    behind = is_behind(path, key, each, self.changes)
                    is_repeated = path in self.outcomes and path != name and (path, key) in own
                    if behind or is_repeated:
                        outcome.behind += behind
                        del keys[key]
            outcome.differences = {path: keys for path, keys in outcome.differences.items() if keys}
            if outcome.state == "different":
                outcome.set_state("complete", "")

    def repair(self) -> None:
        """Loads what differs, marks deleted what is gone, runs an ordinary sync for what follows from that,
        makes the history again, and compares once more."""
        wrong = self.differing_entities()
        for entity in wrong:
            outcome = self.outcomes[entity.name]
            outcome.found = {path: dict(keys) for path, keys in outcome.differences.items()}
        self._run_full(wrong, self._repair_entity)
        self.run.run_phases([entity for entity in ENTITIES
                             if entity.phase in (Phase.INCREMENTAL, Phase.DETAILS)])
        self.compare_again()
        for entity in wrong:
            outcome = self.outcomes[entity.name]
            outcome.repaired = sum(map(len, outcome.found.values())) - outcome.difference_count
            outcome.state = "repaired" if outcome.state == "equal" else outcome.state
        self.history.repair()

    def _repair_entity(self, entity: Entity) -> EntityResult:
        outcome, client, result = (
            self.outcomes[entity.name], CountingClient(self.run.target.client), EntityResult(entity.name))
        with self.run.errors_as_result(result), self.run.autocommit_connection() as connection:
            repair_entity(self.run.context, entity, client, connection, result, outcome)
        outcome.requests += client.requests
        outcome.reason = result.reason or outcome.reason
        return result
