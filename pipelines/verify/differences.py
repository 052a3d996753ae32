"""What a verification finds: differing rows, with the columns that differ, and what was not compared."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

MISSING, STALE, EXTRA = "missing", "stale", "extra"
MAX_IDS = 5
"""Ids that are named per reason why rows were not compared."""
Key = tuple[Any, ...]


@dataclass(frozen=True)
class CellDifference:
    """A differing cell. `column` is its name, of a child `table.column`; a child row that only one side has
    is the table's name. `here` and `there` are the texts of the value in the mirror and in amoCRM, cut at
    200 characters: for a terminal only, never to be stored or logged."""

    column: str
    here: str | None = field(default=None, repr=False)
    there: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Difference:
    """How a row differs. `kind`: "missing" (visible in amoCRM, no live row), "stale" (the contents differ) or
    "extra" (live row, not visible in amoCRM)."""

    kind: str
    cells: tuple[CellDifference, ...] = ()
    is_behind: bool = False
    """The record changed in amoCRM after the mirror's last read: the next sync brings the change."""
    has_impossible_id: bool = False
    """amoCRM refuses the id: it cannot have given it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the cells that differ, each once, of a stale row."""
        return tuple(dict.fromkeys(cell.column for cell in self.cells)) if self.kind == STALE else ()

    def __str__(self) -> str:
        return f"{self.kind}: {', '.join(self.columns)}" if self.columns else self.kind

    def described(self) -> str:
        """Returns the difference with its values: for a terminal only."""
        if self.kind != STALE or not self.cells:
            return str(self)
        cells = (f"{cell.column} (here {_shown(cell.here)}, in amoCRM {_shown(cell.there)})"
                 for cell in self.cells)
        return f"{self.kind}: {'; '.join(cells)}"


def _shown(value: str | None) -> str:
    return "empty" if value is None else value


Differences = dict[Key, Difference]
"""The differing rows of one list, by key."""
ByList = dict[str, Differences]
"""The differing rows by the path of their list, or by the table's name if they belong to no list."""


def merge(found: ByList, path: str, differences: Differences) -> None:
    """Adds differences of a list; cells of a row that is there already are added to its own."""
    known = found.setdefault(path, {})
    for key, each in differences.items():
        before = known.get(key)
        known[key] = replace(before, cells=before.cells + each.cells) if before else each


@dataclass
class NotCompared:
    """What was not compared, by reason → number of rows or records. `unproven`: reasons that concern what
    amoCRM has; `kept`: what only the mirror keeps, because amoCRM no longer shows it."""

    unproven: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason → ids of the first rows."""

    def add(self, reason: str, ident: Any) -> None:
        """Counts one row whose equality is not proven."""
        self.unproven[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < MAX_IDS:
            examples.append(str(ident))

    def lines(self) -> list[str]:
        return [f"{count:,} {reason}" + (f" (ids: {', '.join(ids)}{', …' if count > len(ids) else ''})"
                                         if (ids := self.examples.get(reason)) else "")
                for counts in (self.unproven, self.kept) for reason, count in counts.items() if count]
