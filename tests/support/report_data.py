"""Reads the data out of a report's file, and adds them up as the page does (assets/aggregate.js), in
Python."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from pipelines.bi.dashboards import html

Data = dict[str, Any]
AGGREGATE = Path(html.__file__).parent / "assets" / "aggregate.js"
DRIVER = """
const A = require(process.argv[1]), { data, asked } = JSON.parse(require("fs").readFileSync(0, "utf8"));
data.cubes.forEach(A.open);
const tiles = Object.fromEntries(data.pages.flatMap(page => page.tiles).map(tile => [tile.name, tile]));
console.log(JSON.stringify(asked.map(({ tile, period, state }) => {
  const [from, to] = A.snap(A.period(period, data.today), data.exact_from);
  const cube = data.cubes[tiles[tile].cube];
  const sums = A.total(tiles[tile], cube, { ...state, from, to });
  return tiles[tile].measures.map(measure => A.value(measure, sums));
})));
"""


def data_of(content: bytes) -> Data:
    """The data block of a report's file."""
    found = re.search(
        r'<script type="application/(json|gzip)" id="data">(.*?)</script>', content.decode("utf-8"), re.S
    )
    assert found
    text = found[2].encode() if found[1] == "json" else gzip.decompress(base64.b64decode(found[2]))
    data: Data = json.loads(text)
    return data


def tile_of(data: Data, name: str) -> Data:
    [tile] = [each for page in data["pages"] for each in page["tiles"] if each["name"] == name]
    return dict(tile)


def place_of(data: Data, name: str, label: str | None) -> int | None:
    """The place of a value in a filter's list; None for all."""
    [known] = [each for each in data["filters"] if each["name"] == name]
    return None if label is None else int(known["values"].index(label))


def rows_of(cube: Data) -> list[tuple[list[Any], list[Any]]]:
    """(keys, sums) of each row: the day itself, places of filters, values of dimensions."""
    keys = [list(column) for column in cube["keys"]]
    if cube["dated"]:
        known = accumulate(each for each in keys[0] if each is not None)
        keys[0] = [None if each is None else next(known) for each in keys[0]]
    start = len(keys) - len(cube["values"])
    for place, values in enumerate(cube["values"]):
        keys[start + place] = [values[each] for each in keys[start + place]]
    sums = [list(each) for each in zip(*cube["sums"], strict=True)]
    found = [list(each) for each in zip(*keys, strict=True)] if keys else [list[Any]() for _ in sums]
    return list(zip(found, sums, strict=True))


def totals(
    data: Data, name: str, days: tuple[int | None, int | None] = (None, None), **chosen: int | None
) -> list[float | None]:
    """The measures of a tile over the rows of a period that the filters leave."""
    tile = tile_of(data, name)
    cube = data["cubes"][tile["cube"]]
    start = int(cube["dated"])
    sums = [0] * len(cube["sums"])
    for keys, values in rows_of(cube):
        day = keys[0] if cube["dated"] and tile["dated"] else None
        inside = (
            all(
                limit is None or day is not None and (day >= limit if first else day <= limit)
                for limit, first in zip(days, (True, False), strict=True)
            )
            or not tile["dated"]
        )
        if inside and all(
            keys[start + place] == chosen.get(each)
            for place, each in enumerate(cube["filters"])
            if chosen.get(each) is not None and each in tile["filters"]
        ):
            sums = [one + other for one, other in zip(sums, values, strict=True)]
    return [
        sums[each["sum"]]
        if each["per"] is None
        else sums[each["sum"]] / sums[each["per"]]
        if sums[each["per"]]
        else None
        for each in tile["measures"]
    ]


def totals_in_node(data: Data, asked: list[Data]) -> list[list[float | None]]:
    """The same, as the page's own script does it. Skips the test where there is no node."""
    if not (node := shutil.which("node")):
        pytest.skip("node is not installed")
    done = subprocess.run(
        [node, "-e", DRIVER, str(AGGREGATE)],
        input=json.dumps({"data": data, "asked": asked}),
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    found: list[list[float | None]] = json.loads(done.stdout)
    return found
