"""Contender `ours`: amocrm-mirror itself. Syncs the named entities into a migrated database.

The last line of its output is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

from pipelines.config.settings import load_settings
from pipelines.installation import Installation
from pipelines.sync.account_sync import sync
from pipelines.sync.context import NoProgress

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


class Usable(NoProgress):
    """Remembers when the views of what people look at first could be used."""

    at: float | None = None

    def reached(self, message: str) -> None:
        self.at = time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rate", default="unlimited",
                        help="requests a second; 'default' for the rate that users get")
    arguments = parser.parse_args()
    rate = {} if arguments.rate == "default" else {"amocrm_requests_per_second": arguments.rate}
    settings = load_settings(amocrm_base_url=arguments.url, amocrm_access_token=arguments.token,
                             database_url=arguments.database, mirror_key=KEY,
                             amocrm_processes=arguments.processes, **rate)
    mirror = Installation(settings)
    target, began, usable = mirror.target(), time.monotonic(), Usable()
    only = [name for name in arguments.only.split(",") if name]
    report = sync(target, only=only, progress=usable)
    entities = {result.entity: {"state": result.state, "mode": result.mode, "reason": result.reason,
                                "seen": result.counts.seen, "inserted": result.counts.inserted,
                                "updated": result.counts.updated, "deleted": result.counts.deleted,
                                "quarantined": result.counts.quarantined, "requests": result.requests,
                                "hinted": result.hint_requests, "seconds": round(result.seconds, 2)}
                for result in report.results}
    sys.stdout.write(json.dumps({
        "seconds": time.monotonic() - began, "usable_after": usable.at and usable.at - began,
        "records": sum(one["seen"] for one in entities.values()),
        "requests": max(target.client.requests, sum(result.requests for result in report.results)),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "exit_code": report.exit_code,
        "entities": entities}) + "\n")
    return 0 if report.exit_code in (0, 3) else 1


if __name__ == "__main__":
    sys.exit(main())
