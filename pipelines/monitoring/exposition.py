"""The metrics, in the text format of Prometheus. Labels are bounded: names of accounts, names of lists of the
registry, and words of this program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pipelines.errors import MissingExtraError
from pipelines.monitoring.reading import AccountReading

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "amocrm_mirror_"
ACCOUNT, LIST = ("account",), ("account", "list")
Sample = tuple[tuple[str, ...], float | None]
"""Values of the labels, and the value; None: there is none, and the sample is left out."""


@dataclass(frozen=True)
class Declared:
    """One metric: its name without the prefix, what it means, and its labels."""

    name: str
    text: str
    labels: tuple[str, ...] = ()
    is_counter: bool = False


METRICS = (
    Declared("info", "The program that wrote these metrics; always 1", ("version",)),
    Declared("database_ready", "1: the state could be read from Postgres; 0: nothing else is shown"),
    Declared("read_seconds", "Seconds that reading the state took"),
    Declared("account_standing", "1: how the account stands (synced, paused, blocked, revoked, no_access)",
             ("account", "standing")),
    Declared("syncing", "1: a sync or verification of the account runs now", ACCOUNT),
    Declared("webhook_on", "1: amoCRM sends webhooks; 0: it has switched them off. Absent: no webhook",
             ACCOUNT),
    Declared("drain_running", "1: a process reads what webhooks name. Absent: no webhook", ACCOUNT),
    Declared("token_usable", "1: access is stored and not known to be dead", ACCOUNT),
    Declared("token_end_timestamp_seconds", "When access ends if nothing is done: of a long-lived token "
             "its end, of a pair three months after it was last renewed", ACCOUNT),
    Declared("requests", "Requests that took a slot of the account's rate budget, of every process", ACCOUNT,
             is_counter=True),
    Declared("throttled", "Answers 429 (too many requests)", ACCOUNT, is_counter=True),
    Declared("hints_waiting", "Records that wait to be read again", ACCOUNT),
    Declared("hints_oldest_seconds", "Age of the oldest of them; 0: none waits", ACCOUNT),
    Declared("deliveries_waiting", "Webhook deliveries whose records were not all read yet", ACCOUNT),
    Declared("deliveries_oldest_seconds", "Age of the oldest of them; 0: none waits", ACCOUNT),
    Declared("quarantine_records", "Records that could not become rows", LIST),
    Declared("list_state", "1: state of the list's last run (complete, skipped, incomplete, failed, running, "
             "interrupted, never)", (*LIST, "state")),
    Declared("list_complete_timestamp_seconds", "The list holds what amoCRM showed at this moment. Absent: "
             "it was never complete", LIST),
    Declared("list_lag_seconds", "Seconds since then", LIST),
    Declared("list_rows", "Rows, from Postgres' statistics; rows marked deleted included", LIST),
    Declared("last_run_started_timestamp_seconds", "Start of the list's last run", LIST),
    Declared("last_run_finished_timestamp_seconds", "Its end. Absent while it runs, or if it was killed",
             LIST),
    Declared("last_run_seconds", "Seconds that it took", LIST),
    Declared("last_run_records", "Records that it read", LIST),
    Declared("last_run_rows", "Rows that it inserted, updated and deleted, child rows included",
             (*LIST, "change")),
    Declared("last_run_requests", "Requests that it sent", LIST),
    Declared("last_run_retries", "Requests that it sent again after passing failures; 429s do not count",
             LIST),
    Declared("verification_state", "1: what the list's last verification found (equal, different, repaired, "
             "incomplete, skipped, failed)", (*LIST, "state")),
    Declared("verification_timestamp_seconds", "When it ended", LIST),
    Declared("verification_records", "Records that it compared", LIST),
    Declared("verification_differences", "Records missing here, too many here, or with other content",
             (*LIST, "kind")),
)
ACCOUNT_VALUES = {
    "syncing": "is_syncing", "token_usable": "is_token_usable",
    "token_end_timestamp_seconds": "token_ends_at", "requests": "requests", "throttled": "throttled",
    "hints_waiting": "hints", "deliveries_waiting": "deliveries"}
"""Metric → its column of an account."""
ACCOUNT_AGES = {"hints_oldest_seconds": "oldest_hint_seconds",
                "deliveries_oldest_seconds": "oldest_delivery_seconds"}
LIST_VALUES = {
    "quarantine_records": "quarantined", "list_complete_timestamp_seconds": "complete_at",
    "list_lag_seconds": "lag_seconds", "list_rows": "rows",
    "last_run_started_timestamp_seconds": "started_at",
    "last_run_finished_timestamp_seconds": "finished_at", "last_run_seconds": "seconds",
    "last_run_records": "seen", "last_run_requests": "run_requests", "last_run_retries": "retries",
    "verification_timestamp_seconds": "verified_at", "verification_records": "compared"}
"""Metric → its column of a list."""
LIST_WORDS = {"list_state": "state", "verification_state": "verification"}
"""Metric whose last label is a word → the word's column."""
LIST_COUNTS = {"last_run_rows": ("inserted", "updated", "deleted"),
               "verification_differences": ("missing", "extra", "stale")}
