"""One account's sync: which entities, in what order, with what concurrency. Progress is reported from here.

First the account (its time zone and options rule the rest), then the directories, then the lists that move. Each entity is read and
landed by a thread of its own; the rate budget is shared. What one entity cannot do does not stop the others, except a block or a dead token.
"""

from __future__ import annotations

import datetime
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines.amocrm.client import Counted
from pipelines.amocrm.errors import AccessLost, AmoError, Blocked, OutOfReach
from pipelines.amocrm.pages import page
from pipelines.declare import Entity
from pipelines.entities import ACCOUNT_WITH, ENTITIES
from pipelines.entity_sync import Connection, EntitySync, Progress, Result, Scene, Silent, Target
from pipelines.extract import FilterIgnored
from pipelines.memory import frugal

__all__ = ["Progress", "Report", "Result", "Silent", "SyncRefused", "Target", "WrongUse", "phases", "row_counts", "selected", "sync"]

LAST_WORDS = 2.0
log = logging.getLogger(__name__)


class SyncRefused(Exception):
    """The sync did not start; the message says why, and the cure."""


class WrongUse(SyncRefused):
    """It was asked for something that there is not, or without a setting that it needs."""


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
    with _alone(target), frugal():
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


class Run:
    """One run: what it knows of the account, and how it reads and lands one entity."""

    def __init__(self, scene: Scene, run_id: str) -> None:
        self.scene, self.target, self.run_id = scene, scene.target, run_id

    def learn(self) -> None:
        """The account's record as mirrored so far, or asked for now: its id must be the one that the schema holds."""
        facts = page(self.target.client, "account", [("with", ",".join(ACCOUNT_WITH))], "", whole=True).records[0]
        self._claim(facts.get("id"), facts.get("name"))
        self.scene.facts = facts
        settings = (facts.get("_embedded") or {}).get("datetime_settings") or {}
        try:
            self.scene.zone = ZoneInfo(settings.get("timezone") or "UTC")
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
            self.scene.stop = self.scene.stop or AmoError("interrupted; what had landed is kept, and the next sync resumes there")
            pool.shutdown(wait=False, cancel_futures=True)
            wait([each for each in pending if not each.cancelled()], LAST_WORDS)
            raise
        pool.shutdown()
        return results

    def entity(self, entity: Entity) -> Result:
        """Reads and lands one entity; whatever happens becomes its result."""
        client = Counted(self.target.client)
        result, began = Result(entity.name), time.monotonic()
        self.scene.progress.started(entity.name)
        row = self._opened(entity)
        try:
            self._read(entity, client, result)
        except (AccessLost, Blocked) as reason:
            self.scene.stop = reason
            result.state, result.reason = "failed", str(reason)
        except OutOfReach as reason:
            result.state, result.reason = "incomplete", _one_line(reason)
        except psycopg.Error as reason:
            result.state, result.reason = "failed", f"Postgres: {_one_line(reason)}"
        except (AmoError, FilterIgnored) as reason:
            result.state, result.reason = "failed", _one_line(reason)
        except Exception as reason:
            log.exception("%s failed", entity.name)
            result.state = "failed"
            result.reason = f"{type(reason).__name__}: {_one_line(reason)}. This is a fault of amocrm-mirror's: please report it"
        if result.state in ("failed", "incomplete"):
            result.watermark = None
        result.requests, result.seconds = client.requests, time.monotonic() - began
        self._closed(row, result)
        self.scene.progress.finished(result)
        return result

    def _read(self, entity: Entity, client: Counted, result: Result) -> None:
        if self.scene.stop:
            raise self.scene.stop
        why_not = entity.unless(self.scene.facts) if entity.unless else ""
        if why_not:
            result.state, result.reason = "skipped", why_not
            return
        with self.target.connect() as connection:
            connection.autocommit = True
            EntitySync(self.scene, entity, client, connection, result).run()

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


def _one_line(reason: BaseException) -> str:
    return " ".join(str(reason).split())


def row_counts(connection: Connection, schema: str) -> dict[str, int]:
    """Live rows per entity's table."""
    counts = {}
    for entity in ENTITIES:
        row = connection.execute(SQL("SELECT count(*) FROM {} WHERE _deleted_at IS NULL").format(Identifier(schema, entity.name))).fetchone()
        counts[entity.name] = row[0] if row else 0
    return counts
