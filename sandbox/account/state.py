"""State of the imitated account: its lists, clock and switches, and the viewers' rights.

The API and the changes of one account work on the same AccountState. Nothing here knows HTTP.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sandbox.account.lists import spec_of
from sandbox.account.store import Collection, Record
from sandbox.account.switches import Switches


class Events(Protocol):
    """The event log as changes use it (`account/event_log.py`)."""

    @property
    def events(self) -> Collection: ...

    def add_now(self, type_: str, entity: str, ident: int, by: int = 0, after: Sequence[Record] = (),
                before: Sequence[Record] = ()) -> None: ...


class Outbox(Protocol):
    """The webhook outbox as changes and the API use it (`webhooks/outbox.py`)."""

    def enqueue(self, action: str, path: str, record: Record, more: dict[str, Any] | None = None) -> None: ...
    def flush(self) -> None: ...
    def disable_failing(self) -> None: ...
    def forget_destination(self, destination: str) -> None: ...
    def send(self, destination: str, body: bytes, once: bool = False) -> None: ...
    def send_digital_pipeline(self, destination: str, lead: Record, before: Record) -> None: ...
    def describe_deliveries(self) -> dict[str, object]: ...


@dataclass(slots=True)
class Options:
    """Options of `python -m sandbox`."""

    port: int = 0
    host: str = "127.0.0.1"
    scale: int = 200
    seed: int = 1
    now: int = 0  # Unix time; 0: the real time
    real_clock: bool = False  # the data end at `now`, and the account's clock shows the real time
    fields: int = 8
    rate: float = 7.0
    latency_ms: float = 0.0
    switches: dict[str, str] = field(default_factory=dict)
    odd: bool = True  # with records of odd shapes and values; False: a plausible company
    accounts: int = 1  # each further account has its own port, the next seed and the next id
    until_eof: bool = False  # exit when stdin closes: no orphan process when a test dies


@dataclass(frozen=True, slots=True)
class Viewer:
    """The user with whose rights a request is answered (API section 1.9)."""

    user_id: int
    group_id: int
    is_admin: bool
    rights: Record

    def view_level(self, kind: str) -> str:
        """Returns the view right for one kind: A (all), G (group), M (own) or D (none); customers follow
        leads.

        API section 3.3.
        """
        if self.is_admin:
            return "A"
        rights = self.rights.get("leads" if kind == "customers" else kind, {})
        return str(rights.get("view", "M"))


class AccountState:
    """State of one account."""

    event_log: Events
    outbox: Outbox

    def __init__(self, options: Options) -> None:
        self.options = options
        self.start = options.now or int(time.time())
        self.switches = Switches()
        self.lists: dict[str, Collection] = {}
        self.account: Record = {}
        self.files_of: dict[tuple[str, int], list[Record]] = {}
        self.subscriptions: dict[tuple[str, int], list[Record]] = {}
        self.chats: list[Record] = []
        self.unsorted_counts = {"accepted": 0, "declined": 0, "seconds": 0}
        self._started_at = time.monotonic()

    def now(self) -> int:
        """Returns the account's current time in Unix seconds: its start plus the time passed since, by its
        own clock."""
        return self.start + int(time.monotonic() - self._started_at + self.switches.number("clock_skew"))

    def advance_clock(self, seconds: float) -> None:
        """Advances the account's clock; nothing else changes."""
        self._started_at -= seconds

    def list(self, path: str) -> Collection:
        """Returns the collection of a list path, creating it at first use; KeyError for an unknown path."""
        if path not in self.lists:
            spec = spec_of(path)
            if spec is None:
                raise KeyError(f"no such list: {path}")
            self.lists[path] = Collection(path, spec.sorted_by, spec.ident)
        return self.lists[path]

    def viewer(self, ident: int) -> Viewer | None:
        """Returns the viewer for a user, None if the user is not in the account."""
        record = self.list("users").get(ident)
        if record is None:
            return None
        rights = record["rights"]
        return Viewer(ident, rights["group_id"] or 0, rights["is_admin"], rights)
