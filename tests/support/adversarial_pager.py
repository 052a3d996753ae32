"""A list as a careless server might page through it: smaller pages than asked for, a `next` that is missing,
always there or leads back, pages and orders and filters that are ignored, answers that come twice. Which rows
it has never changes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.helpers import Reply

START = 1_700_000_000
NEXT = ("right", "right", "always", "missing", "null", "a number", "first", "itself", "no query")
PAST_END = ("204", "204", "empty", "last", "first")
Row = dict[str, Any]


@dataclass
class AdversarialPager:
    """An answer function for `scripted_server`. Every property is drawn from `seed`."""

    seed: int
    requests: int = 0
    rows: list[Row] = field(default_factory=list)
    last_reply: Reply | None = None
    last_list: str = ""
    """The request before, without its page and limit."""
    repeated: set[str] = field(default_factory=set)
    """The requests whose latest answer was that of another one."""

    def __post_init__(self) -> None:
        chance = self.random = Random(f"pager {self.seed}")
        count, spread = chance.choice((0, 1, 2, 15, 16, 17, chance.randint(3, 200))), chance.choice(
            (1, 50, 10**6))
        ids = sorted(chance.sample(range(1, 10**6), count))
        self.rows = [{"id": ident, "updated_at": START + chance.randrange(spread)} for ident in ids]
        for row in self.rows:
            row["created_at"] = row["updated_at"]
        self.size = chance.choice((16, 20, 25, chance.randint(16, 60), 1000))
        """Rows of the largest page."""
        self.ignores_limit = chance.random() < 0.1
        self.ignores_page = chance.random() < 0.1
        self.next, self.past_end = chance.choice(NEXT), chance.choice(PAST_END)
        self.honours_id, self.honours_time, self.honours_filter = (chance.random() < 0.7 for _ in range(3))
        self.default_order = chance.choice(("updated_at", "-updated_at", "id", "-id", "shuffled"))
        self.inclusive = chance.choice((0, 1))
        self.repeats = chance.choice((0, 0, 0, 0.1, 0.4))
        """Probability of a page that repeats the one before of the same list; the same request is
        answered rightly when it is sent again."""
        self.in_time = chance.choice((1000, 1000, 1000, 16, 30))
        """Rows of a page that the server always manages in time; larger ones, in two of three requests."""

    @property
    def page_count(self) -> int:
        return max(1, -(-len(self.rows) // min(self.size, 20)))

    def __repr__(self) -> str:
        hidden = ("rows", "random", "last_reply", "repeated")
        return f"{len(self.rows)} rows, {({k: v for k, v in vars(self).items() if k not in hidden})}"

    def __call__(self, path: str) -> Reply:
        self.requests += 1
        list_asked = re.sub(r"[?&](page|limit)=[0-9]*", "", path)
        is_same_list, self.last_list = list_asked == self.last_list, list_asked
        if path in self.repeated:
            self.repeated.remove(path)
        elif is_same_list and self.last_reply and self.random.random() < self.repeats:
            self.repeated.add(path)
            return self.last_reply
        self.last_reply = self._answer(path)
        return self.last_reply

    def _answer(self, path: str) -> Reply:
        parts = urlsplit(path)
        collection, asked = parts.path.rsplit("/", 1)[-1], parse_qsl(parts.query)
        values = dict(asked)
        if int(values.get("limit", 0)) > self.in_time and self.random.random() < 1 / 3:
            return 504, {}, None
        if collection.isdigit():
            found = [row for row in self.rows if row["id"] == int(collection)]
            return (200, {}, found[0] | {"_links": {}}) if found else (204, {}, None)
        rows = self._ordered(self._filtered(asked), values)
        number, limit = int(values.get("page", 1)), int(values.get("limit", 50))
        size = self.size if self.ignores_limit else min(limit, self.size)
        if self.ignores_page:
            number, size = 1, max(size, len(rows))
        last = max(1, -(-len(rows) // size))
        if number > last:
            if self.past_end == "204":
                return 204, {}, None
            number = {"last": last, "first": 1}.get(self.past_end, number)
        shown = rows[(number - 1) * size:number * size]
        links = self._links(number, last, [pair for pair in asked if pair[0] != "page"])
        if not shown and not links:
            return 204, {}, None
        return 200, {}, {"_page": number, "_links": links, "_embedded": {collection: shown}}

    def _filtered(self, asked: list[tuple[str, str]]) -> list[Row]:
        if not self.honours_filter:
            return self.rows
        wanted = {int(value) for name, value in asked if name == "filter[id][]"}
        bounds = {name: int(value) for name, value in asked if "_at][" in name}
        low = next((at for name, at in bounds.items() if "from" in name), 0)
        high = next((at for name, at in bounds.items() if "[to]" in name), 2**40)
        return [row for row in self.rows if (not wanted or row["id"] in wanted)
                and low + self.inclusive <= row["updated_at"] <= high - self.inclusive]

    def _ordered(self, rows: list[Row], values: dict[str, str]) -> list[Row]:
        name = self.default_order
        for asked, is_honoured in (("id", self.honours_id), ("updated_at", self.honours_time)):
            direction = values.get(f"order[{asked}]")
            if direction and is_honoured:
                name = asked if direction == "asc" else f"-{asked}"
        if name == "shuffled":
            return sorted(rows, key=lambda row: Random(row["id"]).random())
        return sorted(rows, key=lambda row: (row[name.strip("-")], row["id"]), reverse=name.startswith("-"))

    def _links(self, number: int, last: int, asked: list[tuple[str, str]]) -> dict[str, Any]:
        def to(page: int) -> dict[str, Any]:
            return {"next": {"href": "/?" + "&".join(f"{name}={value}" for name, value in [
                *asked, ("page", str(page))])}}

        more = number < last
        return {"right": to(number + 1) if more else {}, "always": to(number + 1), "missing": {},
                "null": {"next": None}, "a number": {"next": 5}, "first": to(1) if more else {},
                "itself": to(number) if more else {},
                "no query": {"next": {"href": "https://x/leads"}} if more else {}}[self.next]
