"""One account's sync: which entities, in what order, with what concurrency. Progress is reported from here.

First the account (its time zone and options rule the rest), then the directories, then the lists that move. Each entity is read and
landed by a thread of its own; the rate budget is shared. What one entity cannot do does not stop the others, except a block or a dead token.
"""

from __future__ import annotations

import datetime
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import psycopg

from pipelines import erasure
from pipelines.accounts.state import refusals_marked
from pipelines.accounts.target import Connection, Target
from pipelines.amocrm.client import Counted
from pipelines.amocrm.errors import AccessLost, AmoError, Blocked, OutOfReach
from pipelines.bi import builder
from pipelines.bi.state import place
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from pipelines.errors import WrongUse
from pipelines.extract.source import FilterIgnored
from pipelines.history import rebuild
from pipelines.load.hints import waiting
from pipelines.postgres.errors import of_postgres, one_line
from pipelines.postgres.locks import alone
from pipelines.sync.context import Progress, Result, Scene, Silent
from pipelines.sync.entity_sync import EntitySync
from pipelines.sync.helper_process import Beside, Row, beside
from pipelines.sync.hint_sync import Heeding
from pipelines.sync.preflight import learn
from pipelines.sync.runtime import frugal
from pipelines.webhooks.inbox import absorb_all, settle

LAST_WORDS = 2.0


ROUNDS = 6
"""A record read again may tell of others: a restored contact of its leads, a task of its deal."""


log = logging.getLogger(__name__)


@dataclass
class Report:
    run_id: str
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    views: list[builder.Built] = field(default_factory=list)
    """What became of the views for people. They never make a sync fail: the tables are what it is about."""

    @property
    def exit_code(self) -> int:
        """0 complete, 1 failed, 3 done but incomplete or with records in quarantine (design.md 8)."""
        if any(result.state == "failed" for result in self.results):
            return 1
        return 3 if any(result.state == "incomplete" or result.counts.quarantined for result in self.results) else 0


def selected(only: Sequence[str]) -> list[Entity]:
    """The entities to sync. Raises WrongUse for a name that there is not."""
    unknown = set(only) - {entity.name for entity in ENTITIES}
    if unknown:
        raise WrongUse(f"there is no entity {', '.join(sorted(unknown))}. There are: {', '.join(entity.name for entity in ENTITIES)}")
    return [entity for entity in ENTITIES if not only or entity.name in only]


def sync(target: Target, only: Sequence[str] = (), full: bool = False, progress: Progress | None = None,
         allow_mass_delete: bool = False) -> Report:
    """Brings the account's tables up to date. Raises SyncRefused when it may not start (another sync runs, wrong account)."""
    began = time.monotonic()
    entities = selected(only)
    run = Run(Scene(target, progress or Silent(), full, allow_mass_delete), str(uuid.uuid4()))
    report = Report(run.run_id)
    with alone(target), frugal():
        learn(run.scene, ENTITIES[0] in entities)
        with beside(run.scene, run.run_id, entities) as run.beside:
            report.results += run.through(entities)
        with target.connect() as connection:
            rebuild.advance(connection, target.schema, target.name, target.connect)
        report.views = rebuilt(target)
    report.results.sort(key=lambda result: [entity.name for entity in ENTITIES].index(result.entity))
    report.seconds = time.monotonic() - began
    return report


def rebuilt(target: Target) -> list[builder.Built]:
    """Brings the views for people to what the fields are now."""
    try:
        with target.connect() as connection:
            connection.autocommit = True
            return builder.rebuild(connection, target.schema)
    except psycopg.Error as reason:
        return [builder.Built(place(target.schema), "failed", of_postgres(reason))]


def phases(entities: Sequence[Entity]) -> list[list[Entity]]:
    """In what order: the account, the directories, the lists that exist once per row of a directory, the lists that move."""
    depths = {entity.model: _depth(entity) for entity in ENTITIES}
    return [[entity for entity in entities if depths[entity.model] == depth] for depth in sorted(set(depths.values()))]


def _depth(entity: Entity) -> int:
    if any(listing.over and listing.over.sql for listing in entity.listings):
        return 4
    if any(listing.whole for listing in entity.listings):
        return 0
    return 3 if entity.moving else 2 if any(listing.over for listing in entity.listings) else 1


