"""The form that amoCRM posts → which records it tells of (amocrm-api.md 3.26, 3.30). Pure: kinds and ids leave here, and nothing else.

A webhook is not signed, comes late, twice, out of order or never. So none of its attributes is believed: what it names is read again.
Webhooks of the digital pipeline have the form of the CRM's with fewer attributes, and need nothing of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

Tree = dict[str, Any]
Named = tuple[str, str]
"""A list's path, and the key of one of its records."""
OWNERS = ("leads", "contacts", "companies", "customers")
MOST_FIELDS, DEEPEST, MOST_NAMED, MOST_SHAPES = 50_000, 12, 1_000, 50
NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
UID = re.compile(r"[0-9A-Za-z_-]{1,128}", re.ASCII)
STRANGE = re.compile(r"[^\w\[\]-]", re.ASCII)
BRACKETS = re.compile(r"\[([^\]]*)\]")
TYPES = {"contact": ("contacts",), "company": ("companies",), "1": ("contacts",), "3": ("companies",)}
"""Companies arrive under `contacts`; the numbers are those of API v2."""


@dataclass
class Told:
    """What one delivery tells. `shapes` says it in short: leads[update], task[add], …"""

    named: list[Named] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    relinked: set[Named] = field(default_factory=set)
    """Of what is named: its links may have changed hands."""
    outcomes: list[tuple[str, str, list[int], list[int]]] = field(default_factory=list)
    """Incoming leads that were sorted out: uid, action, leads, contacts."""
    account: int | None = None


def told(body: bytes) -> Told:
    """Never raises: what it cannot read is `unknown`."""
    found = Told()
    try:
        tree = parsed(body)
    except ValueError:
        return Told(unknown=["(not a form)"])
    for what, actions in tree.items():
        if what == "account":
            found.account = _id_of(actions)
            continue
        branches = _branches({"review": actions} if what == "add" else actions)
        for action, entries in branches:
            _tell(found, what, action, entries)
        if not branches:
            found.unknown.append(STRANGE.sub("?", what[:80]))
    found.named = list(dict.fromkeys(found.named))[:MOST_NAMED]
    found.shapes, found.unknown = ([*dict.fromkeys(each)][:MOST_SHAPES] for each in (found.shapes, found.unknown))
    return found


def parsed(body: bytes) -> Tree:
    """PHP's nesting, `leads[add][0][id]=5`, as a tree. Raises ValueError when there is more of it than amoCRM ever sends."""
    tree: Tree = {}
    for name, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS):
        head, bracket, rest = name.partition("[")
        steps = [head, *BRACKETS.findall(bracket + rest)]
        if len(steps) <= DEEPEST:
            _put(tree, steps, value)
    return tree


def _put(tree: Tree, steps: list[str], value: str) -> None:
    for step in steps[:-1]:
        inner = tree.get(step)
        if not isinstance(inner, dict):
            inner = tree[step] = {}
        tree = inner
    tree[steps[-1]] = value


def _tell(found: Told, what: str, action: str, entries: Any) -> None:
    """`what[action]` and its entries."""
    shape = STRANGE.sub("?", f"{what}[{action}]"[:80])
    teller = TELLERS.get(what)
    records = list(_records(entries)) if teller else []
    understood = [teller(found, what, action, record) for record in records] if teller else []
    if not understood or not all(understood):
        found.unknown.append(shape)
    found.shapes.append(shape)


def _records(entries: Any) -> Iterator[Tree]:
    """The records of [0], [1], …; one sample of the documentation nests them once more."""
    for _, entry in _branches(entries):
        inner = [each for _, each in _branches(entry)] if "id" not in entry and "0" in entry else [entry]
        yield from (each for each in inner if isinstance(each, dict))


def _branches(value: Any) -> list[tuple[str, Any]]:
    return [(key, inner) for key, inner in value.items() if isinstance(inner, dict)] if isinstance(value, dict) else []


def _id_of(record: Any, name: str = "id") -> int | None:
    value = record.get(name) if isinstance(record, dict) else None
    return int(value) if isinstance(value, str) and NUMBER.fullmatch(value) else None


def _ids(value: Any) -> list[int]:
    """Of a list of ids, or of a list of {id}."""
    inner = value.values() if isinstance(value, dict) else ()
    found = [_id_of({"id": each}) if isinstance(each, str) else _id_of(each) for each in inner]
    return [number for number in found if number is not None]


# What each kind tells; False where the record is not what it should be


def _owner(found: Told, what: str, action: str, record: Tree) -> bool:
    if action == "note":
        return _note(found, what, record)
    number = _id_of(record)
    if number is None:
        return False
    kinds = TYPES.get(str(record.get("type")), ("contacts", "companies")) if what == "contacts" else (what,)
    found.named += [(kind, str(number)) for kind in kinds]
    if action == "restore":
        found.relinked |= {(kind, str(number)) for kind in kinds}
    return True


def _note(found: Told, what: str, record: Tree) -> bool:
    note = record["note"] if isinstance(record.get("note"), dict) else record
    number = _id_of(note)
    if number is None:
        return False
    kinds = TYPES.get(str(note.get("element_type")), ("contacts", "companies")) if what == "contacts" else (what,)
    found.named += [(f"{kind}/notes", str(number)) for kind in kinds]
    return True


def _task(found: Told, what: str, action: str, record: Tree) -> bool:
    number = _id_of(record)
    found.named += [("tasks", str(number))] if number is not None else []
    return number is not None


def _unsorted(found: Told, what: str, action: str, record: Tree) -> bool:
    """An incoming lead; when it leaves, what it became is told here and nowhere else."""
    uid = record.get("uid")
    if not isinstance(uid, str) or not UID.fullmatch(uid):
        return False
    found.named.append(("leads/unsorted", uid))
    outcome = str(record.get("action", ""))
    result = record.get(f"{outcome}_result")
    leads, contacts = ((_ids(result.get(kind)) for kind in ("leads", "contacts")) if isinstance(result, dict) else ([], []))
    found.named += [("leads", str(number)) for number in leads] + [("contacts", str(number)) for number in contacts]
    if action == "delete" and re.fullmatch(r"[a-z_]{1,40}", outcome):
        found.outcomes.append((uid, outcome, leads, contacts))
    return True


def _talk(found: Told, what: str, action: str, record: Tree) -> bool:
    number = _id_of(record, "talk_id") or (_id_of(record) if what == "talk" else None)
    found.named += [("talks/{}", str(number))] if number is not None else []
    return number is not None or what == "message"


def _review(found: Told, what: str, action: str, record: Tree) -> bool:
    """The review of a chat template comes without a name: add[0]."""
    found.named.append(("chats/templates", "*"))
    return True


TELLERS: dict[str, Callable[[Told, str, str, Tree], bool]] = {
    **dict.fromkeys(OWNERS, _owner), "task": _task, "tasks": _task, "unsorted": _unsorted, "talk": _talk, "message": _talk, "add": _review}
