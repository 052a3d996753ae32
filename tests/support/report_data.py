"""Reads the data out of a report's file, and adds them up as the page does (assets/aggregate.js), in
Python."""

from __future__ import annotations

import base64
import datetime
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
from pipelines.bi.dashboards.queries import DAY_ZERO

Data = dict[str, Any]
AGGREGATE = Path(html.__file__).parent / "assets" / "aggregate.js"
DRIVER = """
const A = require(process.argv[1]), { data, asked } = JSON.parse(require("fs").readFileSync(0, "utf8"));
data.cubes.forEach(A.open);
const tiles = Object.fromEntries(data.pages.flatMap(page => page.tiles).map(tile => [tile.name, tile]));
console.log(JSON.stringify(asked.map(({ tile, period, state }) => {
  const [from, to] = A.snap(A.period(period, data.today), data.exact_from), one = tiles[tile];
  const dimensions = [...(one.repeat ? [one.repeat] : []), ...one.dimensions];
  return A.groups(one, data.cubes[one.cube], { ...state, from, to }, dimensions)
    .map(({ keys, sums }) => [keys, one.measures.map(measure => A.value(measure, sums))]);
})));
"""
"""Groups of tiles, as the page's own script adds them up."""


def data_of(content: bytes) -> Data:
    """The data block of a report's file."""
    found = re.search(r'<script type="application/(json|gzip)" id="data">(.*?)</script>',
                      content.decode("utf-8"), re.S)
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


def totals(data: Data, name: str, days: tuple[int | None, int | None] = (None, None), **chosen: int
           | None) -> list[float | None]:
    """The measures of a tile over the rows of a period that the filters leave."""
    tile = tile_of(data, name)
    cube = data["cubes"][tile["cube"]]
    start = int(cube["dated"])
    sums = [0] * len(cube["sums"])
    for keys, values in rows_of(cube):
        day = keys[0] if cube["dated"] and tile["dated"] else None
        inside = (all(limit is None or day is not None and (day >= limit if first else day <= limit)
                      for limit, first in zip(days, (True, False), strict=True)) or not tile["dated"])
        if inside and all(keys[start + place] == chosen.get(each)
                          for place, each in enumerate(cube["filters"]) if chosen.get(each) is not None
                          and each in tile["filters"]):
            sums = [one + other for one, other in zip(sums, values, strict=True)]
    return [sums[each["sum"]] if each["per"] is None else sums[each["sum"]] / sums[each["per"]]
            if sums[each["per"]] else None for each in tile["measures"]]


Groups = dict[tuple[Any, ...], list[float | None]]


def groups(data: Data, name: str, days: tuple[int, int], **chosen: int | None) -> Groups:
    """The measures of a tile by what it is divided by: months as dates, filters by their labels."""
    tile = tile_of(data, name)
    cube, found = data["cubes"][tile["cube"]], dict[tuple[Any, ...], list[float]]()
    names = ["day"] * cube["dated"] + cube["filters"] + cube["dimensions"]
    for keys, sums in rows_of(cube):
        row = dict(zip(names, keys, strict=True))
        if tile["dated"] and (row["day"] is None or not days[0] <= row["day"] <= days[1]):
            continue
        if all(row.get(each) == place for each, place in chosen.items()
               if place is not None and each in cube["filters"] and each in tile["filters"]):
            key = tuple("day" if each["month"] else each["column"] for each in _dimensions(tile))
            values = tuple(_month(row[each]) if each == "day" else row[each] for each in key)
            there = found.setdefault(values, [0] * len(sums))
            found[values] = [one + other for one, other in zip(there, sums, strict=True)]
    return {_shown(data, tile, keys): [_value(each, sums) for each in tile["measures"]]
            for keys, sums in found.items()}


def _dimensions(tile: Data) -> list[Data]:
    return [*([tile["repeat"]] if tile["repeat"] else []), *tile["dimensions"]]


def _month(day: int) -> int:
    date = DAY_ZERO + datetime.timedelta(days=day)
    return (date.replace(day=1) - DAY_ZERO).days


def _value(measure: Data, sums: list[float]) -> float | None:
    if measure["per"] is None:
        return sums[measure["sum"]]
    return sums[measure["sum"]] / sums[measure["per"]] if sums[measure["per"]] else None


def _shown(data: Data, tile: Data, keys: Any) -> tuple[Any, ...]:
    """Keys as a person sees them."""
    filters = {each["name"]: each["values"] for each in data["filters"]}
    return tuple(
        DAY_ZERO + datetime.timedelta(days=key) if each["month"]
        else filters[each["column"]][key] if each["column"] in filters and isinstance(key, int) else key
        for each, key in zip(_dimensions(tile), keys, strict=True))


def groups_in_node(data: Data, asked: list[Data]) -> list[Groups]:
    """The same, as the page's own script does it. Skips the test where there is no node."""
    if not (node := shutil.which("node")):
        pytest.skip("node is not installed")
    done = subprocess.run(
        [node, "-e", DRIVER, str(AGGREGATE)], input=json.dumps({"data": data, "asked": asked}),
        capture_output=True, encoding="utf-8", check=True, timeout=60)
    return [{_shown(data, tile_of(data, one["tile"]), keys): values for keys, values in found}
            for one, found in zip(asked, json.loads(done.stdout), strict=True)]
