"""Tokens: where they are kept, and how a pair is refreshed without ever losing it (amocrm-api.md 2.3, 2.4; design.md 6).

A refresh token works once. So the token's row is locked, looked at again inside the lock (another process may have refreshed), refreshed,
and the new pair is committed before anybody uses it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

import psycopg
from oauthlib.oauth2 import OAuth2Error
from psycopg.rows import dict_row
from requests import RequestException
from requests_oauthlib import OAuth2Session

from pipelines.amocrm.errors import AccessLost, Passing
from pipelines.amocrm.vault import Vault

AHEAD = datetime.timedelta(minutes=10)
TOKEN_PATH = "/oauth2/access_token"
TIMEOUT = (5, 15)


class Tokens(Protocol):
    """What the session needs: a token to send, and another one when that was refused."""

    def current(self) -> Access: ...

    def renew(self, refused: str) -> Access: ...


class Access(NamedTuple):
    """An access token, and until when it may be sent without another look; None: until it is refused."""

    token: str
    good_until: datetime.datetime | None


@dataclass(frozen=True)
class Configured:
    """The token or pair that the user configured; it starts the stored row, and replaces it when it changes."""

    access_token: str = ""
    refresh_token: str = ""
    client_id: str = ""
    client_secret: str = ""
    redirect_uri: str = ""

    @property
    def seed(self) -> str:
        return hashlib.sha256("\n".join((self.access_token, self.refresh_token, self.client_id)).encode()).hexdigest()

    def __bool__(self) -> bool:
        return bool(self.access_token or self.refresh_token)


class StoredTokens:
    """The tokens of one account, in mirror.tokens."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], vault: Vault, account: str, base_url: str,
                 before_request: Callable[[], None], user_agent: str) -> None:
        self.connect, self.vault, self.account, self.base_url = connect, vault, account, base_url
        self.before_request, self.user_agent = before_request, user_agent

    def configure(self, configured: Configured) -> None:
        """Stores what the user configured, unless the stored pair came from it."""
        lock = self.vault.lock
        with self.connect() as connection:
            connection.execute(
                "INSERT INTO mirror.tokens (account, client_id, redirect_uri, client_secret, access_token, refresh_token, seed) "
                "VALUES (%(account)s, %(client_id)s, %(redirect_uri)s, %(secret)s, %(access)s, %(refresh)s, %(seed)s) "
                "ON CONFLICT (account) DO UPDATE SET client_id = excluded.client_id, redirect_uri = excluded.redirect_uri, "
                "client_secret = excluded.client_secret, access_token = excluded.access_token, refresh_token = excluded.refresh_token, "
                "seed = excluded.seed, expires_at = NULL, dead_reason = NULL WHERE tokens.seed IS DISTINCT FROM excluded.seed",
                {"account": self.account, "client_id": configured.client_id or None, "redirect_uri": configured.redirect_uri or None,
                 "secret": lock(configured.client_secret) if configured.client_secret else None,
                 "access": lock(configured.access_token) if configured.access_token else None,
                 "refresh": lock(configured.refresh_token) if configured.refresh_token else None, "seed": configured.seed})

    def current(self) -> Access:
        """The access token, refreshed when it is about to end. Raises AccessLost when there is none or it is known to be dead."""
        with self.connect() as connection:
            row = self._row(connection)
        if row["access_token"] is None or (row["expires_at"] and row["expires_at"] - AHEAD < _now()):
            return self.renew("")
        return self._access(row)

    def _access(self, row: dict[str, Any]) -> Access:
        return Access(self.vault.open(row["access_token"]), row["expires_at"] - AHEAD if row["expires_at"] else None)

    def renew(self, refused: str) -> Access:
        """Another access token than the refused one. Raises AccessLost when the grant is dead, Passing when amoCRM cannot be reached."""
        with self.connect() as connection, connection.transaction():
            row = self._row(connection, lock=True)
            stored = self.vault.open(row["access_token"]) if row["access_token"] else ""
            fresh = row["expires_at"] is None or row["expires_at"] - AHEAD > _now()
            if stored and stored != refused and fresh:
                return self._access(row)
            if not row["refresh_token"]:
                raise AccessLost("amoCRM refuses the token and a long-lived token cannot be renewed. What is mirrored stays as it is. "
                                 "Create a new token in the integration's settings and set AMOCRM_ACCESS_TOKEN", status=401)
            self._store(connection, self._refresh(row))
            return self._access(self._row(connection))

    def _row(self, connection: psycopg.Connection[Any], lock: bool = False) -> dict[str, Any]:
        with connection.cursor(row_factory=dict_row) as cursor:
            suffix = "FOR UPDATE" if lock else ""
            row = cursor.execute(f"SELECT * FROM mirror.tokens WHERE account = %s {suffix}".encode(), [self.account]).fetchone()
        if row is None:
            raise AccessLost(f"no token is stored for the account {self.account!r}: set AMOCRM_ACCESS_TOKEN")
        return row

    def _refresh(self, row: dict[str, Any]) -> dict[str, Any]:
        session = OAuth2Session(row["client_id"], redirect_uri=row["redirect_uri"])
        session.headers["User-Agent"] = self.user_agent
        session.register_compliance_hook("refresh_token_request", _as_json)
        session.register_compliance_hook("refresh_token_response", _only_success)
        self.before_request()
        try:
            answer: dict[str, Any] = session.refresh_token(
                self.base_url + TOKEN_PATH, refresh_token=self.vault.open(row["refresh_token"]), timeout=TIMEOUT,
                client_id=row["client_id"], client_secret=self.vault.open(row["client_secret"] or ""), redirect_uri=row["redirect_uri"])
        except (AccessLost, Passing):
            raise
        except RequestException as reason:
            raise Passing("the token could not be refreshed, the connection failed; the old pair is kept and will be tried again",
                          f"POST {TOKEN_PATH}") from reason.__cause__
        except (OAuth2Error, ValueError) as reason:
            raise AccessLost(f"the answer to the refresh was not a token ({type(reason).__name__})", f"POST {TOKEN_PATH}") from None
        return answer

    def _store(self, connection: psycopg.Connection[Any], answer: dict[str, Any]) -> None:
        seconds = float(answer.get("expires_in") or 86400)
        connection.execute(
            "UPDATE mirror.tokens SET access_token = %s, refresh_token = %s, expires_at = %s, refreshed_at = now(), dead_reason = NULL "
            "WHERE account = %s", [self.vault.lock(answer["access_token"]), self.vault.lock(answer["refresh_token"]),
                                   _now() + datetime.timedelta(seconds=seconds), self.account])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _as_json(url: str, headers: dict[str, str], body: str) -> tuple[str, dict[str, str], str]:
    """amoCRM documents a JSON body; requests-oauthlib makes a form (2.2)."""
    fields = dict(parse_qsl(body))
    wanted = ("client_id", "client_secret", "grant_type", "refresh_token", "redirect_uri")
    return url, headers | {"Content-Type": "application/json"}, json.dumps({name: fields[name] for name in wanted if name in fields})


def _only_success(response: Any) -> Any:
    """Told by status and shape, never by the localized title (2.4)."""
    request = f"POST {TOKEN_PATH}"
    if response.status_code == 200:
        return response
    if response.status_code == 429 or response.status_code >= 500:
        raise Passing(f"the token endpoint answered {response.status_code}; the old pair is kept", request, response.status_code)
    try:
        hint = response.json().get("hint", "")
    except (ValueError, AttributeError):
        hint = "an HTML page: the account or this address is blocked" if response.status_code == 403 else ""
    raise AccessLost(f"amoCRM did not renew the token (status {response.status_code}{', ' + hint if hint else ''}). What is mirrored stays "
                     "as it is, and so does the stored pair. Check the integration's id, secret and redirect address; if they are right, "
                     "grant access again", request, response.status_code)
