"""OAuth: token endpoint, authorization window, claims of access tokens and the users behind them (API section
2).

A refresh token works once. Presenting it again is counted, because this mistake costs a real account its
access. Long-lived tokens are a function of the seed, so they survive a restart of the sandbox.
"""

import hashlib
import hmac
import secrets
import time
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import urlencode

import orjson

from sandbox.account.identity import ACCOUNT_ID, DOMAIN, SUBDOMAIN
from sandbox.account.state import AccountState
from sandbox.http.server import JSON, Request, Response, problem, reply

DAY_SECONDS = 86400
REFRESH_TOKEN_SECONDS = 90 * DAY_SECONDS
CODE_SECONDS = 20 * 60
REDIRECT_URI = "https://mirror.example.com/oauth"
_PROBLEM_TYPE = "https://developers.amocrm.ru/v3/errors/OAuthProblemJson"


@dataclass(slots=True)
class Grant:
    """The grant behind an access token, refresh token or authorization code. `expires_at` is Unix time."""

    user_id: int
    expires_at: float
    kind: str = "oauth"
    used: bool = False
    revoked: bool = False

    @property
    def is_alive(self) -> bool:
        """True if the grant is neither expired nor revoked nor used up."""
        return not (self.used or self.revoked) and time.time() < self.expires_at


