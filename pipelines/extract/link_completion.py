"""Records whose embedded links may be cut short → the same records with all of them (amocrm-api.md 3.21; 6, 14 and 15).

Nobody knows whether `with=contacts` shows more than 50. A list that long is completed through GET {list}/{id}/links; a link goes only when both
readings miss it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.amocrm.errors import NotOffered, Refused
from pipelines.amocrm.pagination import page
from pipelines.entities.spec import Child, Record
from pipelines.extract.source import Source
from pipelines.normalize.paths import pick

A_PAGE = 50
PAGES = 200


def complete(source: Source, children: Sequence[Child], records: Iterable[Any]) -> set[int]:
    """Adds the links that the records do not show; returns the ids of the records whose lists are now known to be whole."""
    capped = [child for child in children if child.cap]
    whole = set()
    for record in records if capped else ():
        if isinstance(record, dict) and isinstance(record.get("id"), int):
            long = [child for child in capped if _length(record, child) >= child.cap]
            if long and _completed(source, long, record):
                whole.add(record["id"])
    return whole


def _length(record: Record, child: Child) -> int:
    elements = pick(record, child.path)
    return len(elements) if isinstance(elements, list) else 0


def _completed(source: Source, children: Sequence[Child], record: Record) -> bool:
    links, whole = _links(source, record["id"])
    for child in children:
        elements = pick(record, child.path)
        known = {element.get("id") for element in elements if isinstance(element, dict)}
        told = (_element(link) for link in links if link.get("to_entity_type") == child.path[-1])
        elements += [element for element in told if element["id"] not in known]
    return whole


def _links(source: Source, number: int) -> tuple[list[Record], bool]:
    """Every link that the list shows, and whether it shows them all."""
    found: dict[tuple[Any, Any], Record] = {}
    for at in range(1, PAGES):
        try:
            each = page(source.client, f"{source.listing.path}/{number}/links", [("page", str(at))] if at > 1 else [], "links")
        except (NotOffered, Refused):
            return list(found.values()), False
        new = {(link.get("to_entity_type"), link.get("to_entity_id")): link for link in each.records if isinstance(link, dict)}
        fresh = new.keys() - found.keys()
        found |= new
        total = each.envelope.get("_total_items") if isinstance(each.envelope, dict) else None
        if len(new) < A_PAGE or len(new) > A_PAGE or not fresh:  # the last page; all at once; the same again: cut short
            return list(found.values()), len(new) != A_PAGE and not (isinstance(total, int) and total > len(found))
    return list(found.values()), False


def _element(link: Record) -> Record:
    """A row of /links in the form in which records embed it."""
    metadata = link.get("metadata") if isinstance(link.get("metadata"), dict) else None
    element: Record = {"id": link.get("to_entity_id")}
    if metadata and "main_contact" in metadata:
        return element | {"is_main": metadata["main_contact"]}
    return element | ({"metadata": metadata} if metadata else {})
