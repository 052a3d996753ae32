"""A process that uses the stored token: `python -m tests.support.refresh_process URL DATABASE`. For each line
of input, it reads the account, refreshing the token if it must, and prints the HTTP status or the error."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

from pipelines.amocrm.client import Client
from pipelines.amocrm.errors import AmoError
from tests.support.helpers import FAST_RETRIES, stored_tokens


def main(url: str, database: str) -> None:
    sandbox: Any = SimpleNamespace(url=url)
    print("ready", flush=True)
    for _ in sys.stdin:
        client = Client(url, stored_tokens(sandbox, database), [], FAST_RETRIES)
        try:
            print(client.get("account").status, flush=True)
        except AmoError as reason:
            print(reason, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
