"""Which records a list request means, and in which order: filters, rights and order[...] over a Collection.

The common requests (everything by id, a window of updated_at) are slices of the store's own orders. Whatever
else is asked for is computed once per version of the collection and remembered for the following pages.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.account.lists import List
from sandbox.account.store import ID_MASK, Collection, Record, dumps, key_of, loads
from sandbox.account.switches import Switches
from sandbox.http import php_query
from sandbox.http.php_query import Node, Tree

Test = Callable[[bytes], bool]
_BUCKETS = ("entity_id", "customer_id")


@dataclass(frozen=True, slots=True)
class Selected:
    """A run of ids: part of an array of keys, read forwards or backwards."""

    keys: Sequence[int]
    start: int
    stop: int
    backwards: bool = False

    def __len__(self) -> int:
        return self.stop - self.start

    def page(self, offset: int, limit: int) -> list[int]:
        """The ids of one page."""
        if self.backwards:
            high = max(self.start, self.stop - offset)
            found = self.keys[max(self.start, high - limit) : high][::-1]
        else:
            low = min(self.stop, self.start + offset)
            found = self.keys[low : min(self.stop, low + limit)]
        return [key & ID_MASK for key in found]


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter: ids that an index gives at once, or a test of a row's bytes, or a slice of an order."""

    ids: Iterable[int] | None = None
    test: Test | None = None
    order: str = ""
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What order[...] asked for, or the default; name "" = shuffled."""

    name: str
    descending: bool


class Selector:
    """Answers `select` and remembers the last costly answers."""

    def __init__(self, switches: Switches) -> None:
        self._switches = switches
        self._memory: OrderedDict[tuple[object, ...], Selected] = OrderedDict()

    def select(self, coll: Collection, conditions: list[Condition], order: Order, label: str) -> Selected:
        """The ids that satisfy all conditions, sorted; `label` identifies the conditions for the memory."""
        quick = self._slice(coll, conditions, order)
        if quick is not None:
            return quick
        key = (coll.path, coll.version, label, order, self._switches.version)
        if key not in self._memory:
            found = _sorted(coll, _matching(coll, conditions), order)
            self._memory[key] = Selected(found, 0, len(found), order.descending)
            while len(self._memory) > 8:
                self._memory.popitem(last=False)
        self._memory.move_to_end(key)
        return self._memory[key]

    def _slice(self, coll: Collection, conditions: list[Condition], order: Order) -> Selected | None:
        """The answer when it is a slice of one of the store's orders."""
        if order.name == "id" and not conditions:
            return Selected(coll.ids, 0, len(coll.ids), order.descending)
        keys = coll.orders.get(order.name)
        if keys is None or (not conditions and len(keys) < len(coll)):
            return None
        if not conditions:
            return Selected(keys, 0, len(keys), order.descending)
        if len(conditions) == 1 and conditions[0].order == order.name:
            start, stop = coll.between(order.name, conditions[0].low, conditions[0].high)
            return Selected(keys, start, stop, order.descending)
        return None


def _matching(coll: Collection, conditions: list[Condition]) -> list[int]:
    """Ids that satisfy every condition: the smallest index first, the rest tested on the rows."""
    sets: list[Iterable[int]] = [c.ids for c in conditions if c.ids is not None]
    for condition in conditions:
        if condition.order:
            start, stop = coll.between(condition.order, condition.low, condition.high)
            sets.append([key & ID_MASK for key in coll.orders[condition.order][start:stop]])
    found: Iterable[int] = coll.ids
    if sets:
        kept = set(sets[0])
        for other in sets[1:]:
            kept.intersection_update(other)
        found = [ident for ident in kept if ident in coll.rows]
    tests = [c.test for c in conditions if c.test is not None]
    return [ident for ident in found if all(test(coll.rows[ident]) for test in tests)]


def _sorted(coll: Collection, found: list[int], order: Order) -> list[int]:
    if order.name == "id":
        return sorted(found)
    if not order.name:
        return sorted(found, key=lambda ident: (ident * 2654435761) & ID_MASK)
    wanted = set(found)
    keyed = [key & ID_MASK for key in coll.orders[order.name] if key & ID_MASK in wanted] if len(found) > 1000 else None
    if keyed is not None and len(keyed) == len(found):
        return keyed
    keys = [(key_of(loads(coll.rows[ident]).get(order.name), ident) or ident) for ident in found]
    return [key & ID_MASK for key in sorted(keys)]


def order_of(spec: List, asked: Node, switches: Switches) -> Order:
    """order[...] where its key is a documented one, else the default (sections 0 and 6.11)."""
    allowed = spec.orders
    if spec.path == "customers" and switches["customers_order"] == "honour":
        allowed = ("updated_at", "id")
    if switches["updated_at_order"] == "ignore":
        allowed = tuple(name for name in allowed if name != "updated_at")
    for name, direction in php_query.branch(asked).items():
        if name in allowed:
            return Order(name, php_query.text(direction).lower() == "desc")
    if spec.path == "events":
        return _default("created_at", switches["events_order"])
    return _default(spec.orders[0] if not spec.limit and spec.orders else "id", switches["default_order"])


