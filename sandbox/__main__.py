"""Command line of the sandbox: `python -m sandbox`."""

import argparse
import sys
from datetime import datetime

from sandbox.account.identity import TIME_ZONE
from sandbox.account.state import Options
from sandbox.serve import run


def _timestamp(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=TIME_ZONE)).timestamp())


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("expected name=value")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sandbox",
                                     description="A local imitation of amoCRM's API.")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) picks a free port")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to")
    parser.add_argument("--scale", type=int, default=200, help="number of leads")
    parser.add_argument("--seed", type=int, default=1,
                        help="the same seed, scale and --now give the same data")
    parser.add_argument("--now", type=_timestamp, default=0,
                        help="current time of the account, ISO 8601; default: the real time")
    parser.add_argument("--real-clock", action="store_true",
                        help="the data end at --now, and the account's clock shows the real time")
    parser.add_argument("--fields", type=int, default=8,
                        help="minimum number of custom field values of a lead")
    parser.add_argument("--rate", type=float, default=7.0, help="requests per second; 0 = unlimited")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="delay added to every response")
    parser.add_argument("--switch", type=_name_and_value, action="append", default=[], metavar="NAME=VALUE",
                        help="see GET /_sandbox/switches")
    parser.add_argument("--accounts", type=int, default=1,
                        help="number of accounts; each has its own port, seed, rate limit and tokens")
    parser.add_argument("--plain", dest="odd", action="store_false",
                        help="a plausible company: without the records of odd shapes and values")
    parser.add_argument("--until-eof", action="store_true", help="exit when stdin closes")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parses the options, serves until interrupted and returns the exit code."""
    options = vars(_parser().parse_args(argv))
    options["switches"] = dict(options.pop("switch"))
    return run(Options(**options))


if __name__ == "__main__":
    sys.exit(main())
