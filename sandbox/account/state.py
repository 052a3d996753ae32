"""The state of the imitated account: its lists, its clock, its switches, who looks at it.

Everything that answers or changes works on one World; nothing here knows HTTP.
"""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox.account.lists import spec_of
from sandbox.account.store import Collection, Record
from sandbox.account.switches import Switches

if TYPE_CHECKING:
    from sandbox.account.event_log import Journal
    from sandbox.webhooks.outbox import Hooks


@dataclass(slots=True)
class Options:
    """What `python -m sandbox` can be told."""

    port: int = 0
    host: str = "127.0.0.1"
    scale: int = 200
    seed: int = 1
    now: int = 0  # 0: the present
    fields: int = 8
    rate: float = 7.0
    latency_ms: float = 0.0
    switches: dict[str, str] = field(default_factory=dict)
    accounts: int = 1  # further ones each on a port of its own, of the next seed and id
    until_eof: bool = False  # end when stdin closes: no orphans when a test dies


@dataclass(frozen=True, slots=True)
class Viewer:
    """The user whose rights a request has (API section 1.9)."""

    user_id: int
    group_id: int
    is_admin: bool
    rights: Record

    def view(self, kind: str) -> str:
        """A, G, M or D for the rows of one kind; customers follow leads (API section 3.3)."""
        if self.is_admin:
            return "A"
        found = self.rights.get("leads" if kind == "customers" else kind, {})
        return str(found.get("view", "M"))


class World:
    """One account."""

    journal: "Journal"
    hooks: "Hooks"

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
        self._began = time.monotonic()

    def now(self) -> int:
        """The account's present: its start and the time that has passed since."""
        return self.start + int(time.monotonic() - self._began)

    def go_ahead(self, seconds: float) -> None:
        """Time passes without anything happening."""
        self._began -= seconds

    def list(self, path: str) -> Collection:
        """The collection of a list path, created when the path is that of a list."""
        if path not in self.lists:
            spec = spec_of(path)
            if spec is None:
                raise KeyError(f"no such list: {path}")
            self.lists[path] = Collection(path, spec.sorted_by, spec.ident)
        return self.lists[path]

    def user(self, ident: int) -> Viewer | None:
        """The rights of one user; None when he is not in the account."""
        record = self.list("users").get(ident)
        if record is None:
            return None
        rights = record["rights"]
        return Viewer(ident, rights["group_id"] or 0, rights["is_admin"], rights)
