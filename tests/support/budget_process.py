"""A process of its own that spends a budget: `python -m tests.spender URL TOKEN DATABASE RATE REQUESTS`. At each line it reads; prints when it began
and ended."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from tests.support.helpers import budget_of, client_of


def main(url: str, token: str, database: str, rate: str, requests: str) -> None:
    client = client_of(SimpleNamespace(url=url), token, budgets=[budget_of(database, float(rate))])
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.time()
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: client.get("leads", [("limit", "1")]), range(int(requests))))
        print(began, time.time(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
