"""What was committed → NOTIFY amocrm_changes: for whoever follows the mirror with LISTEN (docs/webhooks.md).

A notification is part of the transaction that it tells of, so nobody hears of what was not committed, and whoever hears can read it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import psycopg

CHANNEL = "amocrm_changes"
MOST = 100
"""More records than that at once are told of without their ids."""
LONGEST = 7_900
"""Bytes; Postgres takes 8,000."""


def tell(connection: psycopg.Connection[Any], account: str, entity: str, ids: Collection[Any], deleted: bool = False) -> None:
    """In the caller's transaction. `ids`: up to MOST, or more than that."""
    if ids:
        told: dict[str, Any] = {"account": account, "entity": entity, "ids": list(ids) if len(ids) <= MOST else None, "deleted": deleted}
        payload = json.dumps(told, ensure_ascii=True, separators=(",", ":"), default=str)
        if len(payload) > LONGEST:
            payload = json.dumps(told | {"ids": None}, separators=(",", ":"))
        connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])
