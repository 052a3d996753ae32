"""Is the mirror ready, and why not: the database, the receiver, the drain, and the syncs. The reasons hold
names of accounts and lists, and no address, token or message of another program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.monitoring.reading import AccountReading
from pipelines.webhooks.status import MAX_LAG_SECONDS

MAX_NAMED = 5
"""Names of lists that a reason holds."""
DATABASE_REASON = ("the state cannot be read from Postgres: it does not answer, or its tables are not those "
                   "of this version. `amocrm-mirror doctor` says which")
RECEIVER_REASON = "the receiver does not answer: keep `amocrm-mirror serve` (or `webhooks serve`) running"
STANDING_REASONS = {"blocked": "amoCRM has blocked it", "revoked": "amoCRM refuses its token",
                    "no_access": "no access was given yet"}


@dataclass(frozen=True)
class Part:
    """One part of the mirror. It is ready if there is no reason why not."""

    reasons: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        return {"ready": self.ready, "why": self.reasons}


def parts(accounts: Sequence[AccountReading] | None, receiver_reasons: list[str] | None,
          fresh_hours: float) -> dict[str, Part]:
    """Returns the parts by name. `accounts` None: the state could not be read. `receiver_reasons` None: there
    is no receiver to ask, and the part is left out."""
    receiver = {} if receiver_reasons is None else {"receiver": Part(receiver_reasons)}
    if accounts is None:
        unknown = [DATABASE_REASON]
        return {"database": Part(unknown), **receiver, "drain": Part(unknown), "syncs": Part(unknown)}
    return {"database": Part(), **receiver, "drain": Part(list(_drain_reasons(accounts))),
            "syncs": Part(list(_sync_reasons(accounts, fresh_hours)))}


def whole(found: dict[str, Part]) -> dict[str, Any]:
    """Returns the answer of /health: whether all is ready, and each part."""
    return {"ready": all(part.ready for part in found.values()),
            **{name: part.as_json() for name, part in found.items()}}


def _drain_reasons(accounts: Sequence[AccountReading]) -> Iterator[str]:
    for account in accounts:
        facts = account.facts
        if not facts["has_webhook"] or facts["standing"] != "synced":
            continue
        if not facts["is_drained"]:
            yield (f"{account.name}: no process reads what its webhooks name: keep `amocrm-mirror serve` (or "
                   "`webhooks drain`) running")
        if (facts["oldest_delivery_seconds"] or 0) > MAX_LAG_SECONDS:
            yield (f"{account.name}: {facts['deliveries']} deliveries wait, the oldest for "
                   f"{facts['oldest_delivery_seconds']:.0f} s")


def _sync_reasons(accounts: Sequence[AccountReading], fresh_hours: float) -> Iterator[str]:
    for account in accounts:
        standing = account.facts["standing"]
        if standing in STANDING_REASONS:
            yield (f"{account.name}: {STANDING_REASONS[standing]}: `amocrm-mirror doctor --account "
                   f"{account.name}`")
        elif standing == "synced":
            stale = [each["list"] for each in account.lists if each["state"] != "skipped"
                     and (each["lag_seconds"] is None or each["lag_seconds"] > fresh_hours * 3600)]
            if stale:
                more = f" and {len(stale) - MAX_NAMED} more" if len(stale) > MAX_NAMED else ""
                yield (f"{account.name}: not complete within {fresh_hours:g} h: "
                       f"{', '.join(stale[:MAX_NAMED])}{more}: `amocrm-mirror status --account "
                       f"{account.name}`")
