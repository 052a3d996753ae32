"""What is wrong with the accounts of a database now, from the schema `mirror` alone. Asks amoCRM nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from psycopg.rows import dict_row

from pipelines.accounts.registry import AccountRecord, scheduled_accounts
from pipelines.accounts.target import Connection
from pipelines.entities.registry import ENTITIES

ACCESS, BLOCK, FAILED, STALE, QUARANTINE, WEBHOOK = (
    "access", "block", "failed", "stale", "quarantine", "webhook")
LISTS = """
SELECT a.name AS account, wanted.entity, last.state, last.reason, wanted.place,
       coalesce(last.state <> 'skipped', true)
         AND coalesce(done.watermark, a.created_at) < now() - make_interval(secs => %(seconds)s) AS is_stale
FROM mirror.accounts a CROSS JOIN unnest(%(entities)s::text[]) WITH ORDINALITY AS wanted (entity, place)
LEFT JOIN LATERAL (SELECT state, reason FROM mirror.sync_runs
                   WHERE account = a.name AND entity = wanted.entity AND state <> 'running'
                   ORDER BY started_at DESC, id DESC LIMIT 1) AS last ON true
LEFT JOIN LATERAL (SELECT watermark FROM mirror.sync_runs
                   WHERE account = a.name AND entity = wanted.entity AND state = 'complete'
                   ORDER BY started_at DESC, id DESC LIMIT 1) AS done ON true
WHERE a.name = ANY(%(accounts)s) ORDER BY a.name, wanted.place"""
"""Per account and list: the end of its last run, and whether it was complete within the hours given. A new
account is not stale before these hours are over."""
IN_QUARANTINE = """
SELECT account, entity, count(*) AS records FROM mirror.quarantine WHERE account = ANY(%(accounts)s)
GROUP BY account, entity ORDER BY account, entity"""
SWITCHED_OFF = """
SELECT DISTINCT account FROM mirror.webhook_addresses WHERE is_disabled AND account = ANY(%(accounts)s)"""
FACTS = """
SELECT name, facts ->> 'country' AS country FROM mirror.accounts WHERE name = ANY(%(accounts)s)"""
RUSSIAN_COUNTRIES = ("RU", "BY", "KZ", "KG")
MAX_REASON = 160
"""Characters of a reason that a message repeats."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an account. `count` and `detail` fill the message."""

    account: str
    kind: str
    detail: str = ""
    count: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.account, self.kind


@dataclass(frozen=True)
class State:
    """The accounts that are watched, each with its language (`ru` or `en`), and their problems. A paused
    account is not watched: its problems neither begin nor end."""

    languages: dict[str, str]
    problems: list[Problem]


def find_problems(connection: Connection, mine: str, fresh_hours: float) -> State:
    """Returns the state of the accounts that schedules cover. `mine`: the configured account."""
    watched = [each for each in scheduled_accounts(connection, mine) if not each.paused]
    barred = [each for each in watched if each.blocked or each.revoked]
    parameters = {"accounts": [each.name for each in watched], "seconds": fresh_hours * 3600,
                  "entities": [entity.name for entity in ENTITIES]}
    reached = parameters | {"accounts": [each.name for each in watched if each not in barred]}
    problems = [*map(_barred_problem, barred), *_list_problems(_rows(connection, LISTS, reached)),
                *_quarantine_problems(_rows(connection, IN_QUARANTINE, parameters)),
                *(Problem(row["account"], WEBHOOK) for row in _rows(connection, SWITCHED_OFF, parameters))]
    countries = {row["name"]: row["country"] for row in _rows(connection, FACTS, parameters)}
    return State({each.name: _language(each, countries.get(each.name)) for each in watched},
                 sorted(problems, key=lambda each: each.key))


def _rows(connection: Connection, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement.encode(), parameters).fetchall()


def _barred_problem(account: AccountRecord) -> Problem:
    """An account that amoCRM does not let in. Its lists fail for that reason, and say nothing more."""
    if account.blocked:
        return Problem(account.name, BLOCK, account.blocked)
    return Problem(account.name, ACCESS, f"{account.revoked}: {account.why_revoked or ''}".rstrip(": "))


def _list_problems(rows: list[dict[str, Any]]) -> Iterator[Problem]:
    for account in dict.fromkeys(row["account"] for row in rows):
        own = [row for row in rows if row["account"] == account]
        failed = [f"{row['entity']} ({_short(row['reason'])})" if row["reason"] else str(row["entity"])
                  for row in own if row["state"] == "failed"]
        stale = [str(row["entity"]) for row in own if row["is_stale"]]
        if failed:
            yield Problem(account, FAILED, _listed(failed, 3), len(failed))
        if stale:
            yield Problem(account, STALE, _listed(stale, 6), len(stale))


def _quarantine_problems(rows: list[dict[str, Any]]) -> Iterator[Problem]:
    for account in dict.fromkeys(row["account"] for row in rows):
        own = [row for row in rows if row["account"] == account]
        yield Problem(account, QUARANTINE, _listed([f"{row['entity']} {row['records']}" for row in own], 6),
                      sum(row["records"] for row in own))


def _short(reason: str) -> str:
    text = " ".join(reason.split())
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def _listed(names: list[str], most: int) -> str:
    return ", ".join(names[:most]) + (" …" if names[most:] else "")


def _language(account: AccountRecord, country: str | None) -> str:
    """amoCRM names no language of an account: its domain and its country stand for it."""
    host = urlsplit(account.base_url).hostname or ""
    return "ru" if host.endswith(".amocrm.ru") or country in RUSSIAN_COUNTRIES else "en"
