"""Contender `singer`: runs tap | target-postgres from Singer's own environment until both have ended.

This script needs only Python.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--url", "--token", "--database", "--lists", "--folder", "--bin"):
        parser.add_argument(name, required=True)
    parser.add_argument("--method", default="upsert", choices=("upsert", "append-only"))
    arguments = parser.parse_args()
    folder, programs = Path(arguments.folder), Path(arguments.bin)
    (folder / "tap.json").write_text(json.dumps({"url": arguments.url, "token": arguments.token}),
                                     encoding="utf-8")
    (folder / "target.json").write_text(json.dumps({
        "sqlalchemy_url": arguments.database.replace("postgresql://", "postgresql+psycopg://"),
        "default_target_schema": "bench", "use_copy": True,
        "load_method": arguments.method, "add_record_metadata": False, "activate_version": False,
        "validate_records": False, "batch_size_rows": 10000}), encoding="utf-8")
    began = time.monotonic()
    tap = subprocess.Popen([programs / "python", Path(__file__).with_name("singer_tap.py"), "--config",
                            folder / "tap.json"],
                           stdout=subprocess.PIPE, stderr=(folder / "tap.log").open("w", encoding="utf-8"),
                           env={"BENCH_LISTS": arguments.lists})
    target = subprocess.Popen([programs / "target-postgres", "--config", folder / "target.json"],
                              stdin=tap.stdout,
                              stdout=subprocess.DEVNULL,
                              stderr=(folder / "target.log").open("w", encoding="utf-8"))
    assert tap.stdout is not None
    tap.stdout.close()
    codes = [tap.wait(), target.wait()]
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - began}) + "\n")
    if any(codes):
        sys.stderr.write((folder / "tap.log").read_text(encoding="utf-8")[-1500:]
                         + (folder / "target.log").read_text(encoding="utf-8")[-1500:])
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
