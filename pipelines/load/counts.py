"""What a batch changed: the counters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counts:
    """What one batch, or the sync of one entity, changed in the database. Counts rows, child rows included;
    `seen` and `quarantined` count records, `replaced_characters` characters that Postgres cannot store."""

    seen: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    quarantined: int = 0
    replaced_characters: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs
                        in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def changed(self) -> int:
        return self.inserted + self.updated + self.deleted
