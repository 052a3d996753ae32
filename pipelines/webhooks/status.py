"""How webhooks stand: what came, what became of it and how fast, and what amoCRM said last of our address."""

from __future__ import annotations

from typing import Any

from psycopg.rows import dict_row

from pipelines.installation import Mirror

LATE = 60
"""Seconds that the oldest delivery may wait before that is a fault."""
ADDRESS = """
SELECT made_at, checked_at, is_disabled, settings, refused FROM mirror.webhook_addresses WHERE account = %s ORDER BY made_at DESC LIMIT 1"""
DELIVERIES = """
SELECT count(*) AS deliveries, coalesce(sum(times), 0)::int8 AS arrivals, max(last_received_at) AS last_received_at,
       count(*) FILTER (WHERE heeded_at IS NULL) AS unread, count(*) FILTER (WHERE settled_at IS NULL) AS unsettled,
       coalesce(extract(epoch FROM now() - min(last_received_at) FILTER (WHERE settled_at IS NULL)), 0)::float8 AS lag_seconds,
       count(*) FILTER (WHERE unknown IS NOT NULL) AS unknown
FROM mirror.webhook_deliveries WHERE account = %s"""
SPEED = """
SELECT percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM settled_at - last_received_at)::float8) AS seconds
FROM mirror.webhook_deliveries WHERE account = %s AND settled_at IS NOT NULL AND last_received_at > now() - interval '1 day'"""
SHAPES = """
SELECT shape, count(*) AS deliveries, bool_or(shape = ANY(coalesce(unknown, '{}'))) AS unknown
FROM mirror.webhook_deliveries, unnest(told || unknown) shape WHERE account = %s GROUP BY shape ORDER BY 2 DESC, 1 LIMIT 30"""


def gather(mirror: Mirror) -> dict[str, Any]:
    with mirror.connect_autocommit() as connection, connection.cursor(row_factory=dict_row) as cursor:
        address = cursor.execute(ADDRESS, [mirror.account]).fetchone()
        deliveries = cursor.execute(DELIVERIES, [mirror.account]).fetchone() or {}
        speed = cursor.execute(SPEED, [mirror.account]).fetchone()
        shapes = cursor.execute(SHAPES, [mirror.account]).fetchall()
        queue = cursor.execute("SELECT count(*) AS hints FROM mirror.hints WHERE account = %s AND hooked_at IS NOT NULL", [mirror.account]).fetchone()
    median, p95 = (speed or {}).get("seconds") or (None, None)
    found = {"account": mirror.account, "webhook": address, **deliveries, **(queue or {}), "median_seconds": median, "p95_seconds": p95,
             "shapes": shapes}
    return found | {"exit_code": 3 if not address or address["is_disabled"] or deliveries["lag_seconds"] > LATE else 0}


def render(found: dict[str, Any]) -> list[str]:
    hook = found["webhook"]
    lines = [f"Account:    {found['account']}", f"Webhook:    {_webhook(hook)}"]
    if hook and hook["settings"]:
        lines.append(f"Events:     {len(hook['settings'])}: {', '.join(hook['settings'])}")
    if hook and hook["refused"]:
        lines.append(f"Not told:   {', '.join(hook['refused'])}")
    last = found["last_received_at"]
    lines.append(f"Deliveries: {found['deliveries']:,} kept, which came {found['arrivals']:,} times"
                 + (f"; the last one at {last.astimezone():%Y-%m-%d %H:%M:%S %Z}" if last else ""))
    lines.append(f"Waiting:    {found['unsettled']:,} deliveries, {found['hints']:,} records to read again"
                 + (f"; the oldest for {found['lag_seconds']:.0f} s" if found["unsettled"] else ""))
    if found["median_seconds"] is not None:
        lines.append(f"Lag:        {found['median_seconds']:.2f} s from arrival to commit (a day's median), 95 % within {found['p95_seconds']:.2f} s")
    if found["lag_seconds"] > LATE:
        lines.append("            nothing drains them: keep `amocrm-mirror serve` (or `webhooks drain`) running")
    lines += [f"  {each['deliveries']:>8,}  {each['shape']}{'  (not understood; kept)' if each['unknown'] else ''}" for each in found["shapes"]]
    return lines


def _webhook(hook: dict[str, Any] | None) -> str:
    if not hook:
        return "none; `amocrm-mirror webhooks subscribe --url https://…` makes one"
    asked = f"amoCRM was asked at {hook['checked_at'].astimezone():%Y-%m-%d %H:%M %Z}" if hook["checked_at"] else "amoCRM was not asked yet"
    return f"{'SWITCHED OFF by amoCRM' if hook['is_disabled'] else 'on'}; {asked}"
