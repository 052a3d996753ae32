"""Webhook statistics: deliveries received and processed, the lag, and the last known state of our webhook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.rows import dict_row

MAX_LAG_SECONDS = 60
"""Seconds that the oldest delivery may wait; longer makes the exit code 3."""
SELECT_ADDRESS = """
SELECT made_at, checked_at, is_disabled, settings, refused
FROM mirror.webhook_addresses WHERE account = %s ORDER BY made_at DESC LIMIT 1"""
COUNT_DELIVERIES = """
SELECT count(*) AS deliveries, coalesce(sum(times), 0)::int8 AS arrivals,
       max(last_received_at) AS last_received_at,
       count(*) FILTER (WHERE heeded_at IS NULL) AS unread,
       count(*) FILTER (WHERE settled_at IS NULL) AS unsettled,
       coalesce(extract(epoch FROM now() - min(last_received_at) FILTER (WHERE settled_at IS NULL)),
                0)::float8 AS lag_seconds,
       count(*) FILTER (WHERE unknown IS NOT NULL) AS unknown
FROM mirror.webhook_deliveries WHERE account = %s"""
SELECT_LAG = """
SELECT percentile_disc(ARRAY[0.5, 0.95])
       WITHIN GROUP (ORDER BY extract(epoch FROM settled_at - last_received_at)::float8) AS seconds
FROM mirror.webhook_deliveries
WHERE account = %s AND settled_at IS NOT NULL AND last_received_at > now() - interval '1 day'"""
COUNT_SHAPES = """
SELECT shape, count(*) AS deliveries, bool_or(shape = ANY(coalesce(unknown, '{}'))) AS unknown
FROM mirror.webhook_deliveries, unnest(told || unknown) shape
WHERE account = %s GROUP BY shape ORDER BY 2 DESC, 1 LIMIT 30"""


def gather(connect: Callable[[], psycopg.Connection[Any]], account: str) -> dict[str, Any]:
    """Returns the statistics of one account and the command's exit code. Does not ask amoCRM."""
    with connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        address = cursor.execute(SELECT_ADDRESS, [account]).fetchone()
        deliveries = cursor.execute(COUNT_DELIVERIES, [account]).fetchone() or {}
        speed = cursor.execute(SELECT_LAG, [account]).fetchone()
        shapes = cursor.execute(COUNT_SHAPES, [account]).fetchall()
        queue = cursor.execute("SELECT count(*) AS hints FROM mirror.hints WHERE account = %s "
                               "AND hooked_at IS NOT NULL", [account]).fetchone()
    median, p95 = (speed or {}).get("seconds") or (None, None)
    status = {"account": account, "webhook": address, **deliveries, **(queue or {}),
              "median_seconds": median, "p95_seconds": p95, "shapes": shapes}
    return status | {"exit_code": 3 if not address or address["is_disabled"]
                     or deliveries["lag_seconds"] > MAX_LAG_SECONDS else 0}


def render(status: dict[str, Any]) -> list[str]:
    """Lines of text for a terminal; times in the machine's time zone."""
    hook = status["webhook"]
    lines = [f"Account:    {status['account']}", f"Webhook:    {_describe_webhook(hook)}"]
    if hook and hook["settings"]:
        lines.append(f"Events:     {len(hook['settings'])}: {', '.join(hook['settings'])}")
    if hook and hook["refused"]:
        lines.append(f"Refused:    {', '.join(hook['refused'])}")
    last = status["last_received_at"]
    lines.append(f"Deliveries: {status['deliveries']:,} stored, received {status['arrivals']:,} times"
                 + (f"; the last one at {last.astimezone():%Y-%m-%d %H:%M:%S %Z}" if last else ""))
    lines.append(f"Waiting:    {status['unsettled']:,} deliveries, {status['hints']:,} records to read again"
                 + (f"; the oldest for {status['lag_seconds']:.0f} s" if status["unsettled"] else ""))
    if status["median_seconds"] is not None:
        lines.append(f"Lag:        {status['median_seconds']:.2f} s from arrival to commit (a day's median), "
                     f"95 % within {status['p95_seconds']:.2f} s")
    if status["lag_seconds"] > MAX_LAG_SECONDS:
        lines.append("            nothing is processing them: keep `amocrm-mirror serve` (or "
                     "`webhooks drain`) running")
    lines += [f"  {each['deliveries']:>8,}  "
              f"{each['shape']}{'  (not understood; kept)' if each['unknown'] else ''}"
              for each in status["shapes"]]
    return lines


def _describe_webhook(hook: dict[str, Any] | None) -> str:
    if not hook:
        return "none; create one with `amocrm-mirror webhooks subscribe --url https://…`"
    checked = (f"last checked with amoCRM at {hook['checked_at'].astimezone():%Y-%m-%d %H:%M %Z}"
               if hook["checked_at"] else "not checked with amoCRM yet")
    return f"{'SWITCHED OFF by amoCRM' if hook['is_disabled'] else 'on'}; {checked}"
