"""Continuous sync: reads the records that webhooks name within a second or so, whether or not a sync is
running.

One pass (`process_once`) turns received deliveries into hints, re-reads the records that hints name, loads
and commits them. It may run while a sync runs (of two readings of a record the later one wins), but leaves to
the sync what only one process may do at a time: the suspects of its sweep, and lists that are read
completely. Both take their requests from the same rate limiter; a pass needs few.

A pass is short, so that others get their turn: it takes some hints of each list, those of the shortest queues
first, and stops when something newer waits. Ids that amoCRM does not show are asked for one by one, a few at
once; if there are more, they wait until nothing else does (`Misses`). The passes of all accounts are run by
`orchestration/continuous_workers.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

import psycopg
from sqlalchemy.exc import DBAPIError

from pipelines import erasure
from pipelines.accounts.state import recording_refusals
from pipelines.accounts.target import Connection, Target
from pipelines.amocrm.client import CountingClient, RetryPolicy
from pipelines.amocrm.errors import AccessRevokedError, AmoError, BlockedError, NoRightsError, NotOfferedError
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from pipelines.errors import MirrorError
from pipelines.history import rebuild
from pipelines.load.hints import HintFilter, Misses, count_by_listing, delete_webhook_hints
from pipelines.migrate import MigrationError, heads, revisions
from pipelines.postgres.errors import describe_postgres_error, one_line, with_full_stop
from pipelines.postgres.locks import continuous_sync_lock, continuous_worker_lock, full_scan_lock
from pipelines.sync.context import EntityResult, NoProgress, SyncContext, tell_time
from pipelines.sync.exclusive import current_fence
from pipelines.sync.hint_sync import HintSync
from pipelines.sync.preflight import preflight
from pipelines.webhooks.inbox import enqueue_hints, mark_processed

MAX_HINTS_PER_PASS, MAX_HINTS_PER_PASS_UNFILTERED = 500, 20
"""Records of one entity per pass, with and without a filter by id: the longest wait of hints that arrive
meanwhile."""
LISTS_AT_ONCE = 2
"""Entities that are processed in parallel."""
CONNECTIONS_PER_PASS = 3 + 2 * LISTS_AT_ONCE
"""Connections to Postgres of one pass, at most: its own, two rate limiters'; of each entity one that loads
and one that looks up a token or records a refusal."""
UNINTERRUPTED_SECONDS = 0.5
"""Seconds that a pass goes on even if something newer waits."""
MISSES_PER_PASS, MISSES_PER_SECOND = 5, 3.0
"""GETs by id for the misses of one account: half of amoCRM's rate."""
HISTORY_DELAY_SECONDS = 5.0
"""Seconds from the first loaded change until history is updated."""
MAX_PAUSE_SECONDS = 60.0
"""Longest pause after an error, in seconds."""
NO_FILTER_SECONDS = 3600.0
"""Seconds for which a list that ignored its filter is read one by one. As long as the account's record, which
says whether the account has the filter option, is remembered."""
FEW_RETRIES = RetryPolicy(max_tries=3, max_throttled=3, first_delay=0.5, max_delay=10.0, read_timeout=20.0,
                          payment_patience=0.0)
"""Few retries: the continuous sync soon tries again by itself."""
log = logging.getLogger(__name__)


