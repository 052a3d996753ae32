"""Continuous sync: reads the records that webhooks name within a second or so, whether or not a sync is
running.

One pass (`process_once`) turns received deliveries into hints, re-reads the records that hints name, loads
and commits them. It may run while a sync runs (of two readings of a record the later one wins), but leaves to
the sync what only one process may do at a time: the suspects of its sweep, and lists that are read
completely. Both take their requests from the same rate limiter; a pass needs few.
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
from pipelines.accounts.state import recording_refusals
from pipelines.accounts.target import Connection, Target
from pipelines.amocrm.client import CountingClient, RetryPolicy
from pipelines.amocrm.errors import AccessRevokedError, AmoError, BlockedError, NoRightsError, NotOfferedError
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from pipelines.errors import SyncRefusedError
from pipelines.history import rebuild
from pipelines.load.hints import HintFilter, count_hints, delete_webhook_hints, listings_with_hints
from pipelines.postgres.errors import describe_postgres_error, one_line
from pipelines.postgres.locks import continuous_sync_lock, continuous_worker_lock, full_scan_lock
from pipelines.sync.context import EntityResult, NoProgress, SyncContext, tell_time
from pipelines.sync.exclusive import current_fence
from pipelines.sync.hint_sync import HintSync
from pipelines.sync.preflight import preflight
from pipelines.webhooks.inbox import DELIVERY_CHANNEL, enqueue_hints, mark_processed

POLL_SECONDS = 5.0
"""Seconds between two looks at the inbox when no notification arrives."""
MAX_HINTS_PER_PASS, MAX_HINTS_PER_PASS_UNFILTERED = 500, 20
"""Records of one entity per pass, with and without a filter by id: the longest wait of hints that arrive
meanwhile."""
HISTORY_DELAY_SECONDS = 5.0
"""Seconds from the first loaded change until history is updated."""
KEPT_CONNECTIONS_PER_ENTITY = 3
"""Connections kept open between two passes, for each entity that is processed in parallel: few where Postgres
allows few."""
MAX_PAUSE_SECONDS = 60.0
"""Longest pause after an error, in seconds."""
FEW_RETRIES = RetryPolicy(max_tries=3, max_throttled=3, first_delay=0.5, max_delay=10.0, read_timeout=20.0,
                          payment_patience=0.0)
"""Few retries: the continuous sync soon tries again by itself."""
log = logging.getLogger(__name__)


class ContinuousSync:
    """The loop of one account. `make_target` builds the account's target, and a new one after access was
    lost."""

    def __init__(self, account: str, make_target: Callable[[], Target],
                 connect: Callable[[], Connection]) -> None:
        self.account, self.make_target, self.connect = account, make_target, connect
        self.stop = threading.Event()
        self.target: Target | None = None
        self.connections: dict[str, Connection] = {}
        self.history_due_since: float | None = None
        """time.monotonic() of the first loaded change that history does not contain yet; None: there is
        none."""
        self.failures = 0

    # The loop

    def run(self) -> None:
        """Runs until `stop` is set. Logs every error, pauses and tries again."""
        while not self.stop.is_set():
            try:
                with self._listening_connection() as listener:
                    if listener is not None:
                        self._process_until_stopped(listener)
                self.stop.wait(POLL_SECONDS)
            except (AccessRevokedError, BlockedError, SyncRefusedError) as reason:
                self.target = None
                self._pause(reason, MAX_PAUSE_SECONDS)
            except psycopg.Error as reason:
                self._pause(describe_postgres_error(reason), 1.0)
            except AmoError as reason:
                self._pause(one_line(reason), 1.0)
            except Exception:
                log.exception("%s: a fault of amocrm-mirror's; please report it", self.account)
                self.stop.wait(MAX_PAUSE_SECONDS)
            finally:
                self.close()

    def _process_until_stopped(self, listener: Connection) -> None:
        while not self.stop.is_set():
            has_more = self.process_once()
            self.failures = 0
            if not has_more:
                self._update_history(self.history_due_since is not None
                                     and time.monotonic() - self.history_due_since >= HISTORY_DELAY_SECONDS)
                for _ in listener.notifies(timeout=HISTORY_DELAY_SECONDS if self.history_due_since
                                           else POLL_SECONDS, stop_after=1):
                    break

    def _pause(self, reason: object, first_pause: float) -> None:
        self.failures += 1
        seconds = min(MAX_PAUSE_SECONDS, first_pause * 2 ** min(self.failures - 1, 10))
        log.warning("%s: %s; again in %.0f s", self.account, reason, seconds)
        self.stop.wait(seconds)

    @contextmanager
    def _listening_connection(self) -> Iterator[Connection | None]:
        """Yields a connection that listens for deliveries; None while another process syncs this account
        continuously."""
        with self.connect() as connection:
            connection.autocommit = True
            with continuous_worker_lock(self.account).try_hold(connection) as alone:
                if alone:
                    connection.execute(f"LISTEN {DELIVERY_CHANNEL}".encode())
                yield connection if alone else None

    def close(self) -> None:
        for connection in self.connections.values():
            with suppress(psycopg.Error):
                connection.close()
        self.connections.clear()

    # One pass

    def process_once(self) -> bool:
        """Processes everything that is due, once. Returns True if more can be done at once."""
        connection = self._connection("")
        with (continuous_sync_lock(self.account).try_hold(connection, shared=True) as admitted,
              self._full_scan_lock(connection) as idle):
            if not admitted:
                return False
            tell_time(connection, self.target.client if self.target else None)
            absorbed = enqueue_hints(connection, self.account)
            hint_filter = HintFilter(suspects=False, unhooked=idle)
            before = count_hints(connection, self.account, hint_filter)
            if before:
                self._process_hints(connection, hint_filter, idle)
            mark_processed(connection, self.account)
            after = count_hints(connection, self.account, hint_filter)
        return absorbed > 0 or 0 < after < before

    def _full_scan_lock(self, connection: Connection) -> AbstractContextManager[bool]:
        """Yields True if no sync is running; then none can begin before the context ends."""
        return full_scan_lock(self.account).try_hold(connection)

    def _process_hints(self, connection: Connection, hint_filter: HintFilter, idle: bool) -> None:
        self.target = self.target or self.make_target()
        context = SyncContext(self.target, NoProgress(),
                              fence=current_fence(connection, self.account) if idle else None)
        preflight(context, False)
        paths = listings_with_hints(connection, self.account, hint_filter)
        hinted = [entity for entity in ENTITIES
                  if paths & {each.path for each in entity.listings} and (idle or entity.is_readable_by_id)]
        missing = [entity for entity in hinted if entity.unavailable_because(context.account_info)]
        self._delete_hints(connection, missing)
        hinted = [entity for entity in hinted if entity not in missing]
        failures: list[Exception] = []
        with ThreadPoolExecutor(max(1, min(self.target.concurrency, len(hinted))), "drain") as pool:
            for failure in pool.map(lambda entity: self._process_entity(context, entity, paths, hint_filter),
                                    hinted):
                failures += [failure] if failure else []
        if failures:
            raise failures[0]

    def _process_entity(self, context: SyncContext, entity: Entity, paths: set[str],
                        hint_filter: HintFilter) -> Exception | None:
        """Processes the hints of one entity; returns its error, so that the other entities go on."""
        connection, result = self._connection(entity.name), EntityResult(entity.name)
        try:
            with recording_refusals(context.target.connect, self.account):
                client = CountingClient(context.target.client)
                hint_sync = HintSync(context, entity, client, connection, result)
                max_hints = (MAX_HINTS_PER_PASS if hint_sync.reader.has_filter
                             else MAX_HINTS_PER_PASS_UNFILTERED)
                hint_sync.process(paths, HintFilter(max_hints, hint_filter.suspects, hint_filter.unhooked))
        except (NoRightsError, NotOfferedError) as reason:
            log.warning("%s: %s", self.account, one_line(reason))
            self._delete_hints(connection, [entity])
        except Exception as reason:
            return reason
        finally:
            if len(self.connections) > KEPT_CONNECTIONS_PER_ENTITY * context.target.concurrency - 1:
                self.connections.pop(entity.name).close()
        if result.counts.changed:
            self.history_due_since = self.history_due_since or time.monotonic()
        return None

    def _delete_hints(self, connection: Connection, entities: Sequence[Entity]) -> None:
        """Deletes hints for lists that the account does not have, or that the token may not read."""
        delete_webhook_hints(connection, self.account,
                             [listing.path for entity in entities for listing in entity.listings])

    def _update_history(self, due: bool) -> None:
        """Updates history and erasures from the loaded rows, if `due`. While a sync runs, leaves that to its
        end."""
        connection = self._connection("")
        with self._full_scan_lock(connection) as idle:
            if due and idle and self.target:
                rebuild.advance(connection, self.target.schema, self.account)
                erasure.erase_late_rows(connection, self.target.schema, self.account)
            self.history_due_since = None if due else self.history_due_since

    def _connection(self, name: str) -> Connection:
        """Returns the connection of one entity, which keeps its stages; the empty name is the loop's own."""
        connection = self.connections.get(name)
        if connection is None or connection.closed:
            connection = self.connections[name] = self.connect()
            connection.autocommit = True
        return connection
