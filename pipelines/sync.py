"""One account's sync: which entities, in what order, with what concurrency. Progress is reported from here.

First the account (its time zone and options rule the rest), then the directories, then the lists that move. Each entity is read and
landed by a thread of its own; the rate budget is shared. What one entity cannot do does not stop the others, except a block or a dead token.
"""

from __future__ import annotations

import datetime
import gc
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from pipelines.amocrm.client import Client, Counted
from pipelines.amocrm.errors import AccessLost, AmoError, Blocked, NotOffered
from pipelines.amocrm.pages import page
from pipelines.declare import Entity, Listing, Over
from pipelines.entities import ACCOUNT_WITH, ENTITIES
from pipelines.extract import FilterIgnored, Position, Source, Step, changes, snapshot, sweep
from pipelines.load import Batch, Counts, Landing, tune
from pipelines.normalize import Normalizer, normalizer

PAGES_A_BATCH, ROWS_A_BATCH = 20, 60_000
DRIVE_PATH = "/v1.0/"
GUARD_ROWS, GUARD_SHARE = 20, 0.05
LAST_WORDS = 2.0
Connection = psycopg.Connection[Any]


class SyncRefused(Exception):
    """The sync did not start; the message says why, and the cure."""


class WrongUse(SyncRefused):
    """It was asked for something that there is not, or without a setting that it needs."""


@dataclass(frozen=True)
class Target:
    """An account to mirror: its name here, its schema, and how to reach both ends."""

    name: str
    schema: str
    client: Client
    connect: Callable[[], Connection]
    concurrency: int = 6


@dataclass
class Result:
    """What became of one entity. `state` is complete, skipped, incomplete or failed; `seconds` of wall time."""

    entity: str
    state: str = "complete"
    mode: str = ""
    reason: str = ""
    counts: Counts = field(default_factory=Counts)
    requests: int = 0
    seconds: float = 0.0
    watermark: int | None = None
    """Unix seconds up to which the list is complete."""


