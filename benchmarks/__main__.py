"""`python -m benchmarks [lane …]` runs the named lanes, or all of them.

Lanes: speed, throttle, memory, linear, second, cost, views, report, accounts, current, hooks, storm.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.arena import Arena
from benchmarks.lanes import CONTENDERS, LANES, Options
from benchmarks.measure import BenchmarkError
from benchmarks.report import RESULTS, say


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("lanes", nargs="*", choices=[*LANES, []], metavar="lane", help=", ".join(LANES))
    parser.add_argument("--leads", type=int, default=0, help="size of the account; default: the lane's own")
    parser.add_argument("--rivals-leads", type=int, default=20_000,
                        help="size of the account that dlt and Singer are measured on, if less")
    parser.add_argument("--only", default="", help=f"contenders of the speed lane: {', '.join(CONTENDERS)}")
    parser.add_argument("--repeat", type=int, default=1,
                        help="heats of each contender of the speed lane; the fastest counts")
    parser.add_argument("--million", action="store_true", help="the linear lane up to a million leads")
    parser.add_argument("--accounts", type=int, default=0,
                        help="number of accounts of the lanes accounts (50) and current (200)")
    parser.add_argument("--minutes", type=int, default=10, help="how long the current lane measures")
    parser.add_argument("--tick", type=int, default=5, help="minutes between two ticks of the current lane")
    arguments = parser.parse_args()
    options = Options(arguments.leads, arguments.rivals_leads, arguments.million,
                      [name for name in arguments.only.split(",") if name], arguments.repeat,
                      arguments.accounts, arguments.minutes, arguments.tick)
    try:
        with Arena() as arena:
            say(f"PostgreSQL {arena.version}, results in {RESULTS}")
            for lane in arguments.lanes or LANES:
                LANES[lane](arena, options)
    except BenchmarkError as reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
