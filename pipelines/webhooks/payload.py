"""Parses the form that amoCRM posts into kinds and ids of records (amocrm-api.md 3.26, 3.30). Pure.

A webhook is not signed and may come late, twice, out of order or never. So none of its attributes is trusted:
the records that it names are read again. Webhooks of the digital pipeline have the same form with fewer
attributes and need no code of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from pipelines.entities.record_kinds import COMPANY, CONTACT, RECORD_LISTS
from pipelines.entities.spec import OWNER_KEY

Tree = dict[str, Any]
RecordRef = tuple[str, str]
"""Path of a list, and the key of one of its records."""
MAX_FIELDS, MAX_DEPTH, MAX_RECORDS, MAX_SHAPES = 50_000, 12, 1_000, 50
"""Limits of one delivery: form fields, levels of nesting, records taken, shapes stored."""
ID_PATTERN = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
UID_PATTERN = re.compile(r"[0-9A-Za-z_-]{1,128}", re.ASCII)
ELEMENTS_PATH = "catalogs/{}/elements"
UNSAFE_CHARACTER = re.compile(r"[^\w\[\]-]", re.ASCII)
BRACKETS = re.compile(r"\[([^\]]*)\]")
SHARED_SECTIONS = {"contacts": ("contacts", "companies")}
"""Section → its kinds, where they are several: companies arrive under `contacts`."""
KINDS_BY_TYPE = {name: (kind.plural,) for kind in (CONTACT, COMPANY)
                 for name in (kind.singular, str(kind.api_v2_number))}
"""Type of a record in a shared section → its kind; the numbers are those of API v2."""


@dataclass
class ParsedDelivery:
    """Content of one delivery.

    `shapes` are its sections, e.g. leads[update], task[add]; `unknown` those that were not understood.
    """

    records: list[RecordRef] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    relinked: set[RecordRef] = field(default_factory=set)
    """The named records whose links may have moved to or from other records."""
    outcomes: list[tuple[str, str, list[int], list[int]]] = field(default_factory=list)
    """Incoming leads that were accepted, declined or linked: uid, action, lead ids, contact ids."""
    account: int | None = None


def parse(body: bytes) -> ParsedDelivery:
    """Parses a body. Never raises: sections that it cannot read are added to `unknown`."""
    delivery = ParsedDelivery()
    try:
        tree = parse_form(body)
    except ValueError:
        return ParsedDelivery(unknown=["(not a form)"])
    for what, actions in tree.items():
        if what == "account":
            delivery.account = _id_of(actions)
            continue
        branches = _branches({"review": actions} if what == "add" else actions)
        for action, entries in branches:
            _parse_section(delivery, what, action, entries)
        if not branches:
            delivery.unknown.append(UNSAFE_CHARACTER.sub("?", what[:80]))
    delivery.records = list(dict.fromkeys(delivery.records))[:MAX_RECORDS]
    delivery.shapes, delivery.unknown = ([*dict.fromkeys(each)][:MAX_SHAPES]
                                         for each in (delivery.shapes, delivery.unknown))
    return delivery


def parse_form(body: bytes) -> Tree:
    """Decodes PHP's form nesting, `leads[add][0][id]=5`, into a tree of dicts.

    Raises ValueError if there are more fields than amoCRM ever sends.
    """
    tree: Tree = {}
    for name, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True,
                                 max_num_fields=MAX_FIELDS):
        head, bracket, rest = name.partition("[")
        steps = [head, *BRACKETS.findall(bracket + rest)]
        if len(steps) <= MAX_DEPTH:
            _insert(tree, steps, value)
    return tree


def _insert(tree: Tree, steps: list[str], value: str) -> None:
    for step in steps[:-1]:
        inner = tree.get(step)
        if not isinstance(inner, dict):
            inner = tree[step] = {}
        tree = inner
    tree[steps[-1]] = value


def _parse_section(delivery: ParsedDelivery, what: str, action: str, entries: Any) -> None:
    """Parses the section `what[action]` with its entries into `delivery`."""
    shape = UNSAFE_CHARACTER.sub("?", f"{what}[{action}]"[:80])
    parser = PARSERS.get(what)
    records = list(_records(entries)) if parser else []
    understood = [parser(delivery, what, action, record) for record in records] if parser else []
    if not understood or not all(understood):
        delivery.unknown.append(shape)
    delivery.shapes.append(shape)


def _records(entries: Any) -> Iterator[Tree]:
    """Yields the records [0], [1], …; one sample in the documentation nests them one level deeper."""
    for _, entry in _branches(entries):
        inner = [each for _, each in _branches(entry)] if "id" not in entry and "0" in entry else [entry]
        yield from (each for each in inner if isinstance(each, dict))


def _branches(value: Any) -> list[tuple[str, Any]]:
    return ([(key, inner) for key, inner in value.items() if isinstance(inner, dict)]
            if isinstance(value, dict) else [])


def _id_of(record: Any, name: str = "id") -> int | None:
    value = record.get(name) if isinstance(record, dict) else None
    return int(value) if isinstance(value, str) and ID_PATTERN.fullmatch(value) else None


def _ids(value: Any) -> list[int]:
    """Ids of a list of ids, or of a list of {id} objects."""
    inner = value.values() if isinstance(value, dict) else ()
    ids = [_id_of({"id": each}) if isinstance(each, str) else _id_of(each) for each in inner]
    return [number for number in ids if number is not None]


# Parsers, one per kind. They return False if the record does not have the expected form.


def _parse_record(delivery: ParsedDelivery, what: str, action: str, record: Tree) -> bool:
    if action == "note":
        return _parse_note(delivery, what, record)
    number = _id_of(record)
    if number is None:
        return False
    kinds = _kinds(what, record.get("type"))
    delivery.records += [(kind, str(number)) for kind in kinds]
    if action == "restore":
        delivery.relinked |= {(kind, str(number)) for kind in kinds}
    return True


def _kinds(what: str, type_: Any) -> tuple[str, ...]:
    """Kinds that a record of the section `what` may be; `type_` is its type there, if it has one."""
    kinds = SHARED_SECTIONS.get(what)
    return KINDS_BY_TYPE.get(str(type_), kinds) if kinds else (what,)


def _parse_note(delivery: ParsedDelivery, what: str, record: Tree) -> bool:
    """Parses a note. One without an id names its record, whose notes are read again."""
    note = record["note"] if isinstance(record.get("note"), dict) else record
    number, owner = _id_of(note), _id_of(note, "element_id")
    key = str(number) if number is not None else f"{OWNER_KEY}{owner}" if owner is not None else ""
    if key:
        delivery.records += [(f"{kind}/notes", key) for kind in _kinds(what, note.get("element_type"))]
    return bool(key)


def _parse_task(delivery: ParsedDelivery, what: str, action: str, record: Tree) -> bool:
    number = _id_of(record)
    delivery.records += [("tasks", str(number))] if number is not None else []
    return number is not None


def _parse_unsorted(delivery: ParsedDelivery, what: str, action: str, record: Tree) -> bool:
    """Parses an incoming lead. When it leaves the list, its outcome is in this webhook and nowhere else. Some
    have no uid, only their deal."""
    named = [("leads", str(number)) for number in _unsorted_leads(record)]
    delivery.records += named
    uid = record.get("uid")
    if not isinstance(uid, str) or not UID_PATTERN.fullmatch(uid):
        return bool(named) and uid is None
    delivery.records.append(("leads/unsorted", uid))
    outcome = str(record.get("action", ""))
    result = record.get(f"{outcome}_result")
    leads, contacts = ((_ids(result.get(kind)) for kind in ("leads", "contacts")) if isinstance(result, dict)
                       else ([], []))
    delivery.records += [("leads", str(number)) for number in leads] + [
        ("contacts", str(number)) for number in contacts]
    if action == "delete" and re.fullmatch(r"[a-z_]{1,40}", outcome):
        delivery.outcomes.append((uid, outcome, leads, contacts))
    return True


def _unsorted_leads(record: Tree) -> list[int]:
    """Returns the ids of an incoming lead's deals: lead_id, data[leads][id] or data[leads][0][id]."""
    data = record.get("data")
    leads = data.get("leads") if isinstance(data, dict) else None
    own = [_id_of(record, "lead_id"), _id_of(leads)]
    return [number for number in own if number is not None] + (
        _ids(leads) if isinstance(leads, dict) and "id" not in leads else [])


