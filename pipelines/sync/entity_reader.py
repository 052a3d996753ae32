"""Reads the lists of one entity as batches of rows; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_PAGES_PER_BATCH, MAX_ROWS_PER_BATCH = 50, 25_000
"""Pages, and rows (child rows included), from which a batch is loaded."""
MAX_REMEMBERED_READS = 300_000
"""Ids per list remembered as read in this run; beyond it, hints are re-read once too often."""
HIDDEN_ROWS_MESSAGE = (
    "{}: {} rows are not shown to this token, which is not an administrator's. They are kept, because "
    "the mirror cannot distinguish hidden rows from deleted ones")
"""Message: path of the list, number of rows."""


def consume(records: list[Any]) -> Iterator[Any]:
    """The records, in order; each is removed from the list as soon as it is taken. Of many pages in memory,
    records weigh three times what rows do."""
    records.reverse()
    while records:
        yield records.pop()
