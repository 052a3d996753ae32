"""Request pipeline, in order: control plane, rate limits, faults, User-Agent rule, token, route."""

from collections.abc import Callable
from email.utils import formatdate
from itertools import count

from sandbox.account.lists import spec_of
from sandbox.account.state import AccountState
from sandbox.api import endpoints, files, writes
from sandbox.api.filters import Selector
from sandbox.api.listing import Call, serve_list, serve_one
from sandbox.api.oauth import TokenAuthority
from sandbox.http.faults import Faults
from sandbox.http.rate_limits import RateLimiter, RequestStats
from sandbox.http.server import HTML, Request, Response, html_page, problem

API = "/api/v4/"


class App:
    """One running account of the sandbox: its state, tokens, rate limits and faults."""

    def __init__(self, state: AccountState, authority: TokenAuthority, rate: float) -> None:
        self.state = state
        self.authority = authority
        self.limiter = RateLimiter(state.switches, rate)
        self.stats = RequestStats()
        self.faults = Faults()
        self.selector = Selector(state.switches)
        self.latency = 0.0
        self.control: Callable[[Request], Response] = lambda request: problem(404)
        self.after_request: Callable[[], None] = lambda: None
        self._request_numbers = count(1)
        self._date_header = (0, "")

    def handle(self, request: Request) -> Response:
        """Returns the response to any request."""
        if request.path.startswith("/_sandbox"):
            return self.control(request)
        self.stats.count_request(request)
        self.state.outbox.disable_failing()
        response = self.limiter.check(request) or self._answer_with_faults(request)
        response.delay += self.latency
        response.headers["Date"] = self._date()
        response.headers["X-Request-Id"] = f"{next(self._request_numbers):032x}"
        self.stats.count_response(response)
        self.after_request()
        return response

    def _date(self) -> str:
        """Returns the account's current time as an HTTP date; formatted once per second."""
        now = self.state.now()
        if self._date_header[0] != now:
            self._date_header = (now, formatdate(now, usegmt=True))
        return self._date_header[1]

    def _answer_with_faults(self, request: Request) -> Response:
        fault = self.faults.first_hit(request)
        return fault.apply(lambda: self._answer(request)) if fault else self._answer(request)

    def _answer(self, request: Request) -> Response:
        if self.state.switches["require_user_agent"] == "on" and not request.headers.get("user-agent"):
            return html_page(403, "Forbidden")
        if self.authority.moved_to and request.headers.get("host") != self.authority.moved_to:
            return problem(401, "Unauthorized")  # amoCRM does not know the subdomain (section 1.1)
        if request.path.startswith("/oauth"):
            return self.authority.answer(request)
        if not request.path.startswith((API, "/drive/")) and request.path != "/api/v2/products_settings":
            return Response(404, b"<html><body>404</body></html>", HTML)
        grant = self.authority.grant_of(request)
        if grant is None:
            return problem(401, "Unauthorized")
        asked_user = request.headers.get("x-context-user-id", str(grant.user_id))
        viewer = self.state.viewer(int(asked_user)) if asked_user.isdigit() else None
        if viewer is None and "x-context-user-id" not in request.headers:
            # an admin's token stays valid after the admin leaves (section 2.1)
            viewer = endpoints.departed_admin(grant.user_id)
        if viewer is None:
            return problem(401, "Unauthorized")
        if request.path == "/api/v2/products_settings":
            request.path = API + "products/settings"
        call = Call(self.state, self.selector, request, viewer)
        if request.path.startswith("/drive/"):
            return files.answer(call)
        response = writes.answer(call) or endpoints.answer_route(call)
        return response if response is not None else self._serve_list_or_record(call)

    def _serve_list_or_record(self, call: Call) -> Response:
        """Answers for a list declared in `account/lists.py`, or for one of its records."""
        path = call.request.path.removeprefix(API).strip("/")
        spec, parent, last = spec_of(path), *_split_parent(path)
        parent_spec = spec_of(parent)
        exists = ((spec is not None and endpoints.has_parent(call.state, path))
                  or (parent_spec is not None and endpoints.has_parent(call.state, parent)))
        if not exists:
            return problem(404)
        if call.request.method != "GET":
            return problem(405)
        if spec is not None:
            return serve_list(call, spec, path)
        assert parent_spec is not None
        return serve_one(call, parent_spec, parent, last)


def _split_parent(path: str) -> tuple[str, str]:
    parent, _, last = path.rpartition("/")
    return parent, last
