"""A process of its own that wants a token: `python -m tests.refresher URL DATABASE` renews at the word; prints whether amoCRM took what it got."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

from pipelines.amocrm.client import Client
from pipelines.amocrm.errors import AmoError
from tests.support.helpers import HASTY, stored_tokens


def main(url: str, database: str) -> None:
    sandbox: Any = SimpleNamespace(url=url)
    print("ready", flush=True)
    for _ in sys.stdin:
        client = Client(url, stored_tokens(sandbox, database), [], HASTY)
        try:
            print(client.get("account").status, flush=True)
        except AmoError as reason:
            print(reason, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