class ContinuousSync:
    """The continuous sync of one account, pass by pass. `make_target` builds the account's target, and a new
    one after access was lost, or after another program has migrated the tables; `is_urgent` is true when the
    account has got newer hints. `own_revisions`: those of this process's program."""

    def __init__(self, account: str, make_target: Callable[[], Target], connect: Callable[[], Connection],
                 is_urgent: Callable[[], bool] = lambda: False,
                 own_revisions: Mapping[str, str | None] | None = None) -> None:
        self.account, self.make_target, self.connect = account, make_target, connect
        self.is_urgent, self.own_revisions = is_urgent, own_revisions or heads()
        self.target: Target | None = None
        self.connections: dict[str, Connection] = {}
        self.misses = Misses()
        self.unfiltered_until: dict[str, float] = {}
        """Entities whose list ignored its filter → time.monotonic() until which that is believed."""
        self.misses_due_at = 0.0
        """time.monotonic() from which the next misses may be asked for."""
        self.history_due_at: float | None = None
        """time.monotonic() from which loaded changes are due in history; None: there are none."""
        self.failures = 0
        """Passes that failed in a row."""
        self.said = ""
        """Why the tables were left alone in the last pass; empty if they were not."""

    def run_pass(self) -> float | None:
        """Does what is due, and logs errors. Returns the seconds until more is due; None: when hints come."""
        try:
            self._follow_migrations()
            has_more = self.process_once()
            if not has_more and self.history_due_at is not None and time.monotonic() >= self.history_due_at:
                self.update_history()
            self.failures, self.said = 0, ""
            return 0.0 if has_more else self._due_in()
        except MigrationError as reason:
            self.drop_target()
            return self._leave_alone(with_full_stop(one_line(reason)))
        except (AccessRevokedError, BlockedError, MirrorError) as reason:
            self.drop_target()
            return self._pause(reason, MAX_PAUSE_SECONDS)
        except (psycopg.Error, DBAPIError) as reason:
            return self._pause(describe_postgres_error(reason), 1.0)
        except AmoError as reason:
            return self._pause(one_line(reason), 1.0)
        except Exception:
            log.exception("%s: a fault of amocrm-mirror's; please report it", self.account)
            self.failures += 1
            return MAX_PAUSE_SECONDS
        finally:
            self.close()

    def _follow_migrations(self) -> None:
        """Begins anew with tables that another program has migrated since. Raises MigrationError if they are
        a newer program's. Tables that are not there yet are made when there is something to write."""
        found = revisions(self._connection(""), self.account)
        if any(found[target] not in (None, mine) for target, mine in self.own_revisions.items()):
            self.drop_target()
            self.target = self.make_target()

    def _leave_alone(self, reason: str) -> float:
        """Says why nothing is written: once, not at every pass, while the reason stays the same."""
        self.failures += 1
        if reason != self.said:
            log.warning("%s: %s Its deliveries are kept, and looked at again in %.0f s",
                        self.account, reason, MAX_PAUSE_SECONDS)
        self.said = reason
        return MAX_PAUSE_SECONDS

    def _due_in(self) -> float | None:
        moments = [self.misses_due_at] if self.misses.versions else []
        moments += [self.history_due_at] if self.history_due_at is not None else []
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _pause(self, reason: object, first_pause: float) -> float:
        self.failures += 1
        seconds = min(MAX_PAUSE_SECONDS, first_pause * 2.0 ** min(self.failures - 1, 10))
        log.warning("%s: %s; again in %.0f s", self.account, reason, seconds)
        return seconds

    def close(self) -> None:
        """Closes the connections. The next pass opens others."""
        for connection in self.connections.values():
            with suppress(psycopg.Error):
                connection.close()
        self.connections.clear()

    def drop_target(self) -> None:
        """Closes the client. The next pass that needs one makes another."""
        self.close()
        if self.target:
            self.target.client.close()
        self.target = None

    # One pass

    def process_once(self) -> bool:
        """Processes some of what is due. Returns True if more can be done at once. Does nothing while another
        process syncs the account continuously, or an erasure waits."""
        connection = self._connection("")
        with (continuous_worker_lock(self.account).try_hold(connection) as alone,
              continuous_sync_lock(self.account).try_hold(connection, shared=True) as admitted,
              self._full_scan_lock(connection) as idle):
            return alone and admitted and self._process_queue(connection, idle)

    def _full_scan_lock(self, connection: Connection) -> AbstractContextManager[bool]:
        """Yields True if no sync is running; then none can begin before the context ends."""
        return full_scan_lock(self.account).try_hold(connection)

    def _process_queue(self, connection: Connection, idle: bool) -> bool:
        tell_time(connection, self.target.client if self.target else None)
        absorbed = enqueue_hints(connection, self.account)
        choice = HintFilter(suspects=False, unhooked=idle, misses=self.misses.first())
        counts = count_by_listing(connection, self.account, choice)
        if counts:
            self._process_hints(connection, choice, counts, idle)
        elif self.misses.versions and time.monotonic() >= self.misses_due_at:
            self._confirm_misses(connection, idle)
        mark_processed(connection, self.account)
        before, after = sum(counts.values()), sum(count_by_listing(
            connection, self.account, replace(choice, misses=self.misses.first())).values())
        return absorbed > 0 or 0 < after < before

    def _confirm_misses(self, connection: Connection, idle: bool) -> None:
        """Asks for a few of the misses by id. One that is still queued then is a hint like any other."""
        self.misses_due_at = time.monotonic() + MISSES_PER_PASS / MISSES_PER_SECOND
        chosen = self.misses.first(MISSES_PER_PASS)
        choice = HintFilter(suspects=False, misses=chosen, only_misses=True)
        counts = count_by_listing(connection, self.account, choice)
        if counts:
            self._process_hints(connection, choice, counts, idle)
        if not self.is_urgent():
            for each in chosen.versions:
                self.misses.versions.pop(each, None)

    def _process_hints(self, connection: Connection, choice: HintFilter, counts: Mapping[str, int],
                       idle: bool) -> None:
        """Processes the hints of the lists in `counts` (path → number of hints), the shortest queue first."""
        self.target, began = self.target or self.make_target(), time.monotonic()
        context = SyncContext(
            self.target, NoProgress(), fence=current_fence(connection, self.account) if idle else None,
            misses=self.misses, is_interrupted=lambda: (
                time.monotonic() - began > UNINTERRUPTED_SECONDS and self.is_urgent()))
        preflight(context, False)
        queues = {entity.name: sum(counts.get(each.path, 0) for each in entity.listings)
                  for entity in ENTITIES}
        hinted = sorted((entity for entity in ENTITIES
                         if queues[entity.name] and (idle or entity.is_readable_by_id)),
                        key=lambda entity: queues[entity.name])
        missing = [entity for entity in hinted if entity.unavailable_because(context.account_info)]
        self._delete_hints(connection, missing)
        hinted = [entity for entity in hinted if entity not in missing]
        failures: list[Exception] = []
        at_once = min(LISTS_AT_ONCE, self.target.concurrency, len(hinted))
        with ThreadPoolExecutor(max(1, at_once), "drain") as pool:
            for failure in pool.map(lambda entity: self._process_entity(context, entity, set(counts), choice),
                                    hinted):
                failures += [failure] if failure else []
        if failures:
            raise failures[0]

    def _process_entity(self, context: SyncContext, entity: Entity, paths: set[str],
                        choice: HintFilter) -> Exception | None:
        """Processes the hints of one entity; returns its error, so that the other entities go on."""
        result = EntityResult(entity.name)
        try:
            with recording_refusals(context.target.connect, self.account):
                hint_sync = HintSync(
                    context, entity, CountingClient(context.target.client), self._connection(entity.name),
                    result, may_filter=time.monotonic() >= self.unfiltered_until.get(entity.name, 0.0))
                max_hints = MAX_HINTS_PER_PASS if hint_sync.has_filter else MAX_HINTS_PER_PASS_UNFILTERED
                hint_sync.process(paths, replace(choice, most=max_hints))
                if hint_sync.is_filter_ignored:
                    self.unfiltered_until[entity.name] = time.monotonic() + NO_FILTER_SECONDS
        except (NoRightsError, NotOfferedError) as reason:
            log.warning("%s: %s", self.account, one_line(reason))
            self._delete_hints(self._connection(entity.name), [entity])
        except Exception as reason:
            return reason
        finally:
            if entity.name in self.connections:
                self.connections.pop(entity.name).close()
        if result.counts.changed and self.history_due_at is None:
            self.history_due_at = time.monotonic() + HISTORY_DELAY_SECONDS
        return None

    def _delete_hints(self, connection: Connection, entities: Sequence[Entity]) -> None:
        """Deletes hints for lists that the account does not have, or that the token may not read."""
        delete_webhook_hints(connection, self.account,
                             [listing.path for entity in entities for listing in entity.listings])

    def update_history(self) -> None:
        """Updates history and erasures from the loaded rows. While a sync runs, leaves that to its end."""
        connection = self._connection("")
        with self._full_scan_lock(connection) as idle:
            if idle and self.target:
                fence = current_fence(connection, self.account)
                with connection.transaction():
                    fence.check(connection)
                    rebuild.advance(connection, self.target.schema, self.account)
                    erasure.erase_late_rows(connection, self.target.schema, self.account)
            self.history_due_at = None

    def _connection(self, name: str) -> Connection:
        """Returns the connection of one entity for its part of a pass; the empty name is the pass's own."""
        connection = self.connections.get(name)
        if connection is None or connection.closed:
            connection = self.connections[name] = self.connect()
            connection.autocommit = True
        return connection