class Run:
    """One run: what it knows of the account, and how it reads and lands one entity."""

    def __init__(self, scene: Scene, run_id: str) -> None:
        self.scene, self.target, self.run_id = scene, scene.target, run_id
        self.rows: dict[str, int] = {}
        """Each entity's row of mirror.sync_runs."""
        self.beside: Beside | None = None

    def through(self, entities: Sequence[Entity]) -> list[Result]:
        """Every phase, and what was queued to be read again; what has no list comes last, for it is found through what the others landed."""
        results: list[Result] = []
        for phase in phases(entities):
            if any(listing.over and listing.over.sql for entity in phase for listing in entity.listings):
                self.heed(entities, results)
            results += self.phase(self.jobs(phase))
        self.heed(entities, results)
        with self.connected() as connection:
            erasure.settle(connection, self.target.schema, self.target.name)
            settle(connection, self.target.name)
        return results

    def heed(self, entities: Sequence[Entity], results: list[Result]) -> None:
        """Reads again what was queued meanwhile; reading it may queue more. What is left after some rounds is the next sync's."""
        sound = {result.entity: result for result in results if result.state in ("complete", "incomplete")}
        for _ in range(ROUNDS):
            with self.target.connect() as connection:
                absorb_all(connection, self.target.name)
                paths = waiting(connection, self.target.name)
            hinted = [entity for entity in entities if entity.name in sound and paths & {each.path for each in entity.listings}]
            if not hinted or self.scene.stop:
                return
            self.phase([partial(self.again, entity, paths, sound[entity.name]) for entity in hinted])

    def again(self, entity: Entity, paths: set[str], result: Result) -> Result:
        client, began = Counted(self.target.client), time.monotonic()
        self.scene.progress.started(entity.name)
        with self.judged(result), self.connected() as connection:
            Heeding(self.scene, entity, client, connection, result).heed(paths)
        result.hinted += client.requests
        result.requests += client.requests
        return self._finished(result, began)

    def jobs(self, entities: Sequence[Entity]) -> list[Callable[[], Result]]:
        """Every entity of a phase. The process beside this one, where there is one, takes its share of the long lists."""
        if not self.beside or not all(entity.moving for entity in entities):
            return [partial(self.entity, entity) for entity in entities]
        row = Row(entities, self.beside)
        def following() -> Result:
            with row.next() as (entity, elsewhere):
                return self.entity(entity, elsewhere)

        return [following] * len(entities)

    def phase(self, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
        """The jobs of one phase, side by side; results as they finish. Interrupting it waits a moment for the batches under way."""
        results: list[Result] = []
        pool = ThreadPoolExecutor(min(self.target.concurrency, len(jobs) or 1), "entity")
        pending: set[Future[Result]] = {pool.submit(job) for job in jobs}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                results += [each.result() for each in done]
        except BaseException:
            self._stop(AmoError("interrupted; what had landed is kept, and the next sync resumes there"))
            pool.shutdown(wait=False, cancel_futures=True)
            wait([each for each in pending if not each.cancelled()], LAST_WORDS)
            raise
        pool.shutdown()
        return results

    def entity(self, entity: Entity, elsewhere: bool = False) -> Result:
        """Reads and lands one entity, here or in the process beside this one; whatever happens becomes its result."""
        result, began = Result(entity.name), time.monotonic()
        self.scene.progress.started(entity.name)
        with self.connected() as connection:
            self._open(connection, entity)
            if elsewhere and self.beside:
                result = self.beside.read(entity)
            else:
                self.read(entity, result, connection)
            return self._finished(result, began, connection)

    def read(self, entity: Entity, result: Result, connection: Connection) -> None:
        client, why_not = Counted(self.target.client), entity.unless(self.scene.facts) if entity.unless else ""
        with self.judged(result):
            if self.scene.stop:
                raise self.scene.stop
            if why_not:
                result.state, result.reason = "skipped", why_not
            else:
                EntitySync(self.scene, entity, client, connection, result).run()
        result.requests += client.requests

    def _finished(self, result: Result, began: float, connection: Connection | None = None) -> Result:
        if result.state in ("failed", "incomplete"):
            result.watermark = None
        result.seconds += time.monotonic() - began
        self._close(result, connection)
        self.scene.progress.finished(result)
        return result

    @contextmanager
    def judged(self, result: Result) -> Iterator[None]:
        """What goes wrong becomes the result's state and reason."""
        try:
            with refusals_marked(self.target.connect, self.target.name):
                yield
        except (AccessLost, Blocked) as reason:
            self._stop(reason)
            result.state, result.reason = "failed", str(reason)
        except OutOfReach as reason:
            result.state, result.reason = "incomplete", one_line(reason)
        except psycopg.Error as reason:
            result.state, result.reason = "failed", of_postgres(reason)
        except (AmoError, FilterIgnored) as reason:
            result.state, result.reason = "failed", one_line(reason)
        except Exception as reason:
            log.exception("%s failed", result.entity)
            result.state = "failed"
            result.reason = f"{type(reason).__name__}: {one_line(reason)}. This is a fault of amocrm-mirror's: please report it"

    def _stop(self, reason: AmoError) -> None:
        self.scene.stop = self.scene.stop or reason
        if self.beside:
            self.beside.stop(reason)

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        with self.target.connect() as connection:
            connection.autocommit = True
            yield connection

    def _open(self, connection: Connection, entity: Entity) -> None:
        row = connection.execute("INSERT INTO mirror.sync_runs (run_id, account, entity, state, is_admin) VALUES (%s, %s, %s, 'running', %s) "
                                 "RETURNING id", [self.run_id, self.target.name, entity.name, self.scene.is_admin]).fetchone()
        self.rows |= {entity.name: row[0]} if row else {}

    def _close(self, result: Result, connection: Connection | None) -> None:
        """On the connection that read the entity; where Postgres hung up on that one, on another: what has ended must not seem to go on."""
        if connection is not None:
            with suppress(psycopg.Error):
                return self._note(connection, result)
        try:
            with self.connected() as another:
                self._note(another, result)
        except psycopg.Error as reason:
            result.state, result.reason = "failed", result.reason or of_postgres(reason)

    def _note(self, connection: Connection, result: Result) -> None:
        counts = result.counts
        at = datetime.datetime.fromtimestamp(result.watermark, datetime.UTC) if result.watermark else None
        connection.execute(
            "UPDATE mirror.sync_runs SET state = %s, mode = %s, reason = %s, finished_at = now(), seen = %s, inserted = %s, updated = %s, "
            "deleted = %s, quarantined = %s, requests = %s, seconds = %s, watermark = %s WHERE id = %s",
            [result.state, result.mode or None, result.reason or None, counts.seen, counts.inserted, counts.updated, counts.deleted,
             counts.quarantined, result.requests, round(result.seconds, 3), at, self.rows.get(result.entity)])
