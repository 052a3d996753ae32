"""Notifications: what a transaction wrote → NOTIFY amocrm_changes, for programs that LISTEN
(docs/webhooks.md).

The notification is sent in the transaction it reports, so listeners only hear of committed changes and can
read them at once.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import psycopg

CHANNEL = "amocrm_changes"
MAX_IDS = 100
"""Ids per notification. If more records changed at once, the notification carries no ids."""
MAX_PAYLOAD_BYTES = 7_900
"""Bytes per payload; Postgres accepts less than 8,000."""


def notify_listeners(connection: psycopg.Connection[Any], account: str, entity: str, ids: Collection[Any],
         deleted: bool = False) -> None:
    """Sends the notification, in the caller's transaction. `ids`: all ids, or the first MAX_IDS + 1 of
    them."""
    if ids:
        message: dict[str, Any] = {"account": account, "entity": entity,
                                "ids": list(ids) if len(ids) <= MAX_IDS else None, "deleted": deleted}
        payload = json.dumps(message, ensure_ascii=True, separators=(",", ":"), default=str)
        if len(payload) > MAX_PAYLOAD_BYTES:
            payload = json.dumps(message | {"ids": None}, separators=(",", ":"))
        connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])