def _default(name: str, switch: str) -> Order:
    return Order("", False) if switch == "shuffled" else Order(name, switch == "desc")


def conditions_of(spec: List, coll: Collection, asked: Tree, switches: Switches) -> list[Condition]:
    """The filters of a request that the list knows; unknown ones are ignored, as PHP code does."""
    return [_condition(kind, name, asked[name], spec, coll, switches) for name, kind in spec.filters.items() if name in asked]


def _condition(kind: str, name: str, node: Node, spec: List, coll: Collection, switches: Switches) -> Condition:
    kind, _, attribute = kind.partition(":")
    values = [part for item in php_query.items(node) for part in item.split(",")]
    if kind in ("range", "since"):
        return _range(kind, name, node, coll, switches)
    if kind == "ids":
        return Condition(ids=[found for value in values if (found := coll.locate(value)) is not None])
    if kind == "statuses":
        return Condition(test=_status_test(php_query.branch(node)))
    if kind == "fields":
        return Condition(test=_fields_test(php_query.branch(node)))
    if kind == "value":
        return Condition(test=_payload_test(attribute, php_query.branch(node)))
    if kind == "name":
        return Condition(test=is_test("name", php_query.items(node)[:1]))
    if attribute in _BUCKETS:
        return Condition(ids=[i for value in values if value.isdigit() for i in coll.bucket(attribute, int(value))])
    return Condition(test=is_test(attribute, values))


def _range(kind: str, name: str, node: Node, coll: Collection, switches: Switches) -> Condition:
    if isinstance(node, dict):
        low, high = php_query.whole(node.get("from")), php_query.whole(node.get("to"))
        closed = switches["filter_inclusive"]
        low = low + 1 if low is not None and closed in ("to", "none") else low
        high = high - 1 if high is not None and closed in ("from", "none") else high
    elif kind == "since" or switches["scalar_updated_at"] == "since":
        low, high = php_query.whole(node), None
    else:
        return Condition(ids=[])  # a scalar on the big four finds nothing (section 4.5)
    if name in coll.orders:
        return Condition(order=name, low=low, high=high)
    return Condition(test=_within(name, low, high))


def _within(name: str, low: int | None, high: int | None) -> Test:
    def test(raw: bytes) -> bool:
        value = loads(raw).get(name)
        if not isinstance(value, int | float):
            return False
        return (low is None or value >= low) and (high is None or value <= high)

    return test


def is_test(attribute: str, values: Iterable[str]) -> Test:
    """Equality with any of the values, looked for in the bytes before anything is parsed."""
    wanted: set[Any] = set()
    for value in values:
        wanted |= {value, int(value)} if value.lstrip("-").isdigit() and len(value) < 19 else {value}
    booleans = {bool(v) for v in wanted if isinstance(v, int) and v in (0, 1)}
    needles = [re.escape(dumps(value)) for value in [*wanted, *booleans]]
    search = re.compile(f'"{attribute}":'.encode() + b"(?:" + b"|".join(needles) + b")").search

    def test(raw: bytes) -> bool:
        if search(raw) is None:
            return False
        found = loads(raw).get(attribute)
        return found in booleans if isinstance(found, bool) else found in wanted

    return test


def _status_test(pairs: Tree) -> Test:
    wanted = {(php_query.whole(php_query.branch(p).get("pipeline_id")), php_query.whole(php_query.branch(p).get("status_id"))) for p in pairs.values()}

    def test(raw: bytes) -> bool:
        record = loads(raw)
        return (record.get("pipeline_id"), record.get("status_id")) in wanted

    return test


def _fields_test(asked: Tree) -> Test:
    def test(raw: bytes) -> bool:
        fields = {str(f["field_id"]): f["values"] for f in loads(raw).get("custom_fields_values") or []}
        return all(_field_matches(fields.get(ident, []), node) for ident, node in asked.items())

    return test


def _field_matches(values: list[Record], node: Node) -> bool:
    found = [value.get("value") for value in values]
    if isinstance(node, dict) and ({"from", "to"} & node.keys()):
        low, high = php_query.whole(node.get("from")), php_query.whole(node.get("to"))
        numbers = [float(str(v)) for v in found if str(v).replace(".", "", 1).lstrip("-").isdigit()]
        return any((low is None or n >= low) and (high is None or n <= high) for n in numbers)
    texts = {str(int(v)) if isinstance(v, bool) else str(v) for v in found} | {str(v.get("enum_id")) for v in values}
    return bool(texts & set(php_query.items(node)))


def _payload_test(side: str, asked: Tree) -> Test:
    """value_before / value_after of events (section 3.20): every scalar asked for appears in the payload."""

    def leaves(node: Node) -> list[str]:
        return [leaf for child in node.values() for leaf in leaves(child)] if isinstance(node, dict) else php_query.text(node).split(",")

    groups = [set(leaves(node)) for node in asked.values()]

    def test(raw: bytes) -> bool:
        found = {str(v) for entry in loads(raw).get(side) or [] for inner in entry.values() for v in inner.values()}
        return all(wanted <= found or (len(wanted) > 1 and wanted & found) for wanted in groups)

    return test
