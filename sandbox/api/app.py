"""What a request meets, in this order: control plane, limits, faults, the User-Agent rule, the token, the route."""

from collections.abc import Callable
from email.utils import formatdate
from itertools import count

from sandbox.account.lists import spec_of
from sandbox.account.state import World
from sandbox.api import endpoints, files, writes
from sandbox.api.filters import Selector
from sandbox.api.listing import Call, serve_list, serve_one
from sandbox.api.oauth import Authority
from sandbox.http.faults import Faults
from sandbox.http.rate_limits import Limiter, Stats
from sandbox.http.server import HTML, Request, Response, html, problem

API = "/api/v4/"


class App:
    """One running sandbox: the account, its tokens, its limits and its faults."""

    def __init__(self, world: World, authority: Authority, rate: float) -> None:
        self.world = world
        self.authority = authority
        self.limiter = Limiter(world.switches, rate)
        self.stats = Stats()
        self.faults = Faults()
        self.selector = Selector(world.switches)
        self.latency = 0.0
        self.control: Callable[[Request], Response] = lambda request: problem(404)
        self.after_request: Callable[[], None] = lambda: None
        self._numbers = count(1)
        self._told = (0, "")

    def handle(self, request: Request) -> Response:
        """The answer to any request."""
        if request.path.startswith("/_sandbox"):
            return self.control(request)
        self.stats.arrived(request)
        self.world.hooks.settle()
        response = self.limiter.refuse(request) or self._faulty(request)
        response.delay += self.latency
        response.headers["Date"] = self._date()
        response.headers["X-Request-Id"] = f"{next(self._numbers):032x}"
        self.stats.answered(response)
        self.after_request()
        return response

    def _date(self) -> str:
        """The account's present as an HTTP date."""
        now = self.world.now()
        if self._told[0] != now:
            self._told = (now, formatdate(now, usegmt=True))
        return self._told[1]

    def _faulty(self, request: Request) -> Response:
        fault = self.faults.striking(request)
        return fault.strike(lambda: self._answer(request)) if fault else self._answer(request)

    def _answer(self, request: Request) -> Response:
        if self.world.switches["require_user_agent"] == "on" and not request.headers.get("user-agent"):
            return html(403, "Forbidden")
        if self.authority.moved_to and request.headers.get("host") != self.authority.moved_to:
            return problem(401, "Unauthorized")  # an unknown subdomain (section 1.1)
        if request.path.startswith("/oauth"):
            return self.authority.answer(request)
        if not request.path.startswith((API, "/drive/")) and request.path != "/api/v2/products_settings":
            return Response(404, b"<html><body>404</body></html>", HTML)
        grant = self.authority.grant_of(request)
        if grant is None:
            return problem(401, "Unauthorized")
        asked = request.headers.get("x-context-user-id", str(grant.user_id))
        viewer = self.world.user(int(asked)) if asked.isdigit() else None
        if viewer is None and "x-context-user-id" not in request.headers:
            viewer = endpoints.departed(grant.user_id)  # an admin's token outlives the admin (section 2.1)
        if viewer is None:
            return problem(401, "Unauthorized")
        if request.path == "/api/v2/products_settings":
            request.path = API + "products/settings"
        call = Call(self.world, self.selector, request, viewer)
        if request.path.startswith("/drive/"):
            return files.answer(call)
        found = writes.answer(call) or endpoints.special(call)
        return found if found is not None else self._generic(call)

    def _generic(self, call: Call) -> Response:
        """A list of the table, or one of its records."""
        path = call.request.path.removeprefix(API).strip("/")
        spec, parent, last = spec_of(path), *_split(path)
        above = spec_of(parent)
        known = (spec is not None and endpoints.has_parent(call.world, path)) or (above is not None and endpoints.has_parent(call.world, parent))
        if not known:
            return problem(404)
        if call.request.method != "GET":
            return problem(405)
        if spec is not None:
            return serve_list(call, spec, path)
        assert above is not None
        return serve_one(call, above, parent, last)


def _split(path: str) -> tuple[str, str]:
    parent, _, last = path.rpartition("/")
    return parent, last
