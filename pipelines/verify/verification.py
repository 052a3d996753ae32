"""Does the mirror equal the account? Every list is read whole and compared; what differs is looked at a second time before it counts.

Between the two looks an ordinary sync runs where something differed: what it brings was only newer than the last one. What the second look still
finds is a difference that increments do not see; `repair` mends it. The answer is true of the time between the first and the last request.
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
from pipelines.amocrm.client import Counted
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from pipelines.postgres.locks import alone
from pipelines.sync.account_sync import Run, phases, selected
from pipelines.sync.context import Progress, Result, Scene, Silent
from pipelines.sync.entity_sync import EntitySync
from pipelines.sync.hint_sync import Heeding
from pipelines.sync.preflight import learn
from pipelines.sync.runtime import frugal
from pipelines.verify.comparison import Compared, Comparing, Keys

EXAMPLES = 20


@dataclass
class Outcome:
    """What became of one entity. `state` is equal, different, repaired, incomplete, skipped or failed; times are unix seconds."""

    entity: str
    state: str = "equal"
    reason: str = ""
    compared: int = 0
    differences: dict[str, Keys] = field(default_factory=dict)
    caught_up: int = 0
    """Differed at first, and an ordinary sync brought it."""
    repaired: int = 0
    requests: int = 0
    began: float = field(default_factory=time.time)
    ended: float = 0.0

    def count(self, kind: str) -> int:
        return Compared(0, self.differences).count(kind)

    @property
    def differing(self) -> int:
        return sum(map(len, self.differences.values()))

    @property
    def examples(self) -> list[str]:
        return [f"{path}/{key[-1]}: {kind}" for path, keys in self.differences.items() for key, kind in keys.items()][:EXAMPLES]


@dataclass
class Verification:
    run_id: str
    outcomes: list[Outcome]
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 equal (or repaired), 1 failed, 3 something differs or could not be compared."""
        states = {outcome.state for outcome in self.outcomes}
        return 1 if "failed" in states else 3 if states & {"different", "incomplete"} else 0


def verify(target: Target, only: Sequence[str] = (), repair: bool = False, progress: Progress | None = None) -> Verification:
    """Compares, and mends if asked. Raises SyncRefused as a sync does."""
    began, entities = time.monotonic(), selected(only)
    verifying = Verifying(Run(Scene(target, progress or Silent()), str(uuid.uuid4())), entities)
    with alone(target), frugal():
        learn(verifying.run.scene, anew=True)
        verifying.look()
        if verifying.suspected():
            verifying.catch_up()
        if repair and verifying.suspected():
            verifying.repair()
    verifying.remember()
    return Verification(verifying.run.run_id, list(verifying.outcomes.values()), time.monotonic() - began)


class Verifying:
    """One verification: an outcome per entity, which gets clearer with each step."""

    def __init__(self, run: Run, entities: Sequence[Entity]) -> None:
        self.run, self.entities = run, entities
        self.outcomes = {entity.name: Outcome(entity.name) for entity in entities}

    def suspected(self) -> list[Entity]:
        return [entity for entity in self.entities if self.outcomes[entity.name].differing]

    def look(self) -> None:
        self._in_full(self.entities, lambda entity: self._compared(entity, None))

    def _in_full(self, entities: Sequence[Entity], work: Callable[[Entity], Result]) -> None:
        self.run.scene.full = True
        for phase in phases(entities):
            self.run.phase([partial(work, entity) for entity in phase])
        self.run.scene.full = False

    def look_again(self) -> dict[str, int]:
        """Compares what differed once more; how many differences of each entity are gone."""
        before = {entity.name: self.outcomes[entity.name].differing for entity in self.suspected()}
        self._in_full(self.suspected(), lambda entity: self._compared(entity, self.outcomes[entity.name].differences))
        return {name: count - self.outcomes[name].differing for name, count in before.items()}

    def catch_up(self) -> None:
        """What changed since the last sync is no difference."""
        changed = [entity for entity in ENTITIES if entity.moving or entity in self.suspected()]
        self.run.through(changed)
        for name, count in self.look_again().items():
            self.outcomes[name].caught_up = count

    def _compared(self, entity: Entity, suspects: Mapping[str, Keys] | None) -> Result:
        """One look at one entity. What goes wrong is told in the outcome."""
        outcome, client, result = self.outcomes[entity.name], Counted(self.run.target.client), Result(entity.name)
        self.run.scene.progress.started(entity.name)
        why_not = entity.unless(self.run.scene.facts) if entity.unless else ""
        if why_not:
            result.state, result.reason = "skipped", why_not
        else:
            with self.run.judged(result), self.run.connected() as connection:
                comparing = Comparing(self.run.scene, entity, client, connection, result)
                found = comparing.again(suspects) if suspects is not None else comparing.whole()
                outcome.compared = outcome.compared or found.records
                outcome.differences = {path: keys for path, keys in found.differences.items() if keys}
        self._told(outcome, result, client)
        return result

    def _told(self, outcome: Outcome, result: Result, client: Counted) -> None:
        outcome.requests += client.requests
        outcome.ended = time.time()
        outcome.reason = result.reason or outcome.reason
        outcome.state = result.state if result.state != "complete" else "different" if outcome.differing else "equal"
        result.counts.seen, result.requests = outcome.compared, client.requests
        self.run.scene.progress.finished(result)

    def repair(self) -> None:
        """Lands what differs, marks what is gone, and looks a third time."""
        self._in_full(self.suspected(), self._repaired)
        self.run.heed(self.entities, [Result(entity.name) for entity in self.entities])
        for name, count in self.look_again().items():
            outcome = self.outcomes[name]
            outcome.repaired, outcome.state = count, "repaired" if outcome.state == "equal" else outcome.state

    def _repaired(self, entity: Entity) -> Result:
        outcome, client, result = self.outcomes[entity.name], Counted(self.run.target.client), Result(entity.name)
        with self.run.judged(result), self.run.connected() as connection:
            if entity.moving:
                Heeding(self.run.scene, entity, client, connection, result).mend(outcome.differences)
            else:
                EntitySync(self.run.scene, entity, client, connection, result).run()
        outcome.requests += client.requests
        outcome.reason = result.reason or outcome.reason
        return result

    def remember(self) -> None:
        with self.run.target.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO mirror.verifications (run_id, account, entity, state, reason, began_at, ended_at, compared, missing, extra, stale, "
                "examples, requests) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [self._row(each) for each in self.outcomes.values()])

    def _row(self, outcome: Outcome) -> list[Any]:
        began, ended = (datetime.datetime.fromtimestamp(at, datetime.UTC) for at in (outcome.began, outcome.ended or time.time()))
        return [self.run.run_id, self.run.target.name, outcome.entity, outcome.state, outcome.reason or None, began, ended, outcome.compared,
                outcome.count("missing"), outcome.count("extra"), outcome.count("stale"), Jsonb(outcome.examples) if outcome.examples else None,
                outcome.requests]
