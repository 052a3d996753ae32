"""The control plane, /_sandbox/: truth, statistics, faults, switches, tokens, mutations.

No token, no limits, no faults; plain JSON. Tests compare a mirror with the truth given here, which comes
straight from the store.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sandbox.account.lists import spec_of
from sandbox.api import endpoints
from sandbox.api.listing import nasty_bytes, refused
from sandbox.changes.churn import Churn
from sandbox.changes.mutator import Mutator
from sandbox.http.server import JSON, Request, Response, reply
from sandbox.webhooks.outbox import is_local

if TYPE_CHECKING:
    from sandbox.api.app import App

Body = Any


class Control:
    """Handles the requests under /_sandbox/ of one App."""

    def __init__(self, app: "App") -> None:
        self._app = app
        self._mutator = Mutator(app.world)
        self._churn = Churn(self._mutator)
        self._posts: dict[str, Callable[[Body], Any]] = {
            "stats/reset": lambda body: self._reset(),
            "faults": self._add_faults,
            "switches": self._turn,
            "tokens": self._mint,
            "rename": lambda body: setattr(self._app.authority, "moved_to", str(body["host"])),
            "integration": lambda body: setattr(self._app.authority, "redirect_uri", str(body["redirect_uri"])),
            "revoke": lambda body: self._app.authority.revoke(),
            "mutate": lambda body: self._mutator.apply(body if isinstance(body, list) else [body]),
            "churn": lambda body: self._churn.run(int(body.get("n", 1)), body.get("seed", 0), body.get("kinds")),
            "drift": self._drift, "clock": self._clock, "hooks": self._post, "digital_pipeline": self._move,
            "latency": lambda body: setattr(self._app, "latency", float(body["ms"]) / 1000),
            "rate": lambda body: setattr(self._app.limiter, "rate", float(body["rate"])),
            "block": self._block,
        }
        self._gets: dict[str, Callable[[], Any]] = {
            "": self._index,
            "truth": self._kinds,
            "stats": self._stats,
            "hooks": lambda: self._app.world.hooks.postman.describe(),
            "switches": lambda: self._app.world.switches.describe(),
            "faults": lambda: [{"kind": r.kind, "match": r.match, "matched": r.matched, "hits": r.hits} for r in self._app.faults.rules],
        }

    def handle(self, request: Request) -> Response:
        """The answer to one request under /_sandbox/."""
        name = request.path.removeprefix("/_sandbox").strip("/")
        try:
            if request.method == "GET" and name.startswith("truth/"):
                return Response(200, self._truth(unquote(name.removeprefix("truth/"))), "application/x-ndjson")
            if request.method == "GET" and name in self._gets:
                return reply(self._gets[name](), content_type=JSON)
            if request.method == "DELETE" and name == "faults":
                self._app.faults.rules.clear()
                return reply({"ok": True}, content_type=JSON)
            if request.method == "POST" and name in self._posts:
                found = self._posts[name](request.json() if request.body else {})
                return reply({"ok": True} if found is None else found, content_type=JSON)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            return reply({"error": f"{type(error).__name__}: {error}"}, 400, JSON)
        return reply({"error": f"no such thing: {request.method} {request.path}"}, 404, JSON)

    def _index(self) -> Body:
        app, authority = self._app, self._app.authority
        admin, manager = app.world.account["current_user_id"], self._manager()
        return {
            "now": app.world.now(), "account_id": app.world.account["id"], "client_id": authority.client_id,
            "client_secret": authority.client_secret, "redirect_uri": authority.redirect_uri,
            "admin_token": authority.standing(admin), "manager_token": authority.standing(manager),
            "admin_id": admin, "manager_id": manager,
        }  # fmt: skip

    def _manager(self) -> int:
        users = self._app.world.list("users").records()
        return next(int(u["id"]) for u in users if not u["rights"]["is_admin"] and u["rights"]["leads"]["view"] == "M")

    def _kinds(self) -> Body:
        return {"account": 1} | {path: len(coll) for path, coll in sorted(self._app.world.lists.items())}

    def _truth(self, path: str) -> bytes:
        world = self._app.world
        found, spec = endpoints.derived(world, path), spec_of(path)
        if found is None:
            if "{" in path:  # one list per parent: all of them
                like = re.compile(re.sub(r"\{\w*\}", r"\\d+", path) + "$")
                return b"".join(self._truth(held) for held in sorted(world.lists) if like.match(held))
            if spec is None:
                raise KeyError(path)
            viewer = world.user(world.account["current_user_id"]) or endpoints.departed(0)
            hidden = refused(world, viewer, spec) is not None
            found = [] if hidden else [world.list(path).rows[ident] for ident in world.list(path).ids]
        return nasty_bytes(world, b"\n".join(found) + b"\n" * bool(found))

    def _stats(self) -> Body:
        authority = self._app.authority
        more = {"refreshes": authority.refreshes, "refresh_reuses": authority.reuses, "latency_ms": self._app.latency * 1000,
                "rate": self._app.limiter.rate, "blocked": self._app.limiter.blocked}  # fmt: skip
        return self._app.stats.describe() | more

    def _reset(self) -> None:
        self._app.stats.reset()
        self._app.authority.refreshes = self._app.authority.reuses = 0

    def _add_faults(self, body: Body) -> None:
        self._app.faults.add(body if isinstance(body, list) else [body])

    def _turn(self, body: Body) -> Body:
        for name, value in body.items():
            self._app.world.switches.set(name, value)
        return self._app.world.switches.describe()

    def _mint(self, body: Body) -> Body:
        user = body.get("user", "admin")
        names = {"admin": self._app.world.account["current_user_id"], "manager": self._manager()}
        kind = body.get("kind", "oauth")
        return self._app.authority.mint(names.get(user, user), float(body.get("expires_in", 86400)), kind) | {"user_id": names.get(user, user)}

    def _block(self, body: Body) -> None:
        if body.get("on", True):
            self._app.limiter.blocked = True
        else:
            self._app.limiter.unblock()

    def _clock(self, body: Body) -> None:
        """The account's clock goes ahead by so many seconds."""
        self._app.world.go_ahead(float(body["ahead"]))

    def _post(self, body: Body) -> None:
        """One delivery of anything, to a destination on this computer."""
        if not is_local(body["destination"]):
            raise ValueError("the destination is not on this computer")
        self._app.world.hooks.postman.send(body["destination"], body["body"].encode(), bool(body.get("once")))

    def _move(self, body: Body) -> None:
        """A lead enters a stage, and a webhook of the digital pipeline tells of it, once (section 3.30)."""
        before = self._mutator.found("leads", body["id"])
        self._mutator.apply([{"op": "move"} | {name: body[name] for name in ("id", "status_id", "pipeline_id") if name in body}])
        self._app.world.hooks.digital_pipeline(body["destination"], self._mutator.found("leads", body["id"]), before)

    def _drift(self, body: Body) -> None:
        """After every k-th API request one random mutation; every=0 ends it."""
        every, seed, kinds = int(body.get("every", 0)), int(body.get("seed", 0)), body.get("kinds")
        counted = [0]

        def after() -> None:
            counted[0] += 1
            if every and counted[0] % every == 0:
                self._churn.run(1, f"{seed} {counted[0]}", kinds)

        self._app.after_request = after
