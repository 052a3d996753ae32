"""facts → places: where each box of the diagram stands, what it says, and the way of each line between them. No drawing.

A box is a table with the tables of its children inside. Boxes stand in columns, chapter under chapter; lines run in the gutters between the
columns and cross a column only in the gaps between its boxes. All lines to one table share a lane, as wires of a bus.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from pipelines.dictionary.model import TABLE, Column, Dictionary, Group, Relation

COLUMNS = 5
HUBS = ("users", "accounts", "user_groups")
"""Nearly every table points at these: written in the rows, and not drawn."""
MANY = 4
"""What may point at so many tables, by its kind, is written and not drawn either."""
ORDER = ("account", "wiring", "reference", "crm", "history", "customers", "catalogs", "activity", "memory")
CHARACTER, LINE, HEADER, PADDING, GAP, TITLE, MARGIN = 6.65, 17, 24, 8, 26, 30, 20
LANE, TRACK, TITLE_CHARACTER = 7, 5, 7.8

Point = tuple[float, float]


@dataclass
class Row:
    """A line of text in a box. `targets`: the tables that lines go to."""

    text: str
    points: str = ""
    kind: str = "column"
    targets: tuple[str, ...] = ()
    y: float = 0.0


@dataclass
class Box:
    name: str
    comment: str
    group: str
    rows: list[Row]
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    column: int = 0

    @property
    def height(self) -> float:
        return HEADER + len(self.rows) * LINE + PADDING


@dataclass
class Panel:
    """The frame around the boxes of one chapter."""

    group: Group
    x: float
    y: float
    width: float
    height: float


@dataclass
class Line:
    target: str
    points: list[Point]


@dataclass
class Plan:
    boxes: list[Box]
    panels: list[Panel]
    lines: list[Line] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def plan(dictionary: Dictionary) -> Plan:
    boxes = {group: [_box(dictionary, each) for each in _owners(dictionary) if each.group == group] for group in ORDER}
    columns = _columns({group: found for group, found in boxes.items() if found})
    for number, groups in enumerate(columns):
        for group in groups:
            for box in boxes[group]:
                box.column = number
    routes = Routes([box for found in boxes.values() for box in found])
    return routes.placed({group.name: group for group in dictionary.groups}, columns, boxes)


def _owners(dictionary: Dictionary) -> Iterator[Relation]:
    return (each for each in dictionary.relations if each.kind == TABLE and not each.owner)


def _box(dictionary: Dictionary, relation: Relation) -> Box:
    rows = [Row(column.name, kind="key") for column in relation.columns if column.is_key and not column.refers]
    pointing: dict[tuple[str, ...], list[Column]] = defaultdict(list)
    for column in relation.columns:
        targets = tuple(reference.table for reference in column.refers)
        if targets and targets != ("accounts",):
            pointing[targets].append(column)
    for targets, columns in pointing.items():
        rows += _pointing(columns, targets)
    silent = [column for column in relation.columns if not column.is_key and not column.refers and not column.name.startswith("_")]
    if silent:
        rows.append(Row(_more(silent), kind="more"))
    return Box(relation.name, relation.comment, relation.group, rows + [_part(part) for part in dictionary.parts(relation.name)])


def _pointing(columns: Sequence[Column], targets: tuple[str, ...]) -> list[Row]:
    drawn = tuple(target for target in targets if target not in HUBS) if len(targets) < MANY else ()
    names = [column.name for column in columns]
    if drawn or len(targets) > 1:
        return [Row(name, ", ".join(targets), "key" if column.is_key else "column", drawn) for name, column in zip(names, columns, strict=True)]
    return [Row(" ".join(names[start:start + 2]), ", ".join(targets)) for start in range(0, len(names), 2)]


def _more(columns: Sequence[Column]) -> str:
    names = [column.name for column in columns]
    told = ", ".join(names[:2]) if len(", ".join(names[:2])) < 30 else names[0]
    left = len(names) - told.count(",") - 1
    return f"{told} + {left} more" if left else told


def _part(part: Relation) -> Row:
    targets = tuple(dict.fromkeys(reference.table for column in part.columns if column.is_key for reference in column.refers
                                  if not reference.is_enforced))
    return Row(part.name, ", ".join(targets), "part", tuple(target for target in targets if target not in HUBS))


def _columns(boxes: dict[str, list[Box]]) -> list[list[str]]:
    """The chapters, in their order, cut so that the highest column is as low as can be."""
    groups = list(boxes)
    heights = {group: TITLE + sum(box.height + GAP for box in found) for group, found in boxes.items()}
    cuts = [(0, *cut, len(groups)) for cut in combinations(range(1, len(groups)), min(COLUMNS, len(groups)) - 1)]
    best = min(cuts, key=lambda cut: max(sum(heights[group] for group in groups[one:two]) for one, two in zip(cut, cut[1:], strict=False)))
    return [groups[one:two] for one, two in zip(best, best[1:], strict=False)]


class Routes:
    """Places boxes and leads lines between them. First everything gets its height, then lines choose gaps and lanes, then the widths follow."""

    def __init__(self, boxes: list[Box]) -> None:
        self.boxes = boxes
        self.ends = {box.name: (box, 0.0) for box in boxes}
        self.gaps: dict[int, list[float]] = defaultdict(list)
        self.tracks: dict[tuple[int, float], list[str]] = defaultdict(list)
        self.spans: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.titles: dict[str, str] = {}

    def placed(self, groups: dict[str, Group], columns: list[list[str]], boxes: dict[str, list[Box]]) -> Plan:
        self.titles = {name: group.title for name, group in groups.items()}
        panels = [panel for number, names in enumerate(columns) for panel in self._stack(number, [groups[name] for name in names], boxes)]
        ways = [(box, row, target, self._way(box, row, target)) for box in self.boxes for row in box.rows for target in row.targets
                if self._is_drawn(box, target)]
        lanes = {gutter: _lanes(spans) for gutter, spans in self.spans.items()}
        edges = self._widen(columns, boxes, lanes)
        for panel in panels:
            first = boxes[panel.group.name][0]
            panel.x, panel.width = first.x - 10, first.width + 20
        found = Plan(self.boxes, panels, width=edges[-1] + MARGIN, height=max(panel.y + panel.height for panel in panels) + MARGIN)
        found.lines = [Line(target, self._points(box, row, target, way, edges, lanes)) for box, row, target, way in ways]
        return found

    def _stack(self, number: int, groups: list[Group], boxes: dict[str, list[Box]]) -> Iterator[Panel]:
        y = float(MARGIN)
        for group in groups:
            top, y = y, y + TITLE
            for box in boxes[group.name]:
                box.y = y
                self.ends[box.name] = (box, y + HEADER / 2)
                for place, row in enumerate(box.rows):
                    row.y = y + HEADER + (place + 0.5) * LINE
                    if row.kind == "part":
                        self.ends[row.text] = (box, row.y)
                y += box.height + GAP
                self.gaps[number].append(y - GAP)
            yield Panel(group, 0, top, 0, y - top - 4)
            y += GAP / 2

    def _is_drawn(self, box: Box, target: str) -> bool:
        return target in self.ends and self.ends[target][0] is not box

    def _way(self, box: Box, row: Row, target: str) -> list[tuple[int, float]]:
        """The gutters that the line runs in, and the height at which it leaves each of them."""
        to, end = self.ends[target]
        step = 1 if to.column > box.column else -1
        gutter = box.column + 1 if to.column >= box.column else box.column
        last = to.column if to.column > box.column else to.column + 1
        way, y = [], row.y
        while gutter != last:
            over = self._gap(gutter if step > 0 else gutter - 1, target, end)
            way.append((gutter, over))
            self.spans[gutter][target] += [y, over]
            gutter, y = gutter + step, over
        self.spans[gutter][target] += [y, end]
        return [*way, (gutter, end)]

    def _gap(self, column: int, target: str, near: float) -> float:
        """The height of this target's track across a column: in the gap nearest to it that has room."""
        room = int((GAP - 8) / TRACK)
        for gap in sorted(self.gaps[column], key=lambda gap: abs(gap - near)):
            taken = self.tracks[column, gap]
            if target not in taken and len(taken) < room:
                taken.append(target)
            if target in taken:
                return gap + 6 + taken.index(target) * TRACK
        return self.gaps[column][-1] + GAP

    def _widen(self, columns: list[list[str]], boxes: dict[str, list[Box]], lanes: dict[int, dict[str, int]]) -> list[float]:
        """Sets x and width of every box; the left edge of every gutter."""
        x, edges = float(MARGIN), []
        for number, names in enumerate(columns):
            edges.append(x)
            x += _gutter(lanes.get(number, {}))
            here = [box for name in names for box in boxes[name]]
            width = max(*(_width(box) for box in here), *(len(self.titles[name]) * TITLE_CHARACTER for name in names))
            for box in here:
                box.x, box.width = x, width
            x += width
        edges.append(x)
        return [*edges, x + _gutter(lanes.get(len(columns), {}))]

    def _points(self, box: Box, row: Row, target: str, way: list[tuple[int, float]], edges: list[float],
                lanes: dict[int, dict[str, int]]) -> list[Point]:
        to, end = self.ends[target]
        start = box.x + box.width if way[0][0] == box.column + 1 else box.x
        points, y = [(start, row.y)], row.y
        for gutter, leaves in way:
            x = edges[gutter] + 18 + lanes[gutter][target] * LANE
            points += [(x, y), (x, leaves)]
            y = leaves
        return [*points, (to.x if way[-1][0] == to.column else to.x + to.width, end)]


def _lanes(spans: dict[str, list[float]]) -> dict[str, int]:
    """A lane for each target of a gutter: what does not meet shares one."""
    found: dict[str, int] = {}
    ends: list[float] = []
    for target, heights in sorted(spans.items(), key=lambda item: min(item[1])):
        free = next((lane for lane, end in enumerate(ends) if end + 8 < min(heights)), len(ends))
        ends[free:free + 1] = [max(heights)]
        found[target] = free
    return found


def _gutter(lanes: dict[str, int]) -> float:
    return 36 + LANE * (max(lanes.values()) + 1) if lanes else 24


def _width(box: Box) -> float:
    return max(len(box.name) * 7.6 + 20, *(CHARACTER * (len(row.text) + (len(row.points) + 3 if row.points else 0)) + 34 for row in box.rows))
