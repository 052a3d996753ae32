"""A token that a person has just got: looked at with amoCRM first, stored only when it is the right account's. What is refused changes nothing."""

from __future__ import annotations

from pipelines.access.permissions import Sight, look
from pipelines.access.token_check import Fresh
from pipelines.access.token_endpoint import Pair
from pipelines.access.token_rows import Configured
from pipelines.access.token_store import StoredTokens
from pipelines.accounts.state import account, blocks_marked, clear_marks, held_account
from pipelines.amocrm.client import Client, Patience
from pipelines.amocrm.session import USER_AGENT
from pipelines.entities.registry import ACCOUNT_WITH
from pipelines.entities.spec import Facts
from pipelines.errors import SyncRefused
from pipelines.installation import ENTER, Mirror

PATIENCE = Patience(tries=3, throttled=5, read=30.0)
CLAIM = """
UPDATE mirror.accounts SET base_url = %(url)s, configured_url = %(given)s, account_id = %(id)s, facts = NULL, learned_at = NULL
WHERE name = %(name)s AND coalesce(account_id, %(id)s) = %(id)s RETURNING 1"""


def admit(mirror: Mirror, base_url: str, pair: Pair, application: Configured) -> Sight:
    """Raises what the client raises, and SyncRefused when the schema holds another account."""
    client = Client(base_url, Fresh(pair), mirror.budgets(base_url), PATIENCE)
    try:
        with blocks_marked(mirror.connect, mirror.account):
            facts = account(client, [("with", ",".join(ACCOUNT_WITH))])
        _check(mirror, facts)
        sight = look(client, facts)
    finally:
        client.close()
    _claim(mirror, base_url, facts)
    StoredTokens(mirror.connect, mirror.vault, mirror.account, base_url, USER_AGENT).adopt(mirror.configured, pair, application)
    clear_marks(mirror.connect, mirror.account)
    return sight


def _check(mirror: Mirror, facts: Facts) -> None:
    with mirror.connect() as connection:
        held = held_account(connection, mirror.account, mirror.schema)
    if held is not None and held != facts.get("id"):
        raise _another(mirror, facts)


def _claim(mirror: Mirror, base_url: str, facts: Facts) -> None:
    with mirror.connect() as connection:
        connection.execute(ENTER, {"name": mirror.account, "schema": mirror.schema, "url": base_url})
        row = connection.execute(CLAIM, {"name": mirror.account, "url": base_url, "id": facts.get("id"),
                                         "given": mirror.settings.amocrm_base_url}).fetchone()
    if row is None:
        raise _another(mirror, facts)


def _another(mirror: Mirror, facts: Facts) -> SyncRefused:
    return SyncRefused(f"the schema {mirror.schema!r} holds another amoCRM account than {facts.get('id')} ({facts.get('name')}), which this token "
                       "is of. Nothing was changed. Use a token of the account that the schema holds, or another AMOCRM_SCHEMA (of "
                       "`accounts add`: another name)")