def _parse_element(delivery: ParsedDelivery, what: str, action: str, record: Tree) -> bool:
    """Parses an element of a catalog. The catalogs' lists are read whole."""
    number = _id_of(record)
    delivery.records += [(ELEMENTS_PATH, str(number))] if number is not None else []
    return number is not None


def _parse_talk(delivery: ParsedDelivery, what: str, action: str, record: Tree) -> bool:
    number = _id_of(record, "talk_id") or (_id_of(record) if what == "talk" else None)
    delivery.records += [("talks/{}", str(number))] if number is not None else []
    return number is not None or what in MESSAGE_SECTIONS


def _parse_nameless(delivery: ParsedDelivery, what: str, action: str, record: Tree) -> bool:
    """Parses what comes without a kind, as add[0]: a message of a talk, or the review of a chat template."""
    if "talk_id" in record:
        return _parse_talk(delivery, what, action, record)
    delivery.records.append(("chats/templates", "*"))
    return True


MESSAGE_SECTIONS = ("message", "incoming_message", "outgoing_message")
"""Sections of messages, which concern no record if they name no talk."""
PARSERS: dict[str, Callable[[ParsedDelivery, str, str, Tree], bool]] = {
    **dict.fromkeys(RECORD_LISTS, _parse_record), "task": _parse_task, "tasks": _parse_task,
    "unsorted": _parse_unsorted, "talk": _parse_talk, **dict.fromkeys(MESSAGE_SECTIONS, _parse_talk),
    "catalogs": _parse_element, "add": _parse_nameless}
