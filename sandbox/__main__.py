"""`python -m sandbox`: the command line of the local amoCRM."""

import argparse
import sys
from datetime import datetime

from sandbox.account.identity import ZONE
from sandbox.account.state import Options
from sandbox.serve import run


def _instant(text: str) -> int:
    found = datetime.fromisoformat(text)
    return int((found if found.tzinfo else found.replace(tzinfo=ZONE)).timestamp())


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("expected name=value")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sandbox", description="A local amoCRM that answers as the real one does.")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to")
    parser.add_argument("--scale", type=int, default=200, help="number of leads")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, scale and now give the same data")
    parser.add_argument("--now", type=_instant, default=0, help="the account's present, ISO 8601; default: the real one")
    parser.add_argument("--fields", type=int, default=8, help="custom field values that a lead has at least")
    parser.add_argument("--rate", type=float, default=7.0, help="requests per second; 0 = unlimited")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to every answer")
    parser.add_argument("--switch", type=_pair, action="append", default=[], metavar="NAME=VALUE", help="see GET /_sandbox/switches")
    parser.add_argument("--accounts", type=int, default=1, help="accounts, each on a port, of a seed, with a rate and tokens of its own")
    parser.add_argument("--until-eof", action="store_true", help="end when stdin closes")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parse the options and serve."""
    given = vars(_parser().parse_args(argv))
    given["switches"] = dict(given.pop("switch"))
    return run(Options(**given))


if __name__ == "__main__":
    sys.exit(main())
