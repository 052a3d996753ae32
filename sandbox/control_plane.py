"""Control plane under /_sandbox/: truth, statistics, faults, switches, tokens, mutations.

Plain JSON; needs no token and is exempt from rate limits and faults. Tests compare a mirror with the truth
served here, which is read directly from the store.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from sandbox.account.lists import spec_of
from sandbox.api import endpoints
from sandbox.api.app import App
from sandbox.api.listing import access_refusal, with_nasty_bytes
from sandbox.changes.churn import RandomChanges
from sandbox.changes.operations import new_mutator
from sandbox.http.server import JSON, Request, Response, reply
from sandbox.webhooks.outbox import is_local

Body = Any


class ControlPlane:
    """Handles the requests under /_sandbox/ for one App."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._mutator = new_mutator(app.state)
        self._random_changes = RandomChanges(self._mutator)
        self._post_routes: dict[str, Callable[[Body], Any]] = {
            "stats/reset": lambda body: self._reset_stats(),
            "faults": self._add_faults,
            "switches": self._set_switches,
            "tokens": self._issue_tokens,
            "rename": lambda body: setattr(self._app.authority, "moved_to", str(body["host"])),
            "integration": lambda body: setattr(self._app.authority, "redirect_uri",
                                                str(body["redirect_uri"])),
            "revoke": lambda body: self._app.authority.revoke(),
            "mutate": lambda body: self._mutator.apply(body if isinstance(body, list) else [body]),
            "churn": lambda body: self._random_changes.run(int(body.get("n", 1)), body.get("seed", 0),
                                                           body.get("kinds")),
            "drift": self._set_drift, "clock": self._advance_clock, "hooks": self._deliver,
            "digital_pipeline": self._enter_stage,
            "latency": lambda body: setattr(self._app, "latency", float(body["ms"]) / 1000),
            "rate": lambda body: setattr(self._app.limiter, "rate", float(body["rate"])),
            "block": self._set_block,
        }
        self._get_routes: dict[str, Callable[[], Any]] = {
            "": self._index,
            "truth": self._list_counts,
            "stats": self._stats,
            "hooks": lambda: self._app.state.outbox.describe_deliveries(),
            "switches": lambda: self._app.state.switches.describe(),
            "faults": lambda: [{"kind": r.kind, "match": r.match, "matched": r.matched, "hits": r.hits}
                               for r in self._app.faults.rules],
        }

    def handle(self, request: Request) -> Response:
        """Returns the response to a request under /_sandbox/; 400 for a bad body, 404 if unknown."""
        name = request.path.removeprefix("/_sandbox").strip("/")
        try:
            if request.method == "GET" and name.startswith("truth/"):
                return Response(200, self._truth(unquote(name.removeprefix("truth/"))),
                                "application/x-ndjson")
            if request.method == "GET" and name in self._get_routes:
                return reply(self._get_routes[name](), content_type=JSON)
            if request.method == "DELETE" and name == "faults":
                self._app.faults.rules.clear()
                return reply({"ok": True}, content_type=JSON)
            if request.method == "POST" and name in self._post_routes:
                result = self._post_routes[name](request.json() if request.body else {})
                return reply({"ok": True} if result is None else result, content_type=JSON)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            return reply({"error": f"{type(error).__name__}: {error}"}, 400, JSON)
        return reply({"error": f"no such thing: {request.method} {request.path}"}, 404, JSON)

    def _index(self) -> Body:
        app, authority = self._app, self._app.authority
        admin, manager = app.state.account["current_user_id"], self._manager_id()
        return {
            "now": app.state.now(), "account_id": app.state.account["id"], "client_id": authority.client_id,
            "client_secret": authority.client_secret, "redirect_uri": authority.redirect_uri,
            "admin_token": authority.long_lived_token(admin),
            "manager_token": authority.long_lived_token(manager), "admin_id": admin, "manager_id": manager,
        }  # fmt: skip

    def _manager_id(self) -> int:
        users = self._app.state.list("users").records()
        return next(int(u["id"]) for u in users
                    if not u["rights"]["is_admin"] and u["rights"]["leads"]["view"] == "M")

    def _list_counts(self) -> Body:
        return {"account": 1} | {path: len(coll) for path, coll in sorted(self._app.state.lists.items())}

    def _truth(self, path: str) -> bytes:
        state = self._app.state
        records, spec = endpoints.derived_truth(state, path), spec_of(path)
        if records is None:
            if "{" in path:  # one list per parent: the truth of all of them
                like = re.compile(re.sub(r"\{\w*\}", r"\\d+", path) + "$")
                return b"".join(self._truth(held) for held in sorted(state.lists) if like.match(held))
            if spec is None:
                raise KeyError(path)
            viewer = state.viewer(state.account["current_user_id"]) or endpoints.departed_admin(0)
            hidden = access_refusal(state, viewer, spec) is not None
            records = [] if hidden else [state.list(path).rows[ident] for ident in state.list(path).ids]
        return with_nasty_bytes(state, b"\n".join(records) + b"\n" * bool(records))

    def _stats(self) -> Body:
        authority = self._app.authority
        more = {"refreshes": authority.refreshes, "refresh_reuses": authority.reuses,
                "latency_ms": self._app.latency * 1000, "rate": self._app.limiter.rate,
                "blocked": self._app.limiter.blocked}  # fmt: skip
        return self._app.stats.describe() | more

    def _reset_stats(self) -> None:
        self._app.stats.reset()
        self._app.authority.refreshes = self._app.authority.reuses = 0

    def _add_faults(self, body: Body) -> None:
        self._app.faults.add(body if isinstance(body, list) else [body])

    def _set_switches(self, body: Body) -> Body:
        for name, value in body.items():
            self._app.state.switches.set(name, value)
        return self._app.state.switches.describe()

    def _issue_tokens(self, body: Body) -> Body:
        user = body.get("user", "admin")
        names = {"admin": self._app.state.account["current_user_id"], "manager": self._manager_id()}
        kind = body.get("kind", "oauth")
        return (self._app.authority.issue(names.get(user, user), float(body.get("expires_in", 86400)), kind)
                | {"user_id": names.get(user, user)})

    def _set_block(self, body: Body) -> None:
        if body.get("on", True):
            self._app.limiter.blocked = True
        else:
            self._app.limiter.unblock()

    def _advance_clock(self, body: Body) -> None:
        """Advances the account's clock by `ahead` seconds."""
        self._app.state.advance_clock(float(body["ahead"]))

    def _deliver(self, body: Body) -> None:
        """Delivers the given body to a loopback destination."""
        if not is_local(body["destination"]):
            raise ValueError("the destination is not on this computer")
        self._app.state.outbox.send(body["destination"], body["body"].encode(),
                                    bool(body.get("once")))

    def _enter_stage(self, body: Body) -> None:
        """Moves a lead to a stage and sends the digital pipeline's webhook without retries (section 3.30)."""
        before = self._mutator.require("leads", body["id"])
        self._mutator.apply([{"op": "move"} | {name: body[name] for name in ("id", "status_id", "pipeline_id")
                                               if name in body}])
        self._app.state.outbox.send_digital_pipeline(body["destination"],
                                                     self._mutator.require("leads", body["id"]), before)

    def _set_drift(self, body: Body) -> None:
        """Applies one random change after every `every`-th API request; every=0 stops it."""
        every, seed, kinds = int(body.get("every", 0)), int(body.get("seed", 0)), body.get("kinds")
        request_count = [0]

        def change_after_request() -> None:
            request_count[0] += 1
            if every and request_count[0] % every == 0:
                self._random_changes.run(1, f"{seed} {request_count[0]}", kinds)

        self._app.after_request = change_after_request