@dataclass
class Report:
    run_id: str
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 complete, 1 failed, 3 done but incomplete or with records in quarantine (design.md 8)."""
        if any(result.state == "failed" for result in self.results):
            return 1
        return 3 if any(result.state == "incomplete" or result.counts.quarantined for result in self.results) else 0


class Progress(Protocol):
    """Told what happens while it happens, from several threads."""

    def started(self, entity: str) -> None: ...

    def advanced(self, entity: str, seen: int, total: int | None) -> None: ...

    def finished(self, result: Result) -> None: ...


class Silent:
    def started(self, entity: str) -> None: ...

    def advanced(self, entity: str, seen: int, total: int | None) -> None: ...

    def finished(self, result: Result) -> None: ...


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
    run = Run(target, str(uuid.uuid4()), full, allow_mass_delete, progress or Silent())
    report = Report(run.run_id)
    with _alone(target), _no_cycles():
        run.learn()
        for phase in phases(entities):
            report.results += run.phase(phase)
    report.results.sort(key=lambda result: [entity.name for entity in ENTITIES].index(result.entity))
    report.seconds = time.monotonic() - began
    return report


def phases(entities: Sequence[Entity]) -> list[list[Entity]]:
    """In what order: the account, the directories, the lists that exist once per row of a directory, the lists that move."""
    depths = {entity.model: _depth(entity) for entity in ENTITIES}
    return [[entity for entity in entities if depths[entity.model] == depth] for depth in sorted(set(depths.values()))]


def _depth(entity: Entity) -> int:
    if any(listing.over and listing.over.sql for listing in entity.listings):
        return 4
    if any(listing.whole for listing in entity.listings):
        return 0
    if entity.moving:
        return 3
    return 2 if any(listing.over for listing in entity.listings) else 1


@contextmanager
def _alone(target: Target) -> Iterator[None]:
    """Two syncs of one account never run at once; the lock ends with the connection, so a killed one leaves none behind."""
    with target.connect() as connection:
        connection.autocommit = True
        row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [f"amocrm-mirror sync {target.name}"]).fetchone()
        if not row or not row[0]:
            raise SyncRefused(f"another sync of the account {target.name!r} is running: wait for it to end, then run this one again")
        yield


@contextmanager
def _no_cycles() -> Iterator[None]:
    """Records and rows hold no cycles, but there are so many of them that looking for cycles took a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Run:
    """One run: what it knows of the account, and how it reads and lands one entity."""

    def __init__(self, target: Target, run_id: str, full: bool, allow_mass_delete: bool, progress: Progress) -> None:
        self.target, self.run_id, self.full, self.progress = target, run_id, full, progress
        self.allow_mass_delete = allow_mass_delete
        self.zone: ZoneInfo = ZoneInfo("UTC")
        self.facts: Mapping[str, Any] = {}
        self.stop: AmoError | None = None
        self._lock = threading.Lock()

    def learn(self) -> None:
        """The account's record as mirrored so far, or asked for now: its id must be the one that the schema holds."""
        facts = page(self.target.client, "account", [("with", ",".join(ACCOUNT_WITH))], "", whole=True).records[0]
        self._claim(facts.get("id"), facts.get("name"))
        self.facts = facts
        settings = (facts.get("_embedded") or {}).get("datetime_settings") or {}
        try:
            self.zone = ZoneInfo(settings.get("timezone") or "UTC")
        except (ZoneInfoNotFoundError, ValueError):
            raise SyncRefused(f"the account's time zone {settings.get('timezone')!r} is not known here: update the package tzdata") from None

    def _claim(self, account_id: Any, name: Any) -> None:
        with self.target.connect() as connection:
            row = connection.execute("UPDATE mirror.accounts SET account_id = coalesce(account_id, %s) WHERE name = %s RETURNING account_id",
                                     [account_id, self.target.name]).fetchone()
        if row and row[0] != account_id:
            raise SyncRefused(f"the schema {self.target.schema!r} holds amoCRM account {row[0]}, but the token is of account {account_id} "
                              f"({name}). Nothing was changed. Use that account's own token, or another AMOCRM_SCHEMA for this one")

    def phase(self, entities: Sequence[Entity]) -> list[Result]:
        """The entities of one phase, side by side; results as they finish. Interrupting it waits a moment for the batches under way."""
        results: list[Result] = []
        pool = ThreadPoolExecutor(min(self.target.concurrency, len(entities) or 1), "entity")
        pending: set[Future[Result]] = {pool.submit(self.entity, entity) for entity in entities}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                results += [each.result() for each in done]
        except BaseException:
            self.stop = self.stop or AmoError("interrupted; what had landed is kept, and the next sync resumes there")
            pool.shutdown(wait=False, cancel_futures=True)
            wait([each for each in pending if not each.cancelled()], LAST_WORDS)
            raise
        pool.shutdown()
        return results

    def entity(self, entity: Entity) -> Result:
        """Reads and lands one entity; whatever happens becomes its result."""
        client = Counted(self.target.client)
        result, began = Result(entity.name), time.monotonic()
        self.progress.started(entity.name)
        row = self._opened(entity)
        try:
            if self.stop:
                raise self.stop
            why_not = entity.unless(self.facts) if entity.unless else ""
            if why_not:
                result.state, result.reason = "skipped", why_not
            else:
                with self.target.connect() as connection:
                    connection.autocommit = True
                    EntitySync(self, entity, client, connection, result).run()
        except (AccessLost, Blocked) as reason:
            self.stop = reason
            result.state, result.reason = "failed", str(reason)
        except psycopg.Error as reason:
            result.state, result.reason = "failed", f"Postgres: {_one_line(reason)}"
        except (AmoError, FilterIgnored) as reason:
            result.state, result.reason = "failed", _one_line(reason)
        if result.state == "failed":
            result.watermark = None
        result.requests, result.seconds = client.requests, time.monotonic() - began
        self._closed(row, result)
        self.progress.finished(result)
        return result

    def _opened(self, entity: Entity) -> int | None:
        with self.target.connect() as connection:
            row = connection.execute("INSERT INTO mirror.sync_runs (run_id, account, entity, state) VALUES (%s, %s, %s, 'running') RETURNING id",
                                     [self.run_id, self.target.name, entity.name]).fetchone()
        return row[0] if row else None

    def _closed(self, row: int | None, result: Result) -> None:
        counts = result.counts
        at = datetime.datetime.fromtimestamp(result.watermark, datetime.UTC) if result.watermark else None
        try:
            with self.target.connect() as connection:
                connection.execute(
                    "UPDATE mirror.sync_runs SET state = %s, mode = %s, reason = %s, finished_at = now(), seen = %s, inserted = %s, updated = %s, "
                    "deleted = %s, quarantined = %s, requests = %s, seconds = %s, watermark = %s WHERE id = %s",
                    [result.state, result.mode or None, result.reason or None, counts.seen, counts.inserted, counts.updated, counts.deleted,
                     counts.quarantined, result.requests, round(result.seconds, 3), at, row])
        except psycopg.Error as reason:
            result.state, result.reason = "failed", result.reason or _one_line(reason)


