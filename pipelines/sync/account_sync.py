"""Syncs one account: decides the order of the entities and their concurrency, and reports progress.

The account comes first (its time zone and options govern the rest), then the directories, then the lists that
change all the time; in a first sync, what people look at comes before all else (`Entity.is_read_first`). Each
entity is read and loaded by a thread of its own; all share the rate limiter. A failure of one entity does not
stop the others, except a block or a revoked token.
"""

from __future__ import annotations

import difflib
import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import psycopg

from pipelines import erasure
from pipelines.accounts.state import recording_refusals
from pipelines.accounts.target import Connection, Target
from pipelines.amocrm.client import CountingClient
from pipelines.amocrm.errors import (
    AccessRevokedError,
    AmoError,
    BlockedError,
    InterruptedSyncError,
    ListIncompleteError,
)
from pipelines.bi import all_accounts, builder
from pipelines.cursors import unread_lists
from pipelines.entities.registry import ACCOUNT_ENTITY, ENTITIES, entity_of
from pipelines.entities.spec import DetailOf, Entity, Phase
from pipelines.errors import MirrorError, UsageError, describe_fault
from pipelines.extract.source import FilterIgnoredError
from pipelines.history import rebuild
from pipelines.load.hints import count_by_listing
from pipelines.postgres.errors import describe_postgres_error, one_line
from pipelines.schema.names import bi_schema
from pipelines.sync.context import (
    EntityResult,
    NoProgress,
    PlannedEntity,
    Progress,
    SyncContext,
    tell_time,
)
from pipelines.sync.entity_sync import EntitySync
from pipelines.sync.exclusive import SyncLockLostError, exclusive_sync
from pipelines.sync.helper_process import HelperProcess, SharedQueue, start_helper
from pipelines.sync.hint_sync import HintSync
from pipelines.sync.preflight import clock_note, preflight
from pipelines.sync.run_log import RunLog
from pipelines.sync.runtime import tuned_memory
from pipelines.webhooks.inbox import enqueue_all_hints, mark_processed

SHUTDOWN_GRACE_SECONDS = 2.0
"""Seconds that an interrupted sync waits for the batches in progress."""


HINT_ROUNDS = 6
"""Passes over the queued hints. Re-reading a record may enqueue further hints (a restored contact for its
leads, a task for its deal). After this many passes the rest waits for the next sync."""


log = logging.getLogger(__name__)


@dataclass
class Report:
    """The results of one sync, one per entity, sorted by the order of ENTITIES. `seconds`: wall time."""

    run_id: str
    results: list[EntityResult] = field(default_factory=list)
    seconds: float = 0.0
    views: list[builder.ViewResult] = field(default_factory=list)
    """Results of rebuilding the BI views. A failed view never fails the sync: its purpose is the tables."""

    clock_note: str = ""
    """By how much this machine's clock is wrong; empty if it is right."""

    @property
    def exit_code(self) -> int:
        """0 complete, 1 failed, 3 done but incomplete or with records in quarantine (design.md 8)."""
        if any(result.state == "failed" for result in self.results):
            return 1
        return 3 if any(result.state == "incomplete" or result.counts.quarantined
                        for result in self.results) else 0


def select_entities(only: Sequence[str]) -> list[Entity]:
    """Returns the entities to sync: those named in `only`, or all. Raises UsageError for an unknown name."""
    unknown = set(only) - {entity.name for entity in ENTITIES}
    if unknown:
        raise UsageError(f"there is no entity {', '.join(map(_with_suggestion, sorted(unknown)))}. "
                         f"There are: {', '.join(entity.name for entity in ENTITIES)}")
    return [entity for entity in ENTITIES if not only or entity.name in only]


def _with_suggestion(name: str) -> str:
    """Returns the name, with an entity's name that is much like it: `leds (did you mean leads?)`."""
    close = difflib.get_close_matches(name, [entity.name for entity in ENTITIES], n=1, cutoff=0.75)
    return f"{name} (did you mean {close[0]}?)" if close else name


def sync(target: Target, only: Sequence[str] = (), full: bool = False, progress: Progress | None = None,
         allow_mass_delete: bool = False) -> Report:
    """Brings the account's tables up to date. Raises SyncRefused when it may not start (another sync is
    running, the token is another account's)."""
    with admitted_sync(target, only, full, progress, allow_mass_delete) as run:
        return run()


