"""hints → records → landed: what the queue names is read again, and what is not there any more is marked deleted (design.md 3)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pipelines.entities.spec import Listing
from pipelines.extract.by_id import Answered, Asking, by_ids, singles
from pipelines.extract.source import Source, Step
from pipelines.load.batch import Batch
from pipelines.load.counts import Counts
from pipelines.load.hints import EVERYTHING, Choice, Hint, forget, named, queued
from pipelines.load.link_hints import heed_sides, linked, look_at, take_sides
from pipelines.load.tombstones import Absent, implausible, refusal
from pipelines.postgres.locks import persistently
from pipelines.sync.entity_reader import HIDDEN
from pipelines.sync.entity_sync import EntitySync

A_BATCH = 20
CLOCK = 2_000_000
"""Events tell whole seconds, and a list may show a change a moment after its event. Microseconds."""


class Heeding(EntitySync):
    """Empties the queue of one entity."""

    def heed(self, paths: Iterable[str], choice: Choice = EVERYTHING) -> None:
        """Reads again what is queued for these of the entity's lists."""
        self.prepare()
        self.reads = None
        for listing in self.entity.listings:
            if listing.path in paths and self.entity.by_id:
                self.list_of_hints(listing, choice)
            elif listing.path in paths:
                self.not_by_id(listing)

    def not_by_id(self, listing: Listing) -> None:
        """What has no list is asked for one by one; other lists are short, and read whole."""
        account = self.scene.target.name
        hints = named(self.connection, account, listing.path)
        if listing.over is None:
            self.listing(listing)
        else:
            over, gone = listing.over, list[int]()
            source = self.source(listing)
            self.land(source, singles(source, [int(key) for key in hints if key.isdecimal()], self.scene.target.concurrency, gone))
            for ident in gone:
                self._tombstone({over.fixed_as: ident}, listing.path)
        forget(self.connection, account, listing.path, hints)

    def mend(self, differences: Mapping[str, Mapping[tuple[Any, ...], str]]) -> None:
        """Reads again what a verification found to differ; what it found twice not to be there is marked at once."""
        self.prepare()
        self.reads, told_at = None, time.time_ns() // 1000
        for listing in self.entity.listings:
            found = differences.get(listing.path, {})
            if found:
                self._read(listing, {key[-1]: Hint(told_at, None, kind == "extra", True, 0) for key, kind in found.items()})

    def list_of_hints(self, listing: Listing, choice: Choice = EVERYTHING) -> None:
        hints = queued(self.connection, self.scene.target.name, listing.path, choice)
        known = {key: hint for key, hint in hints.items() if self._is_known(listing, key, hint)}
        forget(self.connection, self.scene.target.name, listing.path, known)
        hints = {key: hint for key, hint in hints.items() if key not in known}
        self._disbelieve(listing, hints)
        if hints:
            self._read(listing, hints)

    def _is_known(self, listing: Listing, key: int, hint: Hint) -> bool:
        """This run has read the record since, by amoCRM's clock."""
        read = self.scene.reads.get(listing.path, {}).get(key, 0)
        return not hint.of_links and read - int(self.client.behind() * 1_000_000) >= hint.told_at + CLOCK

    def _disbelieve(self, listing: Listing, hints: dict[int, Hint]) -> None:
        """Drops suspicions of a sweep that are too many, or that a token which does not see everything cannot have."""
        suspects = {key: hint for key, hint in hints.items() if hint.is_suspect}
        living = self.deletions.living(listing.fixed) if suspects else 0
        if suspects and not self.sees_all:
            self.note(HIDDEN.format(listing.path, len(suspects)))
        elif implausible(len(suspects), living) and not self.scene.allow_mass_delete:
            self.result.state = "incomplete"
            self.note(refusal(listing.path, len(suspects), living))
        else:
            return
        forget(self.connection, self.scene.target.name, listing.path, suspects)
        for key in suspects:
            del hints[key]

    def _read(self, listing: Listing, hints: dict[int, Hint]) -> None:
        sides = tuple(side.name for side in self.entity.sides)
        source = replace(self.source(listing), entity=replace(self.entity, with_=self.entity.with_ + sides))

        def told_otherwise(key: int) -> bool:
            return hints[key].is_suspect or hints[key].deleted_at is not None

        answers: list[Answered] = []
        for answered in by_ids(Asking(source, told_otherwise, self.filtered), list(hints)):
            if self.scene.stop:
                raise self.scene.stop
            answers.append(answered)
            if len(answers) >= A_BATCH:
                self._settle(source, hints, answers)
                answers = []
        self._settle(source, hints, answers)

    def _settle(self, source: Source, hints: dict[int, Hint], answers: list[Answered]) -> None:
        """One transaction: the records that are there, the marks on those that are not, and the hints that this settles."""
        batch, listing, schema, account = Batch(), source.listing, self.scene.target.schema, self.scene.target.name
        sides = take_sides(self.entity, (record for answered in answers for record in answered.page.records))
        for answered in answers:
            self.add(source, batch, Step(answered.page))
            self.scene.reads.setdefault(listing.path, {}).update(dict.fromkeys(answered.asked, answered.started))
        gone = [Absent((*self._fixed_key(listing), key), hints[key].deleted_at, answered.started) for answered in answers for key in answered.absent
                if self.sees_all or hints[key].deleted_at is not None]
        owners = [key[-1] for key in batch.rows if isinstance(key[-1], int)]
        merged = [key for key in owners if hints[key].of_links]
        asked = {key: hints[key] for answered in answers for key in answered.asked}

        def once() -> Counts:
            with self.connection.transaction():
                pointed_at = linked(self.connection, schema, self.entity, owners)
                counts = self.landing.land(batch)
                look_at(self.connection, account, pointed_at - linked(self.connection, schema, self.entity, owners))
                look_at(self.connection, account, linked(self.connection, schema, self.entity, merged), of_links=True)
                heed_sides(self.connection, schema, account, sides)
                counts += self.deletions.tombstone(gone)
                forget(self.connection, account, listing.path, asked)
                return counts

        self.result.counts += persistently(once)
        self.scene.progress.advanced(self.entity.name, self.read, None)

    def _fixed_key(self, listing: Listing) -> tuple[str, ...]:
        return tuple(listing.fixed[column] for column in self.normal.shape.key[:-1])