class EntitySync:
    """One entity of one run."""

    def __init__(self, run: Run, entity: Entity, client: Counted, connection: Connection, result: Result) -> None:
        self.run_, self.entity, self.client, self.connection, self.result = run, entity, client, connection, result

    def run(self) -> None:
        tune(self.connection)
        first = self.entity.listings[0]
        normal = normalizer(self.entity, (*first.fixed, *([first.over.fixed_as] if first.over else [])))
        self.landing = Landing(self.connection, self.run_.target.schema, self.run_.target.name, normal)
        self.normal: Normalizer = normal
        skipped, read = [], 0
        for listing in self.entity.listings:
            for concrete in self.concrete(listing):
                try:
                    self.listing(concrete)
                    read += 1
                except NotOffered as reason:
                    if reason.status == 404 and listing.whole:
                        self._tombstone(concrete.fixed, concrete.path)
                    else:
                        skipped.append(f"{concrete.path}: {reason.reason}")
            if listing.over and not listing.over.sql:
                self._tombstone({}, listing.path, orphans_of=listing.over)
        if skipped:
            self.result.reason = "; ".join([self.result.reason, *skipped] if self.result.reason else skipped)
            if not read:
                self.result.state = "skipped"

    def concrete(self, listing: Listing) -> list[Listing]:
        """The listing itself, or one for each living row of the table that it goes over."""
        over = listing.over
        if over is None:
            return [listing]
        schema = Identifier(self.run_.target.schema)
        statement = SQL(over.sql).format(schema=schema) if over.sql else SQL("SELECT {} FROM {}.{} WHERE _deleted_at IS NULL ORDER BY 1").format(
            Identifier(over.column), schema, Identifier(str(over.model.__tablename__)))
        rows = self.connection.execute(statement).fetchall()
        return [replace(listing, path=listing.path.format(value), fixed={**listing.fixed, over.fixed_as: value}, over=None) for value, in rows]

    def listing(self, listing: Listing) -> None:
        host = self.run_.facts.get(listing.host)
        source = Source(self.client, self.entity, listing, f"{host}{DRIVE_PATH}" if host else "")
        if self.entity.moving is None:
            self.snapshot(source)
            return
        position = {} if self.run_.full else self._position(listing)
        if "watermark" not in position:
            self.result.mode = "sweep"
            position = self.land(listing, sweep(source, position)) or position
        else:
            filtered = bool(self.run_.facts.get("is_api_filter_enabled", True))
            self.result.mode = "window" if filtered or not self.entity.moving.paid else "newest first"
            position = self.land(listing, changes(source, self.entity.moving, position, filtered)) or position
        self.result.watermark = position.get("watermark")

    def _position(self, listing: Listing) -> Position:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute("SELECT position FROM mirror.cursors WHERE account = %s AND entity = %s AND listing = %s",
                                 [self.run_.target.name, self.entity.name, listing.path]).fetchone()
        return dict(row["position"]) if row else {}

    def land(self, listing: Listing, steps: Iterator[Step], keep_seen: bool = False) -> Position | None:
        """Normalizes and lands every step, a batch at a time; returns the last position. While Postgres works on one batch, the next
        one is read."""
        batch, position, last = Batch(), None, None
        with ThreadPoolExecutor(1, f"{self.entity.name}-land") as lander:
            landing: Future[None] | None = None
            for step in steps:
                if self.run_.stop:
                    raise self.run_.stop
                records = [inner for record in step.page.records for inner in listing.each(record)] if listing.each else step.page.records
                found = self.normal.found(records, listing.fixed, self.run_.zone)
                batch.add(found, step.page.started, step.page.request)
                batch.replaced_characters += step.page.replaced
                position = step.position or position
                if batch.pages >= PAGES_A_BATCH or batch.size >= ROWS_A_BATCH:
                    if landing:
                        landing.result()
                    landing = lander.submit(self._land, batch, position, listing, keep_seen, step.total)
                    batch, last, position = Batch(), position or last, None
            if landing:
                landing.result()
        self._land(batch, position, listing, keep_seen, None)
        return position or last

    def _land(self, batch: Batch, position: Position | None, listing: Listing, keep_seen: bool, total: int | None) -> None:
        self.result.counts += self.landing.land(batch, position, listing.path, keep_seen)
        self.run_.progress.advanced(self.entity.name, self.result.counts.seen, total)

    def snapshot(self, source: Source) -> None:
        """The whole list. Rows that it lacks are deleted when a second complete read lacks them too (design.md 3)."""
        self.result.mode, fixed = "snapshot", source.listing.fixed
        started = int(time.time())
        self.landing.forget_seen()
        self.land(source.listing, snapshot(source), keep_seen=True)
        if self.landing.absent(fixed):
            self.land(source.listing, snapshot(source), keep_seen=True)
            self._tombstone(fixed, source.listing.path)
        self.result.watermark = started

    def _tombstone(self, fixed: Mapping[str, Any], path: str, orphans_of: Over | None = None) -> None:
        absent, living = self.landing.absent(fixed, orphans_of), self.landing.living(fixed)
        many = (absent > GUARD_ROWS and absent > GUARD_SHARE * living) or absent == living
        if absent and many and not (self.entity.may_empty or self.run_.allow_mass_delete):
            self.result.state = "incomplete"
            self.result.reason = (f"{path}: {absent} of {living} rows are no longer in amoCRM's list, which is too many to believe. They are "
                                  "kept. If they are really deleted, run the sync with --allow-mass-delete")
        elif absent:
            self.result.counts += self.landing.tombstone_absent(fixed, orphans_of)


def _one_line(reason: BaseException) -> str:
    return " ".join(str(reason).split())


def row_counts(connection: Connection, schema: str) -> dict[str, int]:
    """Live rows per entity's table."""
    counts = {}
    for entity in ENTITIES:
        row = connection.execute(SQL("SELECT count(*) FROM {} WHERE _deleted_at IS NULL").format(Identifier(schema, entity.name))).fetchone()
        counts[entity.name] = row[0] if row else 0
    return counts
