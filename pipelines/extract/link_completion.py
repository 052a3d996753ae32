"""Link completion: adds the links that a record's embedded list may have left out (amocrm-api.md 3.21; 6,
14 and 15).

The API does not say whether `with=contacts` shows more than 50 links. A list of that length is completed
through GET {list}/{id}/links; a link is removed only when both readings lack it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.amocrm.errors import BadRequestError, NotAvailableError
from pipelines.amocrm.pagination import page
from pipelines.entities.spec import Child, Record
from pipelines.extract.source import Source
from pipelines.normalize.paths import value_at
from pipelines.schema.columns import whole_number

LINKS_PER_PAGE = 50
"""Links on a full page of /links."""
MAX_PAGE_NUMBER = 200
"""Page number at which reading the links of one record is given up."""


def complete_links(source: Source, children: Sequence[Child], records: Iterable[Any]) -> set[int]:
    """Adds missing links to the records, in place. Returns the ids of the records whose lists are now known
    to be complete."""
    capped = [child for child in children if child.truncated_at]
    complete_ids = set()
    for record in records if capped else ():
        number = whole_number(record.get("id")) if isinstance(record, dict) else None
        if number is not None:
            long = [child for child in capped if _length(record, child) >= child.truncated_at]
            if long and _add_missing_links(source, long, record, number):
                complete_ids.add(number)
    return complete_ids


def _length(record: Record, child: Child) -> int:
    elements = value_at(record, child.path)
    return len(elements) if isinstance(elements, list) else 0


def _add_missing_links(source: Source, children: Sequence[Child], record: Record, number: int) -> bool:
    """Adds missing links to one record, in place. `number`: its id. True if the lists are now known to be
    complete."""
    links, is_complete = _fetch_links(source, number)
    for child in children:
        elements = value_at(record, child.path)
        known_ids = {whole_number(element.get("id")) for element in elements if isinstance(element, dict)}
        listed = (_embedded_form(link) for link in links if link.get("to_entity_type") == child.path[-1])
        elements += [element for element in listed if whole_number(element["id"]) not in known_ids]
    return is_complete


def _fetch_links(source: Source, record_id: int) -> tuple[list[Record], bool]:
    """The links that /links shows of one record, and whether these are all of them."""
    found: dict[tuple[Any, Any], Record] = {}
    first = 0  # links on the first page, if more pages follow it
    for number in range(1, MAX_PAGE_NUMBER):
        try:
            each = page(source.client, f"{source.listing.path}/{record_id}/links",
                        [("page", str(number))] if number > 1 else [], "links")
        except (NotAvailableError, BadRequestError):
            return list(found.values()), False
        shown = {(link.get("to_entity_type"), link.get("to_entity_id")): link
               for link in each.records if isinstance(link, dict)}
        new_keys = shown.keys() - found.keys()
        found |= shown
        total = each.envelope.get("_total_items") if isinstance(each.envelope, dict) else None
        is_more = isinstance(total, int) and total > len(found)
        if new_keys and (each.next is not None or is_more or len(shown) == LINKS_PER_PAGE
                         or len(shown) == first):
            first = first or len(shown)
            continue
        # the last page; or all links on one page; or the same page again: the list is truncated
        return list(found.values()), len(shown) != LINKS_PER_PAGE and not is_more
    return list(found.values()), False


def _embedded_form(link: Record) -> Record:
    """Converts a row of /links to the form in which records embed it."""
    metadata = link.get("metadata") if isinstance(link.get("metadata"), dict) else None
    element: Record = {"id": link.get("to_entity_id")}
    if metadata and "main_contact" in metadata:
        return element | {"is_main": metadata["main_contact"]}
    return element | ({"metadata": metadata} if metadata else {})
