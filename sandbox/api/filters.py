"""Selects the records of a list request and their order: filters, rights and order[...] over a Collection.

Common requests (everything by id, a time range of updated_at) are slices of the store's sorted orders. Any
other selection is computed once per version of the collection and cached for the following pages.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.account.lists import ListSpec
from sandbox.account.store import ID_MASK, Collection, Record, dumps, loads, order_key
from sandbox.account.switches import Switches
from sandbox.http import php_query
from sandbox.http.php_query import Node, Tree

Test = Callable[[bytes], bool]
_BUCKETS = ("entity_id", "customer_id")


@dataclass(frozen=True, slots=True)
class Selection:
    """A sequence of ids: a slice of an array of order keys, read forwards or backwards."""

    keys: Sequence[int]
    start: int
    stop: int
    backwards: bool = False

    def __len__(self) -> int:
        return self.stop - self.start

    def page(self, offset: int, limit: int) -> list[int]:
        """Returns the ids of one page."""
        if self.backwards:
            high = max(self.start, self.stop - offset)
            found = self.keys[max(self.start, high - limit) : high][::-1]
        else:
            low = min(self.stop, self.start + offset)
            found = self.keys[low : min(self.stop, low + limit)]
        return [key & ID_MASK for key in found]


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter: ids found through an index, a test on a row's bytes, or a slice [low, high] of an order."""

    ids: Iterable[int] | None = None
    test: Test | None = None
    order: str = ""
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """The order that order[...] asks for, or the default; name "" = shuffled."""

    name: str
    descending: bool


class Selector:
    """Selects records; caches the last 8 selections that are not slices of an order."""

    def __init__(self, switches: Switches) -> None:
        self._switches = switches
        self._cache: OrderedDict[tuple[object, ...], Selection] = OrderedDict()

    def select(self, coll: Collection, conditions: list[Condition], order: Order, label: str) -> Selection:
        """Returns the ids that satisfy all conditions, sorted. `label` is their cache key."""
        direct = self._order_slice(coll, conditions, order)
        if direct is not None:
            return direct
        key = (coll.path, coll.version, label, order, self._switches.version)
        if key not in self._cache:
            found = _sorted_ids(coll, _matching_ids(coll, conditions), order)
            self._cache[key] = Selection(found, 0, len(found), order.descending)
            while len(self._cache) > 8:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _order_slice(self, coll: Collection, conditions: list[Condition], order: Order) -> Selection | None:
        """Returns the selection if it is a slice of one of the store's orders, else None."""
        if order.name == "id" and not conditions:
            return Selection(coll.ids, 0, len(coll.ids), order.descending)
        keys = coll.orders.get(order.name)
        if keys is None or (not conditions and len(keys) < len(coll)):
            return None
        if not conditions:
            return Selection(keys, 0, len(keys), order.descending)
        if len(conditions) == 1 and conditions[0].order == order.name:
            start, stop = coll.order_slice(order.name, conditions[0].low, conditions[0].high)
            return Selection(keys, start, stop, order.descending)
        return None


def _matching_ids(coll: Collection, conditions: list[Condition]) -> list[int]:
    """Returns the ids that satisfy every condition: intersects the indexes, then tests the remaining rows."""
    sets: list[Iterable[int]] = [c.ids for c in conditions if c.ids is not None]
    for condition in conditions:
        if condition.order:
            start, stop = coll.order_slice(condition.order, condition.low, condition.high)
            sets.append([key & ID_MASK for key in coll.orders[condition.order][start:stop]])
    candidates: Iterable[int] = coll.ids
    if sets:
        kept = set(sets[0])
        for other in sets[1:]:
            kept.intersection_update(other)
        candidates = [ident for ident in kept if ident in coll.rows]
    tests = [c.test for c in conditions if c.test is not None]
    return [ident for ident in candidates if all(test(coll.rows[ident]) for test in tests)]


def _sorted_ids(coll: Collection, found: list[int], order: Order) -> list[int]:
    if order.name == "id":
        return sorted(found)
    if not order.name:
        return sorted(found, key=lambda ident: (ident * 2654435761) & ID_MASK)
    wanted = set(found)
    keyed = ([key & ID_MASK for key in coll.orders[order.name] if key & ID_MASK in wanted]
             if len(found) > 1000 and order.name in coll.orders else None)
    if keyed is not None and len(keyed) == len(found):
        return keyed
    keys = [(order_key(loads(coll.rows[ident]).get(order.name), ident) or ident) for ident in found]
    return [key & ID_MASK for key in sorted(keys)]


def order_of(spec: ListSpec, asked: Node, switches: Switches) -> Order:
    """Returns the order of order[...] if its key and direction are documented, else the default (sections 0
    and 6.11)."""
    allowed = spec.orders
    if spec.path == "customers" and switches["customers_order"] == "honour":
        allowed = ("updated_at", "id")
    ignored = {name for name in ("updated_at", "id") if switches[f"{name}_order"] == "ignore"}
    if spec.path == "leads/unsorted" and switches["unsorted_order"] == "newest":
        return Order("created_at", True)
    for name, direction in php_query.subtree(asked).items():
        way = php_query.scalar(direction).lower()
        if name in allowed and name not in ignored and way in ("asc", "desc"):
            return Order(name, way == "desc")
    if spec.path == "events":
        return _default_order("created_at", switches["events_order"])
    if switches["default_order"] == "updated_at" and (spec.limit or not spec.orders):
        return Order("updated_at", False)
    return _default_order(spec.orders[0] if not spec.limit and spec.orders else "id",
                          switches["default_order"])