"""Metric whose last label names a column → these columns."""


def require_exporter() -> None:
    """Raises MissingExtraError if prometheus-client is not installed."""
    if find_spec("prometheus_client") is None:
        raise MissingExtraError("prometheus-client is", "metrics")


def exposition(accounts: Sequence[AccountReading] | None, seconds: float) -> bytes:
    """Returns the metrics as text. `accounts` None: the state could not be read. `seconds`: how long reading
    took. Raises MissingExtraError."""
    require_exporter()
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import generate_latest
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(list(_families(accounts, seconds))))
    return generate_latest(registry)


class _Collector:
    """Hands prepared families to a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def _families(accounts: Sequence[AccountReading] | None, seconds: float) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
    found = samples(accounts, seconds)
    for metric in METRICS:
        family = (CounterMetricFamily if metric.is_counter else GaugeMetricFamily)(
            PREFIX + metric.name, metric.text, labels=metric.labels)
        for labels, value in found.get(metric.name, ()):
            if value is not None:
                family.add_metric(labels, float(value))
        yield family


def samples(accounts: Sequence[AccountReading] | None, seconds: float) -> dict[str, list[Sample]]:
    """Returns the samples by metric."""
    found: dict[str, list[Sample]] = {
        "info": [((_version(),), 1)], "database_ready": [((), accounts is not None)],
        "read_seconds": [((), seconds)]}
    for account in accounts or ():
        for name, labels, value in (*_account_samples(account), *_list_samples(account)):
            found.setdefault(name, []).append((labels, value))
    return found


def _account_samples(account: AccountReading) -> Iterator[tuple[str, tuple[str, ...], float | None]]:
    name, facts = account.name, account.facts
    yield "account_standing", (name, facts["standing"]), 1
    for metric, column in ACCOUNT_VALUES.items():
        yield metric, (name,), facts[column]
    for metric, column in ACCOUNT_AGES.items():
        yield metric, (name,), facts[column] or 0
    if facts["has_webhook"]:
        yield "webhook_on", (name,), not facts["is_webhook_off"]
        yield "drain_running", (name,), facts["is_drained"]


def _list_samples(account: AccountReading) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    for each in account.lists:
        labels = (account.name, each["list"])
        for metric, column in LIST_VALUES.items():
            yield metric, labels, each[column]
        for metric, column in LIST_WORDS.items():
            if each[column]:
                yield metric, (*labels, each[column]), 1
        for metric, columns in LIST_COUNTS.items():
            for column in columns:
                yield metric, (*labels, column), each[column]


def _version() -> str:
    try:
        return version("amocrm-mirror")
    except PackageNotFoundError:
        return "unknown"
