"""Output of measurements: a table for the terminal, JSON for the documentation, a plot."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.arena import FIELDS_PER_LEAD, FOLDER, NOW, SEED

RESULTS = FOLDER / "results"
Row = Mapping[str, Any]


def machine(postgres: str) -> dict[str, Any]:
    """Describes the machine, the versions and the command."""
    with Path("/proc/cpuinfo").open(encoding="utf-8") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")),
                     platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cores": len(os.sched_getaffinity(0)), "processor": model, "memory_gb": round(memory, 1),
            "system": platform.platform(),
            "python": platform.python_version(), "postgresql": postgres, "psycopg": psycopg.__version__,
            "fsync": "on", "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "account": {"seed": SEED, "now": NOW, "values_a_lead_at_least": FIELDS_PER_LEAD},
            "command": " ".join(["python -m benchmarks", *sys.argv[1:]])}


def save(lane: str, postgres: str, **results: Any) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{lane}.json"
    path.write_text(json.dumps({"lane": lane, "machine": machine(postgres), **results}, indent=1,
                               ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(rows: Sequence[Row]) -> str:
    """Formats rows as a text table. The columns are the keys of the first row."""
    names = list(rows[0])
    cells = [names, *([_format(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(names))]
    lines = ["  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                       for place, (cell, width) in enumerate(zip(row, widths, strict=True)))
             for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _format(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}"


def plot(path: Path, points: Sequence[tuple[float, float]], across: str, up: str, title: str) -> None:
    """Writes an SVG with a line through the points and axes from zero.

    The dashed line shows proportionality through the last point. `across` and `up` are the axes' labels.
    """
    width, height, left, bottom, top, right = 640, 380, 80, 50, 40, 24
    most_x, most_y = (_round_up(max(point[axis] for point in points)) for axis in (0, 1))

    def at(x: float, y: float) -> tuple[float, float]:
        return (left + x / most_x * (width - left - right),
                height - bottom - y / most_y * (height - bottom - top))

    def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
        return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'

    def words(x: float, y: float, text: str, anchor: str = "middle", size: int = 12) -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{text}</text>'

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
             'font-family="sans-serif" fill="#222">',
             f'<rect width="{width}" height="{height}" fill="#fff"/>', words(width / 2, 22, title, size=14)]
    for step in range(6):
        x, y = at(most_x * step / 5, 0)[0], at(0, most_y * step / 5)[1]
        parts += [line(left, y, width - right, y, 'stroke="#ddd"'),
                  words(left - 8, y + 4, f"{most_y * step / 5:,.0f}", "end"),
                  words(x, height - bottom + 18, f"{most_x * step / 5:,.0f}")]
    last = at(*points[-1])
    parts += [line(*at(0, 0), *last, 'stroke="#999" stroke-dasharray="5 4"'),
              words(width / 2, height - 8, across),
              f'<text transform="translate(16 {height / 2}) rotate(-90)" text-anchor="middle" '
              f'font-size="12">{up}</text>',
              '<polyline fill="none" stroke="#1769aa" stroke-width="2" '
              f'points="{_path(at(*point) for point in points)}"/>']
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1769aa"/>'
              for x, y in (at(*point) for point in points)]
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _round_up(value: float) -> float:
    unit = 10.0 ** (len(str(int(value))) - 1)
    return next(step * unit for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * unit >= value)
