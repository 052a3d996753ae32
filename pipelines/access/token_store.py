"""Tokens: where they are kept, and how a pair is refreshed without ever losing it (amocrm-api.md 2.3, 2.4; design.md 6).

A refresh token works once. So the token's row is locked, looked at again inside the lock (another process may have refreshed), refreshed,
and the new pair is committed before anybody uses it. From the answer until the commit the pair exists only here: if the connection to
Postgres breaks in between, the pair is stored over another one.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipelines.access.encryption import LostKey, Vault
from pipelines.access.token_endpoint import Application, Pair
from pipelines.access.token_refresh import renewed
from pipelines.access.token_rows import CONFIGURE, KEEP, READ, REPLACE, SPEND, STILL_GOOD, UNHURRIED, Configured, Row, good_until, is_past, now
from pipelines.amocrm.credentials import Access, Turn
from pipelines.amocrm.errors import AccessLost, Passing, Throttled

STORE_AGAIN = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Seconds between attempts to store a pair that would else be lost."""


log = logging.getLogger(__name__)


class StoredTokens:
    """The tokens of one account, in mirror.tokens."""

    table, key = "mirror.tokens", "account"
    """Which row is ours: the one whose key is `account`."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], vault: Vault, account: str, base_url: str, user_agent: str) -> None:
        self.connect, self.vault, self.account = connect, vault, account
        self.name, self.base_url, self.user_agent = account, base_url, user_agent
        self._unanswered = ""
        """The refresh token, as stored, whose refresh had no answer here: amoCRM may have spent it."""

    def configure(self, configured: Configured) -> None:
        """Stores what the user configured where nothing is stored; a long-lived token also in the place of another one. A pair that takes
        another's place is proven first (unproven.py)."""
        with self.connect() as connection, connection.transaction():
            row = self._own(connection)
            is_other = row["seed"] != configured.seed
            if _is_bare(row) or (is_other and not configured.refresh_token) or (
                    not is_other and row["refreshed_at"] is None and not self._opens(row)):
                self._replace(connection, configured, configured.access_token, configured.refresh_token, None)
                self._set_application(connection, self._over(row, configured) if not is_other else configured)
            elif not is_other:
                self._correct(connection, row, configured)

    def correct(self, configured: Configured) -> None:
        """An integration's new secret or redirect address, where the stored pair is one that it gave."""
        with self.connect() as connection, connection.transaction():
            row = self._row(connection, lock=True)
            if row and configured.client_id and row["client_id"] == configured.client_id:
                self._correct(connection, row, configured)

    def completed(self, configured: Configured) -> Configured:
        """With the stored application, where the settings name none."""
        with self.connect() as connection:
            row = self._row(connection)
        return self._over(row, configured) if row and not configured.client_id else configured

    def adopt(self, configured: Configured, pair: Pair, application: Configured | None = None) -> None:
        """Stores the pair that a person has just granted, to this application; the configured tokens, which are older, will not replace it."""
        with self.connect() as connection, connection.transaction():
            self._own(connection)
            self._replace(connection, configured, pair.access_token, pair.refresh_token, pair.expires_at)
            self._set_application(connection, configured if application is None else application)
            connection.execute("DELETE FROM mirror.unproven_tokens WHERE account = %s AND dead_reason IS NOT NULL", [self.account])

    def current(self, turn: Turn) -> Access:
        """The access token, refreshed when it is about to end. Raises AccessLost when there is none that could be had."""
        with self.connect() as connection:
            row = self._known(connection)
        if row["access_token"] is not None and not is_past(good_until(row)):
            return self._access(row)
        try:
            return self.renew("", turn)
        except Passing as reason:
            if row["access_token"] is None or is_past(row["expires_at"] - STILL_GOOD):
                raise
            log.info("%s; the present token is good for a while", reason)
            return Access(self._sound(row["access_token"]), now() + STILL_GOOD)

    def renew(self, refused: str, turn: Turn) -> Access:
        """Another access token than the refused one. Raises AccessLost when the grant is dead, Passing when amoCRM cannot be reached."""
        # In a thread, because Ctrl-C interrupts the main one only: the answer to a refresh must be heard and stored
        pool = ThreadPoolExecutor(1, "renew")
        try:
            return pool.submit(self._renewed, refused, turn).result()
        finally:
            pool.shutdown(wait=False)

    def _renewed(self, refused: str, turn: Turn) -> Access:
        fresh: tuple[Row, Pair] | None = None
        try:
            with self.connect() as connection, connection.transaction():
                connection.execute(UNHURRIED)
                row = self._known(connection, lock=True)
                if self._is_another(row, refused):
                    self._follow(connection)
                    return self._access(row)
                fresh = row, self._refresh(row, refused, turn)
                self._keep(connection, *fresh)
            return self._issued(fresh[1])
        except psycopg.Error:
            if fresh is None:
                raise
        except AccessLost as reason:
            self._mark(reason)
            raise
        assert fresh is not None
        return self._kept(*fresh)

    def _is_another(self, row: Row, refused: str) -> bool:
        return row["access_token"] is not None and not is_past(good_until(row)) and self.vault.open(row["access_token"]) != refused

    def _refresh(self, row: Row, refused: str, turn: Turn) -> Pair:
        if not row["refresh_token"]:
            raise AccessLost("amoCRM refuses the token and a long-lived token cannot be renewed. What is mirrored stays as it is. "
                             f"Look whether {self.base_url} (AMOCRM_BASE_URL) is the account's address, one of no account is answered so, too; else "
                             f"create a new token in the integration's settings, and give it to {self._auth} or set AMOCRM_ACCESS_TOKEN", status=401)
        if not (row["client_id"] and row["client_secret"]):
            raise AccessLost("the token cannot be renewed without the integration's id and secret: set AMOCRM_CLIENT_ID, AMOCRM_CLIENT_SECRET "
                             "and AMOCRM_REDIRECT_URI")
        application = Application(self.base_url, self.user_agent, row["client_id"], self.vault.open(row["client_secret"]), row["redirect_uri"] or "",
                                  self._auth)
        access = self._readable(row["access_token"])
        try:
            pair, base_url = renewed(application, self.vault.open(row["refresh_token"]), access, bool(refused) and refused == access,
                                     self._unanswered == row["refresh_token"], turn)
        except Throttled:
            raise
        except Passing:
            self._unanswered = row["refresh_token"]
            raise
        self.base_url = base_url
        return pair

    @property
    def _auth(self) -> str:
        return f"`amocrm-mirror auth --account {self.name}`"

    def _readable(self, locked: str | None) -> str:
        try:
            return self.vault.open(locked) if locked else ""
        except LostKey:
            return ""

    # In the database

    def _execute(self, connection: psycopg.Connection[Any], statement: str, **values: Any) -> None:
        connection.execute(statement.format(table=self.table, key=self.key).encode(), {"row": self.account, **values})

    def _row(self, connection: psycopg.Connection[Any], lock: bool = False) -> Row | None:
        statement = (READ + " FOR UPDATE" if lock else READ).format(table=self.table, key=self.key)
        with connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement.encode(), {"row": self.account}).fetchone()

    def _follow(self, connection: psycopg.Connection[Any]) -> None:
        """Another process has refreshed, and may have found the account at another address."""
        row = connection.execute("SELECT base_url FROM mirror.accounts WHERE name = %s", [self.account]).fetchone()
        self.base_url = str(row[0]) if row else self.base_url

    def _move(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute("UPDATE mirror.accounts SET base_url = %s, facts = NULL WHERE name = %s AND base_url <> %s",
                           [self.base_url, self.account, self.base_url])

    def _own(self, connection: psycopg.Connection[Any]) -> Row:
        """The account's row, locked; an empty one when there was none."""
        self._open(connection)
        return self._known(connection, lock=True)

    def _open(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute("INSERT INTO mirror.tokens (account) VALUES (%s) ON CONFLICT DO NOTHING", [self.account])

    def _set_application(self, connection: psycopg.Connection[Any], configured: Configured) -> None:
        self._execute(connection, CONFIGURE, client_id=configured.client_id or None, redirect_uri=configured.redirect_uri or None,
                      secret=self._locked(configured.client_secret))

    def _replace(self, connection: psycopg.Connection[Any], configured: Configured, access: str, refresh: str,
                 expires: datetime.datetime | None) -> None:
        self._execute(connection, SPEND)
        self._execute(connection, REPLACE, access=self._locked(access), refresh=self._locked(refresh), expires=expires, seed=configured.seed)

    def _known(self, connection: psycopg.Connection[Any], lock: bool = False) -> Row:
        row = self._row(connection, lock)
        if row is None:
            raise AccessLost(f"no token is stored for the account {self.account!r}: run {self._auth}, or set AMOCRM_ACCESS_TOKEN")
        return row

    def _keep(self, connection: psycopg.Connection[Any], row: Row, pair: Pair) -> None:
        self._execute(connection, KEEP, access=self.vault.lock(pair.access_token), refresh=self.vault.lock(pair.refresh_token),
                      expires=pair.expires_at, spent=row["refresh_token"])
        self._move(connection)

    def _kept(self, row: Row, pair: Pair) -> Access:
        """The pair as it is now stored. Where the commit was not heard of, it is looked for, and stored if it is not there."""
        for pause in STORE_AGAIN:
            time.sleep(pause)
            with contextlib.suppress(psycopg.Error), self.connect() as connection, connection.transaction():
                self._keep(connection, row, pair)
                return self._access(self._known(connection))
        raise AccessLost("amoCRM has issued a new pair of tokens and Postgres cannot be reached to store it; the old pair does not work any more. "
                         "When Postgres is back, grant access again")

    def _mark(self, reason: AccessLost) -> None:
        with contextlib.suppress(psycopg.Error), self.connect() as connection:
            connection.execute("UPDATE mirror.tokens SET dead_reason = %s WHERE account = %s AND refresh_token IS NOT NULL",
                               [reason.reason, self.account])

    # Encrypted

    def _issued(self, pair: Pair) -> Access:
        """As it was committed: another key, which is not known here, may have locked it since."""
        return Access(pair.access_token, good_until({"expires_at": pair.expires_at, "refreshed_at": now()}), self.base_url)

    def _access(self, row: Row) -> Access:
        return Access(self._sound(row["access_token"]), good_until(row), self.base_url)

    def _sound(self, locked: str) -> str:
        token = self.vault.open(locked)
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise AccessLost("the configured token holds characters that no token has: copy it again into AMOCRM_ACCESS_TOKEN")
        return token

    def _locked(self, secret: str) -> str | None:
        return self.vault.lock(secret) if secret else None

    def _opens(self, row: Row) -> bool:
        try:
            return all(self.vault.open(row[name]) for name in ("access_token", "refresh_token") if row[name])
        except LostKey:
            return False

    def _correct(self, connection: psycopg.Connection[Any], row: Row, configured: Configured) -> None:
        if self._differs(row, configured):
            self._set_application(connection, self._over(row, configured))

    def _differs(self, row: Row, configured: Configured) -> bool:
        wanted = self._over(row, configured)
        stored = row["client_id"] or "", row["redirect_uri"] or "", self._readable(row["client_secret"])
        return stored != (wanted.client_id, wanted.redirect_uri, wanted.client_secret)

    def _over(self, row: Row, configured: Configured) -> Configured:
        """The application as configured; what the settings do not say of it, as it is stored: a person may have named it in `auth`."""
        return replace(configured, client_id=configured.client_id or row["client_id"] or "",
                       client_secret=configured.client_secret or self._readable(row["client_secret"]),
                       redirect_uri=configured.redirect_uri or row["redirect_uri"] or "")


def _is_bare(row: Row) -> bool:
    return row["access_token"] is None and row["refresh_token"] is None
