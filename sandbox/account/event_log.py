"""Events: what amoCRM remembers of a change (API section 3.20).

An event's id is its time and its number, as in a ULID; inside, events go by the number.
"""

from array import array
from collections.abc import Sequence
from typing import Any

from sandbox.account.identity import ACCOUNT_ID, BASE, plural
from sandbox.account.state import World
from sandbox.account.store import Collection, Record, dumps, loads

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUES = {letter: place for place, letter in enumerate(_ALPHABET)}
_WORD = (1 << 32) - 1
_TEMPLATE = (
    b'{"id":"%b","type":"%b","entity_id":%d,"entity_type":"%b","created_by":%d,"created_at":%d,"value_after":%b,"value_before":%b,'
    + f'"account_id":{ACCOUNT_ID},'.encode()
    + b'%b"_links":{"self":{"href":"'
    + f"{BASE}/events/".encode().replace(b"%", b"%%")
    + b'%b"}},"_embedded":{"entity":{"id":%d,"_links":{"self":{"href":"'
    + f"{BASE}/".encode()
    + b'%b/%d"}}}}}'
)


def event_id(at: int, number: int) -> str:
    """26 letters: the time, the number (so that ids of one second sort as they happened), noise."""
    noise = (number * 0x85EBCA6B13 ^ at * 0xC2B2AE35) & ((1 << 45) - 1)
    value = at * 1000 << 80 | number << 45 | noise
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def event_number(ident: str) -> int | None:
    """The number inside an event's id, None when it is no such id."""
    if len(ident) != 26 or any(letter not in _VALUES for letter in ident):
        return None
    value = 0
    for letter in ident[-16:]:
        value = value << 5 | _VALUES[letter]
    return value >> 45 & _WORD


class Events(Collection):
    """The list of events: its ids are letters, its keys numbers."""

    def locate(self, external: str) -> int | None:
        number = event_number(external)
        found = self.rows.get(number) if number is not None else None
        return number if found is not None and external.encode() in found[:40] else None

    def external(self, record: Record) -> int:
        return event_number(record["id"]) or 0


class Journal:
    """Writes events, one by one or, while the account is being built, in bulk."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.events = Events("events", ("created_at",))
        world.lists["events"] = self.events
        self._bulk: array[int] | None = array("q")  # the order, not yet sorted, while the account is being built
        self._number = 0

    def add(self, type_: str, entity: str, ident: int, at: int, by: int, after: bytes = b"[]", before: bytes = b"[]",
            more: bytes = b"") -> None:
        """One event, its payloads already JSON; `more`: further attributes, each followed by a comma."""
        self._number += 1
        name, key = type_.encode(), event_id(at, self._number).encode()
        path = f"catalogs/{entity[8:]}/elements" if entity.startswith("catalog_") else plural(entity)
        row = _TEMPLATE % (key, name, ident, entity.encode(), by, at, after, before, more, key, ident, path.encode(), ident)
        if self._bulk is not None:
            self._bulk.append(at << 32 | self._number)
            self.events.rows[self._number] = bytes(memoryview(row))
        else:
            self.events.put(loads(row))

    def record(self, type_: str, entity: str, ident: int, by: int = 0, after: Sequence[Record] = (), before: Sequence[Record] = ()) -> None:
        """One event that happens now."""
        self.add(type_, entity, ident, self._world.now(), by, dumps(list(after)), dumps(list(before)))

    def settle(self) -> None:
        """The account is built: sort what was written in bulk."""
        if self._bulk is not None:
            self.events.ids = array("q", range(1, self._number + 1))
            self.events.orders["created_at"] = array("q", sorted(self._bulk))
            self._bulk = None


def wrap(key: str, **payload: Any) -> list[Record]:
    """A payload of one entry: wrap("note", id=5) is [{"note": {"id": 5}}]."""
    return [{key: payload}]
