"""Inbox → hints: turns stored deliveries into rows of the queue `mirror.hints`, one transaction per batch.

`heeded_at` of a delivery is when its hints were queued, `settled_at` when all of them had been processed. A
delivery that arrives again later is queued again: a deal that enters a stage of the digital pipeline twice
causes two equal deliveries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from pipelines.cursors import CLOCK_DIFFERENCE
from pipelines.webhooks.payload import ParsedDelivery, parse

Connection = psycopg.Connection[Any]
MAX_BATCH = 1_000
"""Maximum number of deliveries per batch."""
PATH_PREFIX = "/amocrm"
"""URL path prefix of every address to which amoCRM delivers."""
DELIVERY_CHANNEL = "amocrm_mirror_delivered"
"""Notification channel on which the receiver wakes the continuous sync; the payload is the account's name."""
SELECT_UNREAD = """
SELECT d.id, d.body, (extract(epoch FROM d.last_received_at) * 1000000)::int8, a.account_id
FROM mirror.webhook_deliveries d JOIN mirror.accounts a ON a.name = d.account
WHERE d.account = %s AND d.heeded_at IS NULL ORDER BY d.id LIMIT %s FOR UPDATE OF d SKIP LOCKED"""
MARK_QUEUED = """
UPDATE mirror.webhook_deliveries d SET heeded_at = clock_timestamp(),
    settled_at = CASE WHEN n.named THEN NULL ELSE clock_timestamp() END,
    told = string_to_array(nullif(n.told, ''), ' '), unknown = string_to_array(nullif(n.unknown, ''), ' ')
FROM unnest(%s::int8[], %s::bool[], %s::text[], %s::text[]) n (id, named, told, unknown) WHERE d.id = n.id"""
INSERT_HINTS = f"""
INSERT INTO mirror.hints AS h (account, listing, key, told_at, of_links, hooked_at)
SELECT %(account)s, n.listing, n.key, to_timestamp(max(n.at) / 1000000.0) + {CLOCK_DIFFERENCE},
    bool_or(n.of_links), to_timestamp(min(n.at) / 1000000.0)
FROM unnest(%(listings)s::text[], %(keys)s::text[], %(moments)s::int8[], %(of_links)s::bool[])
    n (listing, key, at, of_links)
WHERE NOT EXISTS (SELECT FROM mirror.forgotten f
    WHERE f.account = %(account)s AND f.entity = n.listing AND f.key = n.key AND f.because IS NULL)
GROUP BY n.listing, n.key ORDER BY n.listing, n.key
ON CONFLICT (account, listing, key) DO UPDATE SET told_at = greatest(h.told_at, excluded.told_at),
is_suspect = false, version = h.version + 1, of_links = h.of_links OR excluded.of_links,
hooked_at = coalesce(h.hooked_at, excluded.hooked_at)"""
UPSERT_OUTCOME = """
INSERT INTO mirror.unsorted_outcomes AS o (account, uid, action, leads, contacts, told_at)
VALUES (%s, %s, %s, %s, %s, to_timestamp(%s / 1000000.0))
ON CONFLICT (account, uid) DO UPDATE SET action = excluded.action, leads = excluded.leads,
    contacts = excluded.contacts, told_at = excluded.told_at
WHERE o.told_at <= excluded.told_at"""
MARK_PROCESSED = f"""
WITH waiting AS MATERIALIZED (
    SELECT DISTINCT hooked_at, told_at - {CLOCK_DIFFERENCE} + interval '3 s' AS told_at FROM mirror.hints
    WHERE account = %(account)s AND hooked_at IS NOT NULL)
UPDATE mirror.webhook_deliveries d SET settled_at = clock_timestamp()
WHERE account = %(account)s AND settled_at IS NULL AND heeded_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM waiting w WHERE d.last_received_at BETWEEN w.hooked_at AND w.told_at)"""
"""A hint stands for the deliveries from the first one that named the record to the last one: between these
two moments others may have come that are settled already, and are marked later."""
SELECT_ACCOUNTS_WITH_WORK = """
SELECT a.name FROM mirror.accounts a
WHERE CASE %(only)s WHEN '' THEN EXISTS (SELECT FROM mirror.webhook_addresses w WHERE w.account = a.name)
           ELSE a.name = %(only)s END
  AND (EXISTS (SELECT FROM mirror.webhook_deliveries d WHERE d.account = a.name AND d.heeded_at IS NULL)
       OR EXISTS (SELECT FROM mirror.hints h WHERE h.account = a.name AND NOT h.is_suspect))"""
InboxItem = tuple[int, ParsedDelivery, int]
"""Row id, parsed content, and time of arrival (microseconds since 1970, UTC)."""


def enqueue_hints(connection: Connection, account: str) -> int:
    """Queues hints for the records named by the next deliveries, and sets their `heeded_at`.

    Takes at most MAX_BATCH deliveries; returns how many it took.
    """
    with connection.transaction():
        rows = connection.execute(SELECT_UNREAD, [account, MAX_BATCH]).fetchall()
        deliveries = [(number, _drop_foreign_records(parse(body), mine), at)
                      for number, body, at, mine in rows]
        if deliveries:
            _insert_hints(connection, account, deliveries)
            connection.execute(MARK_QUEUED,
                               [[number for number, _, _ in deliveries],
                                [bool(each.records) for _, each, _ in deliveries],
                                [" ".join(each.shapes) for _, each, _ in deliveries],
                                [" ".join(each.unknown) for _, each, _ in deliveries]])
    return len(rows)


def enqueue_all_hints(connection: Connection, account: str) -> int:
    """Queues hints batch by batch until the inbox is empty; returns the number of deliveries."""
    total = 0
    while count := enqueue_hints(connection, account):
        total += count
    return total


def mark_processed(connection: Connection, account: str) -> int:
    """Sets `settled_at` of deliveries all of whose hints have been processed; returns how many."""
    return connection.execute(MARK_PROCESSED, {"account": account}).rowcount


def accounts_with_work(connection: Connection, only: str = "") -> list[str]:
    """Returns the accounts with a registered address, or `only` this one, that have unread deliveries or
    queued hints. Suspects belong to the sync that found them."""
    return [row[0] for row in connection.execute(SELECT_ACCOUNTS_WITH_WORK, {"only": only}).fetchall()]


def _drop_foreign_records(each: ParsedDelivery, account: int | None) -> ParsedDelivery:
    """Drops the records of a delivery for another account: its ids mean nothing in this mirror."""
    if each.account is None or account is None or each.account == account:
        return each
    return ParsedDelivery(shapes=each.shapes, unknown=[f"account[{each.account}]"])


def _insert_hints(connection: Connection, account: str, deliveries: Sequence[InboxItem]) -> None:
    """Queues the named records and stores the outcomes of incoming leads."""
    rows = [(*named, at, named in each.relinked) for _, each, at in deliveries for named in each.records]
    if rows:
        listings, keys, moments, of_links = (list(column) for column in zip(*rows, strict=True))
        connection.execute(INSERT_HINTS,
                           {"account": account, "listings": listings, "keys": keys, "moments": moments,
                            "of_links": of_links})
    for _, each, at in deliveries:
        for outcome in each.outcomes:
            connection.execute(UPSERT_OUTCOME, [account, *outcome, at])
