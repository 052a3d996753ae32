"""Access that is new to a known account, looked at before anything of it is stored: what it would replace may exist nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.amocrm.client import Client
from pipelines.amocrm.errors import AccessLost
from pipelines.amocrm.grants import Pair
from pipelines.amocrm.tokens import Access, Configured, Turn
from pipelines.standing import Connect, account, admit, blocks_marked, held_account, same_account

STORED = """
SELECT t.seed = %s AND a.base_url = %s, coalesce(a.blocked_at > now() - interval '1 hour', false)
FROM mirror.accounts a LEFT JOIN mirror.tokens t ON t.account = a.name WHERE a.name = %s"""


@dataclass(frozen=True)
class Fresh:
    """A pair that nobody has stored yet, as what a client sends."""

    pair: Pair

    def current(self, turn: Turn) -> Access:
        return Access(self.pair.access_token, None)

    def renew(self, refused: str, turn: Turn) -> Access:
        raise AccessLost("amoCRM refuses the token: it has ended, is revoked, is another account's, or was not copied whole; or the address is of no "
                         "account. Nothing was changed. Look at AMOCRM_BASE_URL, or make another one, and try again; one that a terminal cuts can be "
                         "piped: `amocrm-mirror auth < token.txt`", status=401)


def prove(connect: Connect, name: str, schema: str, base_url: str, configured: Configured, client_of: Callable[[Fresh], Client]) -> None:
    """Asks amoCRM whose the configured token is, where it is another one than the stored, or leads elsewhere. Raises SyncRefused when it is not the
    account that the schema holds, and what the client raises."""
    with connect() as connection:
        held = held_account(connection, name, schema)
        known: Any = connection.execute(STORED, [configured.seed, base_url, name]).fetchone() or (False, False)
    if held is None or known[0] or not configured.access_token:
        return
    if known[1]:
        admit(connect, name)
    client = client_of(Fresh(Pair(configured.access_token, "", None)))
    try:
        with blocks_marked(connect, name):
            same_account(held, schema, account(client, []))
    except AccessLost:
        if not configured.refresh_token:  # else the token may just have ended
            raise
    finally:
        client.close()