@contextmanager
def admitted_sync(target: Target, only: Sequence[str] = (), full: bool = False,
                  progress: Progress | None = None,
                  allow_mass_delete: bool = False) -> Iterator[Callable[[], Report]]:
    """Holds the account's locks and yields the function that runs its sync, after everything that could
    refuse the sync has been checked. Raises SyncRefusedError and what the client raises."""
    began = time.monotonic()
    entities = select_entities(only)
    run = SyncRun(SyncContext(target, progress or NoProgress(), full, allow_mass_delete),
                  RunLog(target, str(uuid.uuid4())))
    with exclusive_sync(target.connect, target.name, run.halt) as run.context.fence, tuned_memory():
        target.client.on_retry = run.context.progress.waiting
        run.context.progress.working("asking amoCRM about the account")
        preflight(run.context, ACCOUNT_ENTITY in entities)
        yield partial(_run_sync, run, entities, began)


def _run_sync(run: SyncRun, entities: Sequence[Entity], began: float) -> Report:
    report, target = Report(run.log.run_id), run.target
    with start_helper(run.context, run.log.run_id, entities) as run.helper:
        report.results += run.run_phases(entities, run.plan(entities))
    with target.connect() as connection:
        run.context.progress.working("updating the history")
        run.context.check_fence(connection)
        advanced = rebuild.advance(connection, target.schema, target.name, target.connect)
    changed = changed_tables(report.results, advanced > 0)
    if target.rebuilds_when_idle or changed:
        run.context.progress.working("building the views")
        report.views = _merge_views(run.views, rebuild_views(target, changed))
    report.results.sort(key=lambda result: [entity.name for entity in ENTITIES].index(result.entity))
    report.seconds, report.clock_note = time.monotonic() - began, clock_note(target.client)
    return report


def changed_tables(results: Sequence[EntityResult], has_new_history: bool) -> set[str]:
    """The account's tables in which a run wrote rows."""
    changed = {result.entity for result in results if result.counts.changed}
    return {table for entity in ENTITIES if entity.name in changed for table in entity.tables} | (
        {attribute.model.__tablename__ for attribute in rebuild.ATTRIBUTES} if has_new_history else set())


def _merge_views(earlier: Sequence[builder.ViewResult],
                 later: Sequence[builder.ViewResult]) -> list[builder.ViewResult]:
    """Returns the later results; views that were built, or had other rows, earlier in this sync count as
    such."""
    news = {each.view: each for each in earlier if each.state == "built" or each.has_news}
    return [news.get(each.view, each) if each.state in ("unchanged", "refreshed") and not each.has_news
            else each for each in later]


def rebuild_views(target: Target, changed: Collection[str] = ()) -> list[builder.ViewResult]:
    """Rebuilds the BI views for the current custom fields, and refreshes what they store of the tables
    `changed`. A database error becomes a failed result."""
    try:
        with target.connect() as connection:
            connection.autocommit = True
            built = builder.refresh_views(connection, target.schema, changed)
            all_accounts.refresh_if_new(connection, target.name)
            return built
    except psycopg.Error as reason:
        return [builder.ViewResult(bi_schema(target.schema), "failed", describe_postgres_error(reason))]


def planned_entity(entity: Entity, is_whole: bool) -> PlannedEntity:
    """Returns the entity as the progress shows it. `is_whole`: it is read whole, not only its changes."""
    parent = next((each.per_parent.model for each in entity.listings
                   if isinstance(each.per_parent, DetailOf) and each.per_parent.parent_column), None)
    is_long = parent is not None or (entity.incremental is not None and not entity.has_details)
    return PlannedEntity(entity.name, len(entity.listings), is_whole and is_long,
                         entity_of(parent).name if is_whole and parent else "")


def phases(entities: Sequence[Entity]) -> list[list[Entity]]:
    """Groups the entities by phase, in the order of `Phase`."""
    return [[entity for entity in entities if entity.phase is phase] for phase in Phase]


