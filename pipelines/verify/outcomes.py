"""The result of a verification, per entity and history table, and its row in mirror.verifications. Column
names are stored; values never are."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from psycopg.types.json import Jsonb

from pipelines.accounts.target import Target
from pipelines.verify.comparison import EmbeddedRows
from pipelines.verify.differences import ByList, NotCompared

MAX_EXAMPLES = 20
"""Differences per entity stored as examples in mirror.verifications."""


@dataclass
class EntityVerification:
    """Result of one entity or history table. `state` is equal, different, repaired, incomplete, skipped or
    failed; times are unix seconds."""

    entity: str
    state: str = "equal"
    reason: str = ""
    compared: int = 0
    """Records compared in the first pass."""
    differences: ByList = field(default_factory=dict)
    """What differs now."""
    found: ByList = field(default_factory=dict)
    """What differed before the repair."""
    unlisted: Counter[str] = field(default_factory=Counter)
    """Further differences that are only counted, by kind."""
    embedded: EmbeddedRows = field(default_factory=dict)
    """Embedded objects whose rows differ."""
    not_compared: NotCompared = field(default_factory=NotCompared)
    behind: int = 0
    """Records that changed in amoCRM after the mirror's last read. They are no differences."""
    repaired: int = 0
    """Differences that `repair` fixed."""
    requests: int = 0
    began: float = field(default_factory=time.time)
    ended: float = 0.0

    def count(self, kind: str) -> int:
        """Number of differences of a kind: missing, stale or extra."""
        return self.unlisted[kind] + sum(each.kind == kind for keys in self.differences.values()
                                         for each in keys.values())

    @property
    def difference_count(self) -> int:
        """Number of differences."""
        return sum(map(len, self.differences.values())) + self.unlisted.total()

    @property
    def examples(self) -> list[str]:
        """The first MAX_EXAMPLES differences, e.g. "leads/123: stale: price, lead_tags"."""
        return self.described_examples(with_values=False)

    def described_examples(self, with_values: bool) -> list[str]:
        """Returns the first MAX_EXAMPLES differences as text. `with_values`: with the values here and in
        amoCRM, which are personal data: for a terminal only."""
        return [f"{path}/{key[-1]}: {each.described() if with_values else each}"
                for path, keys in (self.found or self.differences).items()
                for key, each in keys.items()][:MAX_EXAMPLES]

    @property
    def not_compared_note(self) -> str:
        """What was not compared, with the reasons; empty if everything was."""
        lines = self.not_compared.lines()
        return f"not compared: {'; '.join(lines)}" if lines else ""

    def set_state(self, state: str, reason: str) -> None:
        """Sets the state from that of a pass: complete, skipped, incomplete or failed. Differences, and what
        was not compared although amoCRM has it, make it worse, never better."""
        self.reason, self.ended = reason or self.reason, time.time()
        if state in ("failed", "incomplete"):
            self.state = state
        elif self.difference_count:
            self.state = "different"
        elif self.not_compared.unproven.total():
            self.state = "incomplete"
        else:
            self.state = "equal" if state == "complete" else state


@dataclass
class Verification:
    """Result of a verification; `seconds` of wall time."""

    run_id: str
    outcomes: list[EntityVerification]
    seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)
    """Entities and history tables that `only` left out."""

    @property
    def exit_code(self) -> int:
        """0: equal or repaired; 1: an entity failed; 3: an entity differs or could not be compared."""
        states = {outcome.state for outcome in self.outcomes}
        return 1 if "failed" in states else 3 if states & {"different", "incomplete"} else 0


def save(target: Target, run_id: str, outcomes: Iterable[EntityVerification]) -> None:
    """Stores the results in mirror.verifications."""
    with target.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO mirror.verifications (run_id, account, entity, state, reason, began_at, "
            "ended_at, compared, missing, extra, stale, examples, requests) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [_row(target, run_id, each) for each in outcomes])


def _row(target: Target, run_id: str, outcome: EntityVerification) -> list[Any]:
    began, ended = (datetime.datetime.fromtimestamp(at, datetime.UTC)
                    for at in (outcome.began, outcome.ended or time.time()))
    reason = "; ".join(filter(None, [outcome.reason, outcome.not_compared_note]))
    return [run_id, target.name, outcome.entity, outcome.state, reason or None, began, ended,
            outcome.compared, outcome.count("missing"), outcome.count("extra"), outcome.count("stale"),
            Jsonb(outcome.examples) if outcome.examples else None, outcome.requests]
