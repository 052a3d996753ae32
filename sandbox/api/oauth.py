"""Tokens: the endpoint that grants them, what they carry, who they speak for (API section 2).

A refresh token works once; presenting it again is counted, because it is the mistake that costs a real user
his access. Long-lived tokens are a function of the seed, so that they survive a restart of the sandbox.
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
from sandbox.account.state import World
from sandbox.http.server import JSON, Request, Response, problem, reply

DAY = 86400
REFRESH_LIFE = 90 * DAY
CODE_LIFE = 20 * 60
REDIRECT_URI = "https://mirror.example.com/oauth"
_PROBLEM_TYPE = "https://developers.amocrm.ru/v3/errors/OAuthProblemJson"


@dataclass(slots=True)
class Grant:
    """What an access token, a refresh token or a code stands for."""

    user_id: int
    expires_at: float
    kind: str = "oauth"
    used: bool = False
    revoked: bool = False

    @property
    def alive(self) -> bool:
        """Neither expired nor revoked nor used up."""
        return not (self.used or self.revoked) and time.time() < self.expires_at


class Authority:
    """All tokens of the account and the one integration that asks for them."""

    def __init__(self, world: World, port: int) -> None:
        rng = Random(f"oauth {world.options.seed}")
        self._world = world
        self._secret = rng.randbytes(32)
        self.api_domain = f"127.0.0.1:{port}"
        self.client_id = str(uuid.UUID(bytes=rng.randbytes(16), version=4))
        self.client_secret = rng.randbytes(32).hex()
        self.redirect_uri = REDIRECT_URI
        self.access: dict[str, Grant] = {}
        self.refresh: dict[str, Grant] = {}
        self.codes: dict[str, Grant] = {}
        self.refreshes = 0
        self.reuses = 0
        self.moved_to = ""

    def mint(self, user_id: int, expires_in: float = DAY, kind: str = "oauth") -> dict[str, Any]:
        """New tokens for a user; `long` has no refresh token, `code` is an authorization code (section 2.1)."""
        if kind == "code":
            code = "def502" + secrets.token_hex(40)
            self.codes[code] = Grant(user_id, time.time() + min(expires_in, CODE_LIFE))
            return {"code": code}
        now = time.time()
        access = self._jwt(user_id, int(now), int(now + expires_in), secrets.token_hex(20))
        self.access[access] = Grant(user_id, now + expires_in, kind)
        tokens: dict[str, Any] = {"token_type": "Bearer", "expires_in": int(expires_in), "server_time": self._world.now(), "access_token": access}
        if kind == "oauth":
            tokens["refresh_token"] = "def502" + secrets.token_hex(160)
            self.refresh[tokens["refresh_token"]] = Grant(user_id, now + REFRESH_LIFE)
        return tokens

    def standing(self, user_id: int) -> str:
        """The long-lived token of a user: the same one at every start with the same seed and port."""
        issued = 1_700_000_000
        token = self._jwt(user_id, issued, issued + 10 * 365 * DAY, f"{user_id:040x}")
        self.access.setdefault(token, Grant(user_id, issued + 10 * 365 * DAY, "long"))
        return token

    def _jwt(self, user_id: int, issued: int, expires: int, jti: str) -> str:
        """Claims as section 2.5 lists them."""
        claims: dict[str, Any] = {"aud": self.client_id, "jti": jti, "iat": issued, "nbf": issued, "exp": expires}
        if self._world.switches["jwt_claims"] == "with":
            scopes = ["crm", "notifications"] + ["files", "files_delete"] * (self._world.switches["drive_scope"] == "with")
            claims |= {"sub": str(user_id), "grant_type": "", "account_id": ACCOUNT_ID, "base_domain": "amocrm.ru", "version": 2,
                       "scopes": scopes, "hash_uuid": str(uuid.UUID(int=user_id)), "user_flags": 0,
                       "api_domain": self.api_domain}  # fmt: skip
        head = _b64(orjson.dumps({"typ": "JWT", "alg": "HS256"})) + "." + _b64(orjson.dumps(claims))
        return head + "." + _b64(hmac.new(self._secret, head.encode(), hashlib.sha256).digest())

    def revoke(self) -> None:
        """Every token dies: the admin disabled the integration (section 2.6)."""
        for grant in (*self.access.values(), *self.refresh.values(), *self.codes.values()):
            grant.revoked = True

    def grant_of(self, request: Request) -> Grant | None:
        """The living grant behind the Authorization header."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = self.access.get(token.strip()) if scheme.lower() == "bearer" else None
        return grant if grant is not None and grant.alive else None

    def answer(self, request: Request) -> Response:
        """Everything under /oauth2 and the authorize window."""
        if request.path == "/oauth2/access_token":
            return self._exchange(request) if request.method == "POST" else problem(405)
        if request.path == "/oauth2/account/current/subdomain" and request.method == "GET":
            return self._subdomain(request)
        if request.path == "/oauth" and request.method == "GET":
            return self._authorize(request)
        return problem(404)

    def _exchange(self, request: Request) -> Response:
        try:
            asked = request.payload()
        except ValueError:
            return _refused(400, "Некорректный запрос")
        if asked.get("client_id") != self.client_id or asked.get("client_secret") != self.client_secret:
            return _refused(401, "Некорректный клиент")
        if asked.get("redirect_uri") != self.redirect_uri:
            return _refused(400, "Некорректный запрос", hint="redirect_uri mismatch")
        if asked.get("grant_type") == "refresh_token":
            return self._rotate(str(asked.get("refresh_token")))
        if asked.get("grant_type") == "authorization_code":
            return self._redeem(str(asked.get("code")))
        return _refused(400, "Некорректный запрос", hint="Check the `grant_type` parameter")

    def _rotate(self, token: str) -> Response:
        grant = self.refresh.get(token)
        if grant is not None and grant.used:
            self.reuses += 1
            if self._world.switches["refresh_grace"] == "once" and grant.kind != "grace":
                grant.kind = "grace"
                return reply(self.mint(grant.user_id), content_type=JSON)
        if grant is None or not grant.alive:
            return _refused(int(self._world.switches["refresh_dead_status"]), "Некорректный запрос", hint="Token has been revoked")
        grant.used = True
        self.refreshes += 1
        return reply(self.mint(grant.user_id), content_type=JSON)

    def _redeem(self, code: str) -> Response:
        grant = self.codes.get(code)
        if grant is None or not grant.alive:
            return _refused(400, "Некорректный запрос", hint="Authorization code has been revoked")
        grant.used = True
        return reply(self.mint(grant.user_id), content_type=JSON)

    def _subdomain(self, request: Request) -> Response:
        """The look-up of a renamed account (section 2.7)."""
        grant = self.refresh.get(request.headers.get("x-refresh-token", ""))
        if grant is None or not grant.alive:
            return _refused(401, "Некорректный запрос", hint="Token has been revoked")
        return reply({"id": ACCOUNT_ID, "subdomain": SUBDOMAIN, "domain": self.moved_to or DOMAIN, "top_level_domain": "ru"}, content_type=JSON)

    def _authorize(self, request: Request) -> Response:
        """The authorize window, with an admin who always agrees (section 2.1)."""
        if request.params.get("client_id") != self.client_id:
            return problem(404)
        code = self.mint(self._world.account["current_user_id"], CODE_LIFE, "code")["code"]
        query = {"code": code, "referer": DOMAIN, "platform": "1"}
        if isinstance(request.params.get("state"), str):
            query["state"] = str(request.params["state"])
        return Response(302, headers={"Location": f"{self.redirect_uri}?{urlencode(query)}"})


def _refused(status: int, title: str, **more: str) -> Response:
    """An error of the token endpoint (section 2.4)."""
    body = {"title": title, "type": _PROBLEM_TYPE, "status": status, "detail": "Попробуйте повторить позже"}
    return reply(more | body, status, JSON)


def _b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