class TokenAuthority:
    """All tokens of the account, and the one integration that they are issued to."""

    def __init__(self, state: AccountState, port: int) -> None:
        rng = Random(f"oauth {state.options.seed}")
        self._state = state
        self._secret = rng.randbytes(32)
        self.api_domain = f"127.0.0.1:{port}"
        self.client_id = str(uuid.UUID(bytes=rng.randbytes(16), version=4))
        self.client_secret = rng.randbytes(32).hex()
        self.redirect_uri = REDIRECT_URI
        self.access_grants: dict[str, Grant] = {}
        self.refresh_grants: dict[str, Grant] = {}
        self.code_grants: dict[str, Grant] = {}
        self.refreshes = 0
        self.reuses = 0
        self.moved_to = ""

    def issue(self, user_id: int, expires_in: float = DAY_SECONDS, kind: str = "oauth") -> dict[str, Any]:
        """Issues new tokens for a user, valid for `expires_in` seconds.

        `kind`: `oauth` (with a refresh token), `long` (without one) or `code`, an authorization code (section
        2.1).
        """
        if kind == "code":
            code = "def502" + secrets.token_hex(40)
            self.code_grants[code] = Grant(user_id, time.time() + min(expires_in, CODE_SECONDS))
            return {"code": code}
        now = time.time()
        access = self._jwt(user_id, int(now), int(now + expires_in), secrets.token_hex(20))
        self.access_grants[access] = Grant(user_id, now + expires_in, kind)
        tokens: dict[str, Any] = {"token_type": "Bearer", "expires_in": int(expires_in),
                                  "server_time": self._state.now(), "access_token": access}
        if kind == "oauth":
            tokens["refresh_token"] = "def502" + secrets.token_hex(160)
            self.refresh_grants[tokens["refresh_token"]] = Grant(user_id, now + REFRESH_TOKEN_SECONDS)
        return tokens

    def long_lived_token(self, user_id: int) -> str:
        """Returns the user's long-lived token: the same one at every start with the same seed and port."""
        issued = 1_700_000_000
        token = self._jwt(user_id, issued, issued + 10 * 365 * DAY_SECONDS, f"{user_id:040x}")
        self.access_grants.setdefault(token, Grant(user_id, issued + 10 * 365 * DAY_SECONDS, "long"))
        return token

    def _jwt(self, user_id: int, issued: int, expires: int, jti: str) -> str:
        """Returns a signed JWT with the claims that section 2.5 lists."""
        claims: dict[str, Any] = {"aud": self.client_id, "jti": jti, "iat": issued, "nbf": issued,
                                  "exp": expires}
        if self._state.switches["jwt_claims"] == "with":
            scopes = (["crm", "notifications"]
                      + ["files", "files_delete"] * (self._state.switches["drive_scope"] == "with"))
            claims |= {"sub": str(user_id), "grant_type": "", "account_id": ACCOUNT_ID,
                       "base_domain": "amocrm.ru", "version": 2, "scopes": scopes,
                       "hash_uuid": str(uuid.UUID(int=user_id)), "user_flags": 0,
                       "api_domain": self.api_domain}  # fmt: skip
        head = _base64url(orjson.dumps({"typ": "JWT", "alg": "HS256"})) + "." + _base64url(
            orjson.dumps(claims))
        return head + "." + _base64url(hmac.new(self._secret, head.encode(), hashlib.sha256).digest())

    def revoke(self) -> None:
        """Revokes every token, as when an admin disables the integration (section 2.6)."""
        for grant in (*self.access_grants.values(), *self.refresh_grants.values(),
                      *self.code_grants.values()):
            grant.revoked = True

    def grant_of(self, request: Request) -> Grant | None:
        """Returns the valid grant behind the Authorization header, None if there is none."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = self.access_grants.get(token.strip()) if scheme.lower() == "bearer" else None
        return grant if grant is not None and grant.is_alive else None

    def answer(self, request: Request) -> Response:
        """Answers every request under /oauth2 and the authorization window."""
        if request.path == "/oauth2/access_token":
            return self._token_endpoint(request) if request.method == "POST" else problem(405)
        if request.path == "/oauth2/account/current/subdomain" and request.method == "GET":
            return self._address_lookup(request)
        if request.path == "/oauth" and request.method == "GET":
            return self._authorization_window(request)
        return problem(404)

    def _token_endpoint(self, request: Request) -> Response:
        try:
            asked = request.payload()
        except ValueError:
            return _oauth_error(400, "Некорректный запрос")
        if asked.get("client_id") != self.client_id or asked.get("client_secret") != self.client_secret:
            return _oauth_error(401, "Некорректный клиент")
        if asked.get("redirect_uri") != self.redirect_uri:
            return _oauth_error(400, "Некорректный запрос", hint="redirect_uri mismatch")
        if asked.get("grant_type") == "refresh_token":
            return self._refresh_tokens(str(asked.get("refresh_token")))
        if asked.get("grant_type") == "authorization_code":
            return self._redeem_code(str(asked.get("code")))
        return _oauth_error(400, "Некорректный запрос", hint="Check the `grant_type` parameter")

    def _refresh_tokens(self, token: str) -> Response:
        grant = self.refresh_grants.get(token)
        if grant is not None and grant.used:
            self.reuses += 1
            if self._state.switches["refresh_grace"] == "once" and grant.kind != "grace":
                grant.kind = "grace"
                return reply(self.issue(grant.user_id), content_type=JSON)
        if grant is None or not grant.is_alive:
            return _oauth_error(int(self._state.switches["refresh_dead_status"]), "Некорректный запрос",
                                hint="Token has been revoked")
        grant.used = True
        self.refreshes += 1
        return reply(self.issue(grant.user_id), content_type=JSON)

    def _redeem_code(self, code: str) -> Response:
        grant = self.code_grants.get(code)
        if grant is None or not grant.is_alive:
            return _oauth_error(400, "Некорректный запрос", hint="Authorization code has been revoked")
        grant.used = True
        return reply(self.issue(grant.user_id), content_type=JSON)

    def _address_lookup(self, request: Request) -> Response:
        """Answers the look-up of a renamed account's address (section 2.7)."""
        grant = self.refresh_grants.get(request.headers.get("x-refresh-token", ""))
        if grant is None or not grant.is_alive:
            return _oauth_error(401, "Некорректный запрос", hint="Token has been revoked")
        return reply({"id": ACCOUNT_ID, "subdomain": SUBDOMAIN, "domain": self.moved_to or DOMAIN,
                      "top_level_domain": "ru"}, content_type=JSON)

    def _authorization_window(self, request: Request) -> Response:
        """Answers the authorization window: redirects with a code, as if an admin agreed (2.1)."""
        if request.params.get("client_id") != self.client_id:
            return problem(404)
        code = self.issue(self._state.account["current_user_id"], CODE_SECONDS, "code")["code"]
        query = {"code": code, "referer": DOMAIN, "platform": "1"}
        if isinstance(request.params.get("state"), str):
            query["state"] = str(request.params["state"])
        return Response(302, headers={"Location": f"{self.redirect_uri}?{urlencode(query)}"})


def _oauth_error(status: int, title: str, **more: str) -> Response:
    """Returns an error of the token endpoint (section 2.4)."""
    body = {"title": title, "type": _PROBLEM_TYPE, "status": status, "detail": "Попробуйте повторить позже"}
    return reply(more | body, status, JSON)


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
