"""layout → SVG: the entity-relationship diagram, with a light and a dark style. One self-contained file: no
fonts, no scripts, no external resources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from pipelines.dictionary.layout import (
    ROW_HEIGHT,
    Box,
    DiagramLayout,
    Line,
    Panel,
    Point,
    Row,
    compute_layout,
)
from pipelines.dictionary.model import Dictionary
from pipelines.schema.texts import say, speaking

LINE_COLOURS = 12
LEGEND_HEIGHT = 64
STYLE = """
.schema{--ground:#fff;--ink:#1c2430;--dim:#667085;--box:#fff;--head:#eef2f7;--edge:#c4ccd8;--panel:#f7f9fb;\
--part:#f6f8fb;
 font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.schema .c0{--line:#2563eb}.schema .c1{--line:#c2410c}.schema .c2{--line:#15803d}.schema .c3{--line:#a21caf}\
.schema .c4{--line:#0e7490}
.schema .c5{--line:#b45309}.schema .c6{--line:#4f46e5}.schema .c7{--line:#be123c}.schema .c8{--line:#4d7c0f}\
.schema .c9{--line:#0369a1}
.schema .c10{--line:#7e22ce}.schema .c11{--line:#57534e}
.schema .ground{fill:var(--ground)}.schema .panel{fill:var(--panel);stroke:var(--edge);stroke-dasharray:2 3}
.schema .title{font:600 13px system-ui,sans-serif;fill:var(--dim)}\
.schema .legend{font:12px system-ui,sans-serif;fill:var(--dim)}
.schema .box{fill:var(--box);stroke:var(--edge)}.schema .head{fill:var(--head)}\
.schema rect.part{fill:var(--part)}
.schema .name{font-weight:700;font-size:12.5px;fill:var(--ink)}.schema text{fill:var(--ink)}\
.schema .points,.schema .more{fill:var(--dim)}
.schema .key{font-weight:600}.schema .link{fill:none;stroke:var(--line);stroke-width:1.3;opacity:.75}\
.schema .end{fill:var(--line)}
.schema a:hover .name{text-decoration:underline}.schema g.wire:hover .link{stroke-width:3;opacity:1}
"""
DARK_STYLE = ("--ground:#12161c;--ink:#e6e9ee;--dim:#9aa4b2;--box:#1a2029;--head:#252d39;--edge:#3b4656;"
        "--panel:#151a21;--part:#1e252f",
        "#7aa7ff", "#ff9a6b", "#5fd38a", "#e38bf0", "#4fd0e3", "#f0b35b", "#a5a1ff", "#ff8aa0", "#b3dd5c",
        "#62c4f5", "#c99bff", "#bdb7b0")
"""Variables of the dark style, then the colours of its lines."""


def dark_rules(prefix: str) -> str:
    """The CSS rules of the dark style. `prefix` is the selector, with a space after it, under which they
    apply."""
    lines = "".join(f"{prefix}.schema .c{number}{{--line:{ink}}}"
                    for number, ink in enumerate(DARK_STYLE[1:]))
    return f"{prefix}.schema{{{DARK_STYLE[0]}}}{lines}"


def svg(dictionary: Dictionary, page: str = "", style: str | None = None) -> str:
    """The diagram as SVG. `page` is the address of the page that the boxes link to; `style` replaces the
    default CSS, which follows the reader's system."""
    with speaking(dictionary.language):
        return _svg(dictionary, page, style)


def _svg(dictionary: Dictionary, page: str, style: str | None) -> str:
    found = compute_layout(dictionary)
    width, height = round(found.width), round(found.height) + LEGEND_HEIGHT
    rules = STYLE + f"@media (prefers-color-scheme:dark){{{dark_rules('')}}}" if style is None else style
    title = f"<title>{escape(dictionary.title)}</title>"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="schema" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">{title}<style>{rules}</style>'
            f'<rect class="ground" width="{width}" height="{height}"/>\n'
            + "\n".join(_elements(found, page)) + "\n</svg>\n")


def _elements(found: DiagramLayout, page: str) -> Iterator[str]:
    colours = {target: number % LINE_COLOURS
            for number, target in enumerate(sorted({line.target for line in found.lines}))}
    yield from (_panel(panel) for panel in found.panels)
    for target, ink in colours.items():
        yield _line_group(target, ink, [line for line in found.lines if line.target == target])
    yield from (_box(box, page) for box in found.boxes)
    yield from _legend(found)


def _panel(panel: Panel) -> str:
    return (f'<rect class="panel" x="{panel.x:.0f}" y="{panel.y:.0f}" width="{panel.width:.0f}" '
            f'height="{panel.height:.0f}" rx="8"/>'
            f'<text class="title" x="{panel.x + 10:.0f}" y="{panel.y + 20:.0f}">'
            f'{escape(panel.group.title)}</text>')


def _line_group(target: str, colour: int, lines: Iterable[Line]) -> str:
    paths, ends = [], {}
    for line in lines:
        paths.append(f'<path class="link" d="{_path(line.points)}"/><circle class="end" r="2.2" '
                     f'cx="{line.points[0][0]:.1f}" cy="{line.points[0][1]:.1f}"/>')
        ends[line.points[-1]] = _arrow(line.points)
    return (f'<g class="wire c{colour}"><title>→ {escape(target)}</title>'
            f'{"".join(paths)}{"".join(ends.values())}</g>')


def _arrow(points: list[Point]) -> str:
    (x, y), back = points[-1], -7 if points[-1][0] > points[-2][0] else 7
    return f'<path class="end" d="M{x:.1f} {y:.1f}l{back} -3.6v7.2z"/>'


def _path(points: list[Point]) -> str:
    """The SVG path of a line: straight segments with rounded corners."""
    corners = [point for place, point in enumerate(points) if place == 0 or point != points[place - 1]]
    parts = [f"M{corners[0][0]:.1f} {corners[0][1]:.1f}"]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        one, two = _rounding_start(corner, before), _rounding_start(corner, after)
        parts.append(f"L{one[0]:.1f} {one[1]:.1f}Q{corner[0]:.1f} {corner[1]:.1f} {two[0]:.1f} {two[1]:.1f}")
    return "".join([*parts, f"L{corners[-1][0]:.1f} {corners[-1][1]:.1f}"])


def _rounding_start(corner: Point, other: Point) -> Point:
    """The point at most 4 pixels from `corner` in the direction of `other`, where the rounding begins."""
    length = abs(other[0] - corner[0]) + abs(other[1] - corner[1])
    share = min(4.0, length / 2) / length if length else 0.0
    return corner[0] + (other[0] - corner[0]) * share, corner[1] + (other[1] - corner[1]) * share


def _box(box: Box, page: str) -> str:
    rows = "".join(_row(box, row, page) for row in box.rows)
    return (f'<g><rect class="box" x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" '
            f'height="{box.height:.0f}" rx="5"/>'
            f'<rect class="head" x="{box.x + 1:.0f}" y="{box.y + 1:.0f}" '
            f'width="{box.width - 2:.0f}" height="22" rx="4"/>'
            f'<a href="{page}#{escape(box.name)}"><title>{escape(box.comment)}</title>'
            f'<text class="name" x="{box.x + 10:.0f}" y="{box.y + 16:.0f}">{escape(box.name)}</text></a>'
            f'{rows}</g>')


def _row(box: Box, row: Row, page: str) -> str:
    base = row.y + 4
    text = (f'<text class="row {row.kind}" x="{box.x + (22 if row.kind == "part" else 10):.0f}" '
            f'y="{base:.1f}">{escape(row.text)}</text>')
    if row.kind == "part":
        top = row.y - ROW_HEIGHT / 2 + 1
        text = (f'<rect class="part" x="{box.x + 14:.0f}" y="{top:.1f}" width="{box.width - 20:.0f}" '
                f'height="{ROW_HEIGHT - 2}" rx="3"/>'
                f'<a href="{page}#{escape(row.text)}">{text}</a>')
    points = (f'<text class="points" text-anchor="end" x="{box.x + box.width - 8:.0f}" y="{base:.1f}">'
              f'→ {escape(row.points)}</text>')
    return text + (points if row.points else "")


def _legend(found: DiagramLayout) -> Iterator[str]:
    words = ("A box is a table with its key, its references, and, indented, its child tables, whose foreign "
             "keys to it are enforced.",
             "A line leads from a column to the table that it refers to. It is not enforced: the record "
             "there may be missing. Not drawn: references to users, user_groups and accounts, and entity_id, "
             "which refers to a record of the kind in entity_type.")
    for number, line in enumerate(words):
        y = found.height + 18 + number * 18
        yield f'<text class="legend" x="20" y="{y:.0f}">{escape(say(line))}</text>'