class SyncRun:
    """One run of a sync: reads and loads entities, and turns their errors into results."""

    def __init__(self, context: SyncContext, run_log: RunLog) -> None:
        self.context, self.target, self.log = context, context.target, run_log
        self.helper: HelperProcess | None = None
        self.helper_requests = 0
        self.views: list[builder.ViewResult] = []
        """The views that were built before everything had been read."""

    def plan(self, entities: Sequence[Entity]) -> list[Entity]:
        """Says what is going to be read. Returns the entities that are read ahead of the others: in a first
        sync, those that people look at first. With a helper process there are none: no rate limit makes
        anyone wait, and two processes share the long lists best if there are many."""
        paths = [each.path for entity in entities if entity.incremental or entity.has_details
                 for each in entity.listings]
        with self.target.connect() as connection:
            unread = unread_lists(connection, self.target.name, paths)
        new = [entity for entity in entities if any(each.path in unread for each in entity.listings)]
        ahead = [entity for entity in entities if entity.is_read_first]
        if self.helper or not set(ahead) & set(new) or len(ahead) == len(entities):
            ahead = []
        order = [entity for part in (ahead, [each for each in entities if each not in ahead])
                 for phase in phases(part) for entity in phase]
        self.context.progress.planned(
            [planned_entity(entity, entity in new or self.context.full) for entity in order],
            lambda: self.target.client.requests + self.helper_requests)
        return ahead

    def run_phases(self, entities: Sequence[Entity], ahead: Sequence[Entity] = ()) -> list[EntityResult]:
        """Runs every phase, then the queued hints. Entities without a list endpoint come last: their ids are
        found in rows that the other entities have loaded. `ahead`: entities whose phases come first; when
        they are read, the views are built."""
        results: list[EntityResult] = []
        others = [entity for entity in entities if entity not in ahead]
        for part in filter(None, (ahead, others)):
            for phase in phases(part):
                if any(entity.phase is Phase.DETAILS for entity in phase):
                    self.process_hints(entities, results)
                results += self.run_jobs(self.entity_jobs(phase))
            if part is ahead and not self.context.stop_reason:
                self._open_views(ahead, others, results)
        self.process_hints(entities, results)
        with self.autocommit_connection() as connection, connection.transaction():
            self.context.check_fence(connection)
            erasure.erase_late_rows(connection, self.target.schema, self.target.name)
            mark_processed(connection, self.target.name)
        return results

    def _open_views(self, read: Sequence[Entity], others: Sequence[Entity],
                    results: Sequence[EntityResult]) -> None:
        """Builds the views with the fields of the account, and says that they can be used."""
        self.views = rebuild_views(self.target)
        names = [entity.name for entity in read if entity.incremental]
        later = [entity.name for entity in others if entity.incremental or entity.has_details]
        if not {result.state for result in results if result.entity in names} - {"complete", "skipped"}:
            self.context.progress.reached(
                f"{', '.join(names)}: read; the views of them can be used. Still to come: "
                f"{', '.join([*later, 'history'])}")

    def process_hints(self, entities: Sequence[Entity], results: list[EntityResult]) -> None:
        """Re-reads the records that hints name, in up to HINT_ROUNDS passes: a re-read may enqueue further
        hints. What is left waits for the next sync. Entities that failed in this run are left out."""
        readable = {result.entity: result for result in results if result.state in ("complete", "incomplete")}
        for _ in range(HINT_ROUNDS):
            with self.target.connect() as connection:
                tell_time(connection, self.target.client)
                enqueue_all_hints(connection, self.target.name)
                paths = set(count_by_listing(connection, self.target.name))
            hinted = [entity for entity in entities
                      if entity.name in readable and readable[entity.name].state != "failed"
                      and paths & {each.path for each in entity.listings}]
            if not hinted or self.context.stop_reason:
                return
            self.run_jobs([partial(self.process_entity_hints, entity, paths, readable[entity.name])
                           for entity in hinted])

    def process_entity_hints(self, entity: Entity, paths: set[str], result: EntityResult) -> EntityResult:
        """Processes one entity's hints for the given list paths, and adds to its result."""
        client, began = CountingClient(self.target.client), time.monotonic()
        self.context.progress.started(entity.name)
        with self.errors_as_result(result), self.autocommit_connection() as connection:
            HintSync(self.context, entity, client, connection, result).process(paths)
        result.hint_requests += client.requests
        result.requests += client.requests
        result.retries += client.retries
        return self._finish(result, began)

    def entity_jobs(self, entities: Sequence[Entity]) -> list[Callable[[], EntityResult]]:
        """Returns one job per entity of a phase. The helper process, if there is one, shares the long lists:
        each job then takes the next entity of a shared queue."""
        if not self.helper or not all(entity.incremental for entity in entities):
            return [partial(self.sync_entity, entity) for entity in entities]
        queue = SharedQueue(entities, self.helper)
        def next_job() -> EntityResult:
            with queue.next_entity() as (entity, on_helper):
                return self.sync_entity(entity, on_helper)

        return [next_job] * len(entities)

    def run_jobs(self, jobs: Sequence[Callable[[], EntityResult]]) -> list[EntityResult]:
        """Runs the jobs of one phase in parallel; results in the order in which they finish. When
        interrupted, it waits SHUTDOWN_GRACE_SECONDS for the batches in progress."""
        results: list[EntityResult] = []
        pool = ThreadPoolExecutor(min(self.target.concurrency, len(jobs) or 1), "entity")
        pending: set[Future[EntityResult]] = {pool.submit(job) for job in jobs}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                results += [each.result() for each in done]
        except BaseException as reason:
            self._stop(reason if isinstance(reason, SyncLockLostError) else InterruptedSyncError(
                "interrupted; what had landed is kept, and the next sync resumes there"))
            pool.shutdown(wait=False, cancel_futures=True)
            wait([each for each in pending if not each.cancelled()], SHUTDOWN_GRACE_SECONDS)
            raise
        pool.shutdown()
        return results

    def sync_entity(self, entity: Entity, on_helper: bool = False) -> EntityResult:
        """Reads and loads one entity, in this process or (`on_helper`) in the helper process. Every error
        becomes the result's state and reason."""
        result, began = EntityResult(entity.name), time.monotonic()
        self.context.progress.started(entity.name)
        with self.autocommit_connection() as connection:
            self.log.start(connection, entity.name, self.context.is_admin)
            if on_helper and self.helper:
                result = self.helper.read(entity)
                self.helper_requests += result.requests
            else:
                self.read_and_load(entity, result, connection)
            return self._finish(result, began, connection)

    def read_and_load(self, entity: Entity, result: EntityResult, connection: Connection) -> None:
        """Reads and loads one entity in this process; skips it if the account does not offer it."""
        client = CountingClient(self.target.client)
        unavailable_because = entity.unavailable_because(self.context.account_info)
        with self.errors_as_result(result):
            if self.context.stop_reason:
                raise self.context.stop_reason
            if unavailable_because:
                result.state, result.reason, result.is_offered = "skipped", unavailable_because, False
            else:
                EntitySync(self.context, entity, client, connection, result).run()
        result.requests += client.requests
        result.retries += client.retries

    def _finish(self, result: EntityResult, began: float,
                connection: Connection | None = None) -> EntityResult:
        if result.state in ("failed", "incomplete", "interrupted"):
            result.watermark = None
        result.seconds += time.monotonic() - began
        self.log.finish(result, connection)
        self.context.progress.finished(result)
        return result

    @contextmanager
    def errors_as_result(self, result: EntityResult) -> Iterator[None]:
        """Turns an error of its body into the result's state and reason."""
        try:
            with recording_refusals(self.target.connect, self.target.name):
                yield
        except SyncLockLostError:
            raise  # nothing more is written, not even that this entity failed
        except (AccessRevokedError, BlockedError) as reason:
            self._stop(reason)
            result.state, result.reason = "failed", str(reason)
        except InterruptedSyncError as reason:
            result.state, result.reason = "interrupted", str(reason)
        except ListIncompleteError as reason:
            result.state, result.reason = "incomplete", one_line(reason)
        except psycopg.Error as reason:
            result.state, result.reason = "failed", describe_postgres_error(reason)
        except (AmoError, FilterIgnoredError, MirrorError) as reason:
            result.state, result.reason = "failed", one_line(reason)
        except Exception as reason:
            log.exception("%s failed", result.entity)
            result.state = "failed"
            result.reason = describe_fault(reason)

    def halt(self, reason: AmoError) -> None:
        """Stops the run: no further request is sent."""
        self.context.halt(reason)
        self._stop(reason)

    def _stop(self, reason: AmoError) -> None:
        self.context.stop_reason = self.context.stop_reason or reason
        if self.helper:
            self.helper.stop(reason)

    @contextmanager
    def autocommit_connection(self) -> Iterator[Connection]:
        with self.target.connect() as connection:
            connection.autocommit = True
            yield connection
