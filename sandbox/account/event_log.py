"""Event log: the events that amoCRM keeps for changes (API section 3.20).

An event's id is built from its time and its sequence number, as in a ULID; the store keys events by the
number.
"""

from array import array
from collections.abc import Sequence
from typing import Any

from sandbox.account.identity import ACCOUNT_ID, API_URL, plural
from sandbox.account.state import AccountState
from sandbox.account.store import Collection, Record, dumps, loads

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LETTER_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_LETTER_VALUES = {letter: place for place, letter in enumerate(_ALPHABET)}
_NUMBER_MASK = (1 << 32) - 1
_EVENT_TEMPLATE = (
    b'{"id":"%b","type":"%b","entity_id":%d,"entity_type":"%b","created_by":%d,"created_at":%d,'
    b'"value_after":%b,"value_before":%b,'
    + f'"account_id":{ACCOUNT_ID},'.encode()
    + b'"_links":{"self":{"href":"'
    + f"{API_URL}/events/".encode().replace(b"%", b"%%")
    + b'%b"}},"_embedded":{"entity":{"id":%d,%b"_links":{"self":{"href":"'
    + f"{API_URL}/".encode()
    + b'%b/%d"}}}}}'
)


def event_id(at: int, number: int) -> str:
    """Returns an event id of 26 letters: time, sequence number (ids of one second sort in order of
    occurrence), noise.

    `at` is in Unix seconds.
    """
    noise = (number * 0x85EBCA6B13 ^ at * 0xC2B2AE35) & ((1 << 45) - 1)
    value = at * 1000 << 80 | number << 45 | noise
    return "".join([_LETTER_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def event_number(ident: str) -> int | None:
    """Returns the sequence number inside an event id, None if the text is not an event id."""
    if len(ident) != 26 or any(letter not in _LETTER_VALUES for letter in ident):
        return None
    value = 0
    for letter in ident[-16:]:
        value = value << 5 | _LETTER_VALUES[letter]
    return value >> 45 & _NUMBER_MASK


class EventCollection(Collection):
    """The events collection: external ids are letters, internal keys are sequence numbers."""

    def find_id(self, external: str) -> int | None:
        number = event_number(external)
        found = self.rows.get(number) if number is not None else None
        return number if found is not None and external.encode() in found[:40] else None

    def internal_id(self, record: Record) -> int:
        return event_number(record["id"]) or 0


class EventLog:
    """Writes events: in bulk while the account is being built, one by one afterwards."""

    def __init__(self, state: AccountState) -> None:
        self._state = state
        self.events = EventCollection("events", ("created_at",))
        state.lists["events"] = self.events
        self._bulk_keys: array[int] | None = array(
            "q")  # unsorted order keys while the account is being built
        self._last_number = 0

    def add(self, type_: str, entity: str, ident: int, at: int, by: int, after: bytes = b"[]",
            before: bytes = b"[]", more: bytes = b"") -> None:
        """Adds one event at `at` (Unix seconds). `after` and `before` are JSON already.

        `more` holds further attributes of `_embedded.entity` as JSON, each followed by a comma.
        """
        self._last_number += 1
        name, key = type_.encode(), event_id(at, self._last_number).encode()
        path = f"catalogs/{entity[8:]}/elements" if entity.startswith("catalog_") else plural(entity)
        row = _EVENT_TEMPLATE % (key, name, ident, entity.encode(), by, at, after, before, key, ident, more,
                                 path.encode(), ident)
        if self._bulk_keys is not None:
            self._bulk_keys.append(at << 32 | self._last_number)
            self.events.rows[self._last_number] = bytes(memoryview(row))
        else:
            self.events.put(loads(row))

    def add_now(self, type_: str, entity: str, ident: int, by: int = 0, after: Sequence[Record] = (),
                before: Sequence[Record] = ()) -> None:
        """Adds one event at the account's current time."""
        self.add(type_, entity, ident, self._state.now(), by, dumps(list(after)), dumps(list(before)))

    def finish_bulk(self) -> None:
        """Ends the bulk phase: sorts the events written while the account was being built."""
        if self._bulk_keys is not None:
            self.events.ids = array("q", range(1, self._last_number + 1))
            self.events.orders["created_at"] = array("q", sorted(self._bulk_keys))
            self._bulk_keys = None


def event_payload(key: str, **payload: Any) -> list[Record]:
    """Returns an event payload of one entry: ("note", id=5) gives [{"note": {"id": 5}}]."""
    return [{key: payload}]
