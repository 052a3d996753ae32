"""hints → rows, all the time: what webhooks tell of is read again within a second or so, whether or not a sync is running.

A turn queues what has been delivered, reads again what is queued, and commits it. It goes beside a running sync (of two readings the later one
wins), but leaves to that what only one may do at a time: suspicions of its sweep, and lists that are read whole. Both take their requests
from the same budget, of which a turn needs little.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress

import psycopg

from pipelines import erasure
from pipelines.accounts.state import refusals_marked
from pipelines.accounts.target import Connection, Target
from pipelines.amocrm.client import Counted, Patience
from pipelines.amocrm.errors import AccessLost, AmoError, Blocked, NotOffered
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from pipelines.errors import SyncRefused
from pipelines.history import rebuild
from pipelines.load.hints import Choice, waiting
from pipelines.postgres.errors import of_postgres, one_line
from pipelines.postgres.locks import holding, turn_of, whole_lists
from pipelines.sync.context import Result, Scene, Silent
from pipelines.sync.hint_sync import Heeding
from pipelines.sync.preflight import learn
from pipelines.webhooks.inbox import ARRIVED, absorb, settle

POLL = 5.0
"""Seconds until it looks by itself, where no notification wakes it."""
MOST, MOST_UNFILTERED = 500, 20
"""Records of an entity in one turn: what comes meanwhile waits no longer than that."""
HISTORY = 5.0
LONGEST = 60.0
BRIEF = Patience(tries=3, throttled=3, first=0.5, longest=10.0, read=20.0)
"""The drain asks again soon enough by itself."""
log = logging.getLogger(__name__)


class Drain:
    """One account's loop. `reach` makes its target, anew where access was lost."""

    def __init__(self, account: str, reach: Callable[[], Target], connect: Callable[[], Connection]) -> None:
        self.account, self.reach, self.connect = account, reach, connect
        self.stop = threading.Event()
        self.target: Target | None = None
        self.connections: dict[str, Connection] = {}
        self.due_since: float | None = None
        """When rows landed that history does not know yet."""
        self.failures = 0

    # The loop

    def run(self) -> None:
        """Until `stop` is set. Whatever goes wrong is told, and tried again."""
        while not self.stop.is_set():
            try:
                with self._listening() as listener:
                    if listener is not None:
                        self._turns(listener)
                self.stop.wait(POLL)
            except (AccessLost, Blocked, SyncRefused) as reason:
                self.target = None
                self._pause(reason, LONGEST)
            except psycopg.Error as reason:
                self._pause(of_postgres(reason), 1.0)
            except AmoError as reason:
                self._pause(one_line(reason), 1.0)
            except Exception:
                log.exception("%s: a fault of amocrm-mirror's; please report it", self.account)
                self.stop.wait(LONGEST)
            finally:
                self.close()

    def _turns(self, listener: Connection) -> None:
        while not self.stop.is_set():
            gets_on = self.turn()
            self.failures = 0
            if not gets_on:
                self._catch_up(self.due_since is not None and time.monotonic() - self.due_since >= HISTORY)
                for _ in listener.notifies(timeout=HISTORY if self.due_since else POLL, stop_after=1):
                    break

    def _pause(self, reason: object, least: float) -> None:
        self.failures += 1
        seconds = min(LONGEST, least * 2 ** min(self.failures - 1, 10))
        log.warning("%s: %s; again in %.0f s", self.account, reason, seconds)
        self.stop.wait(seconds)

    @contextmanager
    def _listening(self) -> Iterator[Connection | None]:
        """A connection that is woken by deliveries; None while another process drains this account."""
        with self.connect() as connection:
            connection.autocommit = True
            with holding(connection, f"amocrm-mirror drain {self.account}") as alone:
                if alone:
                    connection.execute(f"LISTEN {ARRIVED}".encode())
                yield connection if alone else None

    def close(self) -> None:
        for connection in self.connections.values():
            with suppress(psycopg.Error):
                connection.close()
        self.connections.clear()

    # One turn

    def turn(self) -> bool:
        """Everything that is due, once. Whether there is more to do at once."""
        connection = self._connection("")
        with holding(connection, turn_of(self.account), shared=True) as admitted, self._idle(connection) as idle:
            if not admitted:
                return False
            absorbed = absorb(connection, self.account)
            choice = Choice(suspects=False, unhooked=idle)
            before = _count(connection, self.account, choice)
            if before:
                self._heed(connection, choice, idle)
            settle(connection, self.account)
            after = _count(connection, self.account, choice)
        return absorbed > 0 or 0 < after < before

    def _idle(self, connection: Connection) -> AbstractContextManager[bool]:
        """Whether no sync is running; none begins before the turn is over."""
        return holding(connection, whole_lists(self.account))

    def _heed(self, connection: Connection, choice: Choice, idle: bool) -> None:
        self.target = self.target or self.reach()
        scene = Scene(self.target, Silent())
        learn(scene, False)
        paths = waiting(connection, self.account, choice)
        hinted = [entity for entity in ENTITIES if paths & {each.path for each in entity.listings} and (idle or entity.by_id)]
        self._drop(connection, [entity for entity in hinted if entity.unless and entity.unless(scene.facts)])
        hinted = [entity for entity in hinted if not (entity.unless and entity.unless(scene.facts))]
        failures: list[Exception] = []
        with ThreadPoolExecutor(max(1, min(self.target.concurrency, len(hinted))), "drain") as pool:
            for failure in pool.map(lambda entity: self._entity(scene, entity, paths, choice), hinted):
                failures += [failure] if failure else []
        if failures:
            raise failures[0]

    def _entity(self, scene: Scene, entity: Entity, paths: set[str], choice: Choice) -> Exception | None:
        """What is queued for one entity; the others go on whatever happens to it."""
        connection, result = self._connection(entity.name), Result(entity.name)
        heeding = Heeding(scene, entity, Counted(scene.target.client), connection, result)
        most = MOST if heeding.filtered else MOST_UNFILTERED
        try:
            with refusals_marked(scene.target.connect, self.account):
                heeding.heed(paths, Choice(most, choice.suspects, choice.unhooked))
        except NotOffered as reason:
            log.warning("%s: %s", self.account, one_line(reason))
            self._drop(connection, [entity])
        except Exception as reason:
            return reason
        if result.counts.changed:
            self.due_since = self.due_since or time.monotonic()
        return None

    def _drop(self, connection: Connection, entities: Sequence[Entity]) -> None:
        """Hints for lists that the account does not have, or does not show."""
        paths = [listing.path for entity in entities for listing in entity.listings]
        if paths:
            connection.execute("DELETE FROM mirror.hints WHERE account = %s AND listing = ANY(%s) AND hooked_at IS NOT NULL", [self.account, paths])

    def _catch_up(self, due: bool) -> None:
        """What is derived of rows follows them after a few seconds; while a sync runs, it follows at the sync's end."""
        connection = self._connection("")
        with self._idle(connection) as idle:
            if due and idle and self.target:
                rebuild.advance(connection, self.target.schema, self.account)
                erasure.settle(connection, self.target.schema, self.account)
            self.due_since = None if due else self.due_since

    def _connection(self, name: str) -> Connection:
        """One for each entity, which keeps its stages; the connection of no name is the loop's own."""
        known = self.connections.get(name)
        if known is None or known.closed:
            known = self.connections[name] = self.connect()
            known.autocommit = True
        return known


def _count(connection: Connection, account: str, choice: Choice) -> int:
    row = connection.execute(psycopg.sql.SQL("SELECT count(*) FROM mirror.hints WHERE account = %(account)s") + choice.where,
                             {"account": account, **vars(choice)}).fetchone()
    return int(row[0]) if row else 0
