"""Deliveries → hints: what amoCRM has sent becomes the queue `mirror.hints`, each batch in one transaction.

A delivery that comes again after it was heeded is heeded again: a stage of the digital pipeline that is entered twice looks the same twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from pipelines.webhooks.payload import Told, told

Connection = psycopg.Connection[Any]
AT_ONCE = 1_000
PREFIX = "/amocrm"
"""Of every address at which amoCRM delivers."""
ARRIVED = "amocrm_mirror_delivered"
"""The channel on which the receiver wakes who drains; its payload is the account's name here."""
WAITING = """
SELECT d.id, d.body, (extract(epoch FROM d.last_received_at) * 1000000)::int8, a.account_id
FROM mirror.webhook_deliveries d JOIN mirror.accounts a ON a.name = d.account
WHERE d.account = %s AND d.heeded_at IS NULL ORDER BY d.id LIMIT %s FOR UPDATE OF d SKIP LOCKED"""
HEEDED = """
UPDATE mirror.webhook_deliveries d SET heeded_at = clock_timestamp(), settled_at = CASE WHEN n.named THEN NULL ELSE clock_timestamp() END,
    told = string_to_array(nullif(n.told, ''), ' '), unknown = string_to_array(nullif(n.unknown, ''), ' ')
FROM unnest(%s::int8[], %s::bool[], %s::text[], %s::text[]) n (id, named, told, unknown) WHERE d.id = n.id"""
QUEUE = """
INSERT INTO mirror.hints AS h (account, listing, key, told_at, of_links, hooked_at)
SELECT %(account)s, n.listing, n.key, to_timestamp(max(n.at) / 1000000.0), bool_or(n.of_links), to_timestamp(min(n.at) / 1000000.0)
FROM unnest(%(listings)s::text[], %(keys)s::text[], %(moments)s::int8[], %(of_links)s::bool[]) n (listing, key, at, of_links)
WHERE NOT EXISTS (SELECT FROM mirror.forgotten f WHERE f.account = %(account)s AND f.entity = n.listing AND f.key = n.key AND f.because IS NULL)
GROUP BY n.listing, n.key ORDER BY n.listing, n.key
ON CONFLICT (account, listing, key) DO UPDATE SET told_at = greatest(h.told_at, excluded.told_at), is_suspect = false, version = h.version + 1,
of_links = h.of_links OR excluded.of_links, hooked_at = coalesce(h.hooked_at, excluded.hooked_at)"""
OUTCOME = """
INSERT INTO mirror.unsorted_outcomes AS o (account, uid, action, leads, contacts, told_at) VALUES (%s, %s, %s, %s, %s, to_timestamp(%s / 1000000.0))
ON CONFLICT (account, uid) DO UPDATE SET action = excluded.action, leads = excluded.leads, contacts = excluded.contacts, told_at = excluded.told_at
WHERE o.told_at <= excluded.told_at"""
Delivery = tuple[int, Told, int]
"""Its row, what it tells, and when it came (microseconds since 1970)."""


def absorb(connection: Connection, account: str) -> int:
    """Queues what the next deliveries name, and marks them heeded; returns how many there were. At most AT_ONCE of them."""
    with connection.transaction():
        rows = connection.execute(WAITING, [account, AT_ONCE]).fetchall()
        read = [(number, _ours(told(body), mine), at) for number, body, at, mine in rows]
        if read:
            _queue(connection, account, read)
            connection.execute(HEEDED, [[number for number, _, _ in read], [bool(each.named) for _, each, _ in read],
                                        [" ".join(each.shapes) for _, each, _ in read], [" ".join(each.unknown) for _, each, _ in read]])
    return len(rows)


def absorb_all(connection: Connection, account: str) -> int:
    total = 0
    while found := absorb(connection, account):
        total += found
    return total


def settle(connection: Connection, account: str) -> int:
    """Everything that was heeded and of which nothing waits in the queue is settled."""
    return connection.execute(
        "UPDATE mirror.webhook_deliveries SET settled_at = clock_timestamp() WHERE account = %(account)s AND settled_at IS NULL "
        "AND heeded_at IS NOT NULL AND last_received_at < coalesce((SELECT min(hooked_at) FROM mirror.hints WHERE account = %(account)s "
        "AND hooked_at IS NOT NULL), 'infinity')", {"account": account}).rowcount


def _ours(each: Told, account: int | None) -> Told:
    """Another account's ids mean nothing here."""
    if each.account is None or account is None or each.account == account:
        return each
    return Told(shapes=each.shapes, unknown=[f"account[{each.account}]"])


def _queue(connection: Connection, account: str, read: Sequence[Delivery]) -> None:
    rows = [(*named, at, named in each.relinked) for _, each, at in read for named in each.named]
    if rows:
        listings, keys, moments, of_links = (list(column) for column in zip(*rows, strict=True))
        connection.execute(QUEUE, {"account": account, "listings": listings, "keys": keys, "moments": moments, "of_links": of_links})
    for _, each, at in read:
        for outcome in each.outcomes:
            connection.execute(OUTCOME, [account, *outcome, at])