def _default_order(name: str, switch: str) -> Order:
    return Order("", False) if switch == "shuffled" else Order(name, switch == "desc")


def conditions_of(spec: ListSpec, coll: Collection, asked: Tree, switches: Switches) -> list[Condition]:
    """Returns conditions for the filters that the list declares; others are ignored, as amoCRM does."""
    return [_condition(kind, name, asked[name], spec, coll, switches) for name, kind in spec.filters.items()
            if name in asked]


def _condition(kind: str, name: str, node: Node, spec: ListSpec, coll: Collection,
               switches: Switches) -> Condition:
    kind, _, attribute = kind.partition(":")
    values = [part for item in php_query.items(node) for part in item.split(",")]
    if kind in ("range", "since"):
        return _range_condition(kind, name, node, coll, switches)
    if kind == "ids":
        return Condition(ids=[found for value in values if (found := coll.find_id(value)) is not None])
    if kind == "statuses":
        return Condition(test=_status_test(php_query.subtree(node)))
    if kind == "fields":
        return Condition(test=_fields_test(php_query.subtree(node)))
    if kind == "value":
        return Condition(test=_payload_test(attribute, php_query.subtree(node)))
    if kind == "name":
        return Condition(test=equality_test("name", php_query.items(node)[:1]))
    if attribute in _BUCKETS:
        return Condition(ids=[i for value in values if value.isdigit()
                              for i in coll.ids_where(attribute, int(value))])
    return Condition(test=equality_test(attribute, values))


def _range_condition(kind: str, name: str, node: Node, coll: Collection, switches: Switches) -> Condition:
    if isinstance(node, dict):
        low, high = php_query.integer(node.get("from")), php_query.integer(node.get("to"))
        inclusive_ends = switches["filter_inclusive"]
        low = low + 1 if low is not None and inclusive_ends in ("to", "none") else low
        high = high - 1 if high is not None and inclusive_ends in ("from", "none") else high
    elif kind == "since" or switches["scalar_updated_at"] == "since":
        low, high = php_query.integer(node), None
    else:
        return Condition(ids=[])  # a scalar on the four main lists matches nothing (section 4.5)
    if name in coll.orders:
        return Condition(order=name, low=low, high=high)
    return Condition(test=_range_test(name, low, high))


def _range_test(name: str, low: int | None, high: int | None) -> Test:
    def test(raw: bytes) -> bool:
        value = loads(raw).get(name)
        if not isinstance(value, int | float):
            return False
        return (low is None or value >= low) and (high is None or value <= high)

    return test


def equality_test(attribute: str, values: Iterable[str]) -> Test:
    """Returns a test for equality with any of the values; it searches the bytes before it parses the row."""
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
    wanted = {(php_query.integer(php_query.subtree(p).get("pipeline_id")),
               php_query.integer(php_query.subtree(p).get("status_id")))
              for p in pairs.values()}

    def test(raw: bytes) -> bool:
        record = loads(raw)
        return (record.get("pipeline_id"), record.get("status_id")) in wanted

    return test


def _fields_test(asked: Tree) -> Test:
    def test(raw: bytes) -> bool:
        fields = {str(f["field_id"]): f["values"] or [] for f in loads(raw).get("custom_fields_values") or []}
        return all(_field_matches(fields.get(ident, []), node) for ident, node in asked.items())

    return test


def _field_matches(values: list[Record], node: Node) -> bool:
    field_values = [value.get("value") for value in values]
    if isinstance(node, dict) and ({"from", "to"} & node.keys()):
        low, high = php_query.integer(node.get("from")), php_query.integer(node.get("to"))
        numbers = [float(str(v)) for v in field_values if str(v).replace(".", "", 1).lstrip("-").isdigit()]
        return any((low is None or n >= low) and (high is None or n <= high) for n in numbers)
    texts = ({str(int(v)) if isinstance(v, bool) else str(v) for v in field_values}
             | {str(v.get("enum_id")) for v in values})
    return bool(texts & set(php_query.items(node)))


def _payload_test(side: str, asked: Tree) -> Test:
    """Returns the test for value_before / value_after: the requested scalars are in the payload (3.20)."""

    def leaves(node: Node) -> list[str]:
        return ([leaf for child in node.values() for leaf in leaves(child)] if isinstance(node, dict)
                else php_query.scalar(node).split(","))

    groups = [set(leaves(node)) for node in asked.values()]

    def test(raw: bytes) -> bool:
        found = {str(v) for entry in loads(raw).get(side) or [] for inner in entry.values()
                 for v in inner.values()}
        return all(wanted <= found or (len(wanted) > 1 and wanted & found) for wanted in groups)

    return test
