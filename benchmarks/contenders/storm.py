"""Sends deliveries to a receiver at a fixed rate, each on its own connection, without waiting for answers.

Prints as JSON the number of deliveries sent, the answers, and the times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from urllib.parse import urlsplit


async def deliver(host: str, port: int, path: str, body: bytes) -> tuple[int, float]:
    """Sends one delivery; returns the HTTP status (0: none) and the seconds until the answer."""
    began = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\n"
                     "Content-Type: application/x-www-form-urlencoded\r\n"
                     f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        line = await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        return int(line.split()[1]), time.perf_counter() - began
    except (OSError, TimeoutError, IndexError, ValueError):
        return 0, time.perf_counter() - began


async def storm(address: str, rate: float, seconds: float, ids: list[int]) -> dict[str, object]:
    parts, began, tasks = urlsplit(address), time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        lead = ids[number % len(ids)]
        body = (f"leads%5Bupdate%5D%5B0%5D%5Bid%5D={lead}&leads%5Bupdate%5D%5B0%5D%5Bname%5D=storm"
                f"&leads%5Bupdate%5D%5B0%5D%5Bprice%5D={number}"
                f"&leads%5Bupdate%5D%5B0%5D%5Blast_modified%5D={1795000000 + number}").encode()
        tasks.append(asyncio.create_task(deliver(parts.hostname or "", parts.port or 80, parts.path, body)))
    took = time.perf_counter() - began
    answers = await asyncio.gather(*tasks)
    times = sorted(seconds for _, seconds in answers)
    return {"sent": len(answers), "seconds": took,
            "answers": {str(status): count for status, count in Counter(s for s, _ in answers).items()},
            "median": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "longest": times[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    ids = json.load(sys.stdin)
    sys.stdout.write(json.dumps(asyncio.run(storm(arguments.address, arguments.rate, arguments.seconds, ids)))
                     + "\n")


if __name__ == "__main__":
    main()
