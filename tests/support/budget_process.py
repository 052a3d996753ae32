"""A process that uses up a rate limit: `python -m tests.support.budget_process URL TOKEN DATABASE RATE
REQUESTS`. For each line of input, it sends REQUESTS requests and prints the Unix times at which it began and
ended."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from tests.support.helpers import client_of, rate_limiter_of


def main(url: str, token: str, database: str, rate: str, requests: str) -> None:
    client = client_of(SimpleNamespace(url=url), token, budgets=[rate_limiter_of(database, float(rate))])
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.time()
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: client.get("leads", [("limit", "1")]), range(int(requests))))
        print(began, time.time(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
