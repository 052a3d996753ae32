"""dictionary → layout: the position and text of each box of the diagram, and the route of each line between
boxes. Draws nothing. All lengths are in SVG pixels.

A box is a table with its child tables inside. Boxes are arranged in columns, chapter below chapter. Lines run
in the gutters between the columns and cross a column only in the gaps between its boxes. All lines to one
table share a lane, like the wires of a bus.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from pipelines.dictionary.model import TABLE, Column, Dictionary, Group, Relation

MAX_COLUMNS = 5
HUBS = ("users", "accounts", "user_groups")
"""Tables that nearly every table refers to. These references are written in the rows, but not drawn."""
ACCOUNT_ONLY = ("accounts",)
"""Targets of a column that every table has: it gets no row."""
MIN_UNDRAWN_TARGETS = 4
"""Number of possible target tables from which on a reference is written, but not drawn."""
GROUP_ORDER = ("account", "integrations", "reference", "crm", "history", "customers", "catalogs", "activity",
               "bi_views")
CHARACTER_WIDTH, ROW_HEIGHT, HEADER_HEIGHT, PADDING, BOX_GAP, TITLE_HEIGHT, MARGIN = (
    6.65, 17, 24, 8, 26, 30, 20)
LANE_WIDTH, TRACK_HEIGHT, TITLE_CHARACTER_WIDTH = 7, 5, 7.8

Point = tuple[float, float]


@dataclass
class Row:
    """A line of text in a box, with the referenced tables (`points`) at its right edge. `kind` is "key",
    "column", "more" or "part" (a child table). `targets` are the tables to which lines are drawn."""

    text: str
    points: str = ""
    kind: str = "column"
    targets: tuple[str, ...] = ()
    y: float = 0.0


@dataclass
class Box:
    """A table; `column` is the number of the column that the box is in."""

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
        return HEADER_HEIGHT + len(self.rows) * ROW_HEIGHT + PADDING


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
    """A line to the table `target`, as the points of its path."""

    target: str
    points: list[Point]


@dataclass
class DiagramLayout:
    """The finished layout."""

    boxes: list[Box]
    panels: list[Panel]
    lines: list[Line] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def compute_layout(dictionary: Dictionary) -> DiagramLayout:
    """Computes the layout of the diagram."""
    boxes = {group: [_box(dictionary, each) for each in _top_level_tables(dictionary) if each.group == group]
             for group in GROUP_ORDER}
    columns = _split_into_columns({group: found for group, found in boxes.items() if found})
    for number, groups in enumerate(columns):
        for group in groups:
            for box in boxes[group]:
                box.column = number
    routes = Router([box for found in boxes.values() for box in found])
    return routes.place({group.name: group for group in dictionary.groups}, columns, boxes)


def _top_level_tables(dictionary: Dictionary) -> Iterator[Relation]:
    return (each for each in dictionary.relations if each.kind == TABLE and not each.owner)


def _box(dictionary: Dictionary, relation: Relation) -> Box:
    rows = [Row(column.name, kind="key") for column in relation.columns
            if column.is_key and not column.refers]
    columns_by_targets: dict[tuple[str, ...], list[Column]] = defaultdict(list)
    for column in relation.columns:
        targets = tuple(reference.table for reference in column.refers)
        if targets and targets != ACCOUNT_ONLY:
            columns_by_targets[targets].append(column)
    for targets, columns in columns_by_targets.items():
        rows += _reference_rows(columns, targets)
    plain_columns = [column for column in relation.columns
              if not column.is_key and not column.refers and not column.name.startswith("_")]
    if plain_columns:
        rows.append(Row(_plain_columns_text(plain_columns), kind="more"))
    return Box(relation.name, relation.comment, relation.group,
               rows + [_child_row(part) for part in dictionary.children_of(relation.name)])


def _reference_rows(columns: Sequence[Column], targets: tuple[str, ...]) -> list[Row]:
    """Rows for the columns that refer to `targets`: one each if a line is drawn, else two per row."""
    drawn = (tuple(target for target in targets if target not in HUBS) if len(targets) < MIN_UNDRAWN_TARGETS
             else ())
    names = [column.name for column in columns]
    if drawn or len(targets) > 1:
        return [Row(name, ", ".join(targets), "key" if column.is_key else "column", drawn)
                for name, column in zip(names, columns, strict=True)]
    return [Row(" ".join(names[start:start + 2]), ", ".join(targets)) for start in range(0, len(names), 2)]


def _plain_columns_text(columns: Sequence[Column]) -> str:
    """One or two names of the columns that refer to nothing, and the number of the others."""
    names = [column.name for column in columns]
    shown = ", ".join(names[:2]) if len(", ".join(names[:2])) < 30 else names[0]
    left = len(names) - shown.count(",") - 1
    return f"{shown} + {left} more" if left else shown


def _child_row(part: Relation) -> Row:
    targets = tuple(dict.fromkeys(
        reference.table for column in part.columns if column.is_key for reference in column.refers
        if not reference.is_enforced))
    return Row(part.name, ", ".join(targets), "part",
               tuple(target for target in targets if target not in HUBS))


def _split_into_columns(boxes: dict[str, list[Box]]) -> list[list[str]]:
    """The chapters, in their order, split into columns so that the highest column is as low as possible."""
    groups = list(boxes)
    heights = {group: TITLE_HEIGHT + sum(box.height + BOX_GAP for box in found)
               for group, found in boxes.items()}
    cuts = [(0, *cut, len(groups))
            for cut in combinations(range(1, len(groups)), min(MAX_COLUMNS, len(groups)) - 1)]
    best = min(cuts, key=lambda cut: max(sum(heights[group] for group in groups[one:two])
                                         for one, two in zip(cut, cut[1:], strict=False)))
    return [groups[one:two] for one, two in zip(best, best[1:], strict=False)]


class Router:
    """Places the boxes and routes the lines between them: first the vertical positions, then the gaps and
    lanes of the lines, then the horizontal positions, which depend on the number of lanes.

    `line_ends`: table → (its box, y where lines to it end) · `gaps`: column → y of the gaps between its boxes
    · `tracks`: (column, gap) → targets whose lines cross there · `spans`: gutter → target → heights that its
    lines reach there"""

    def __init__(self, boxes: list[Box]) -> None:
        self.boxes = boxes
        self.line_ends = {box.name: (box, 0.0) for box in boxes}
        self.gaps: dict[int, list[float]] = defaultdict(list)
        self.tracks: dict[tuple[int, float], list[str]] = defaultdict(list)
        self.spans: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.titles: dict[str, str] = {}

    def place(self, groups: dict[str, Group], columns: list[list[str]],
              boxes: dict[str, list[Box]]) -> DiagramLayout:
        self.titles = {name: group.title for name, group in groups.items()}
        panels = [panel for number, names in enumerate(columns)
                  for panel in self._stack_panels(number, [groups[name] for name in names], boxes)]
        routes = [(box, row, target, self._route(box, row, target))
                for box in self.boxes for row in box.rows for target in row.targets
                if self._is_drawn(box, target)]
        lanes = {gutter: _assign_lanes(spans) for gutter, spans in self.spans.items()}
        edges = self._set_widths(columns, boxes, lanes)
        for panel in panels:
            first = boxes[panel.group.name][0]
            panel.x, panel.width = first.x - 10, first.width + 20
        found = DiagramLayout(self.boxes, panels, width=edges[-1] + MARGIN,
                     height=max(panel.y + panel.height for panel in panels) + MARGIN)
        found.lines = [Line(target, self._line_points(box, row, target, way, edges, lanes))
                       for box, row, target, way in routes]
        return found

    def _stack_panels(self, number: int, groups: list[Group], boxes: dict[str, list[Box]]) -> Iterator[Panel]:
        """Sets the vertical positions in one column; yields the frames of its chapters."""
        y = float(MARGIN)
        for group in groups:
            top, y = y, y + TITLE_HEIGHT
            for box in boxes[group.name]:
                box.y = y
                self.line_ends[box.name] = (box, y + HEADER_HEIGHT / 2)
                for place, row in enumerate(box.rows):
                    row.y = y + HEADER_HEIGHT + (place + 0.5) * ROW_HEIGHT
                    if row.kind == "part":
                        self.line_ends[row.text] = (box, row.y)
                y += box.height + BOX_GAP
                self.gaps[number].append(y - BOX_GAP)
            yield Panel(group, 0, top, 0, y - top - 4)
            y += BOX_GAP / 2

    def _is_drawn(self, box: Box, target: str) -> bool:
        return target in self.line_ends and self.line_ends[target][0] is not box

    def _route(self, box: Box, row: Row, target: str) -> list[tuple[int, float]]:
        """(gutter, y at which the line leaves it) for each gutter that the line runs in."""
        to, end = self.line_ends[target]
        step = 1 if to.column > box.column else -1
        gutter = box.column + 1 if to.column >= box.column else box.column
        last = to.column if to.column > box.column else to.column + 1
        way, y = [], row.y
        while gutter != last:
            over = self._crossing_height(gutter if step > 0 else gutter - 1, target, end)
            way.append((gutter, over))
            self.spans[gutter][target] += [y, over]
            gutter, y = gutter + step, over
        self.spans[gutter][target] += [y, end]
        return [*way, (gutter, end)]

    def _crossing_height(self, column: int, target: str, near: float) -> float:
        """The y at which lines to `target` cross a column: in the gap nearest to `near` that has room."""
        room = int((BOX_GAP - 8) / TRACK_HEIGHT)
        for gap in sorted(self.gaps[column], key=lambda gap: abs(gap - near)):
            taken = self.tracks[column, gap]
            if target not in taken and len(taken) < room:
                taken.append(target)
            if target in taken:
                return gap + 6 + taken.index(target) * TRACK_HEIGHT
        return self.gaps[column][-1] + BOX_GAP

    def _set_widths(self, columns: list[list[str]], boxes: dict[str, list[Box]],
               lanes: dict[int, dict[str, int]]) -> list[float]:
        """Sets x and width of every box; returns the left edge of every gutter, then the total width."""
        x, edges = float(MARGIN), []
        for number, names in enumerate(columns):
            edges.append(x)
            x += _gutter_width(lanes.get(number, {}))
            here = [box for name in names for box in boxes[name]]
            width = max(*(_box_width(box) for box in here),
                        *(len(self.titles[name]) * TITLE_CHARACTER_WIDTH for name in names))
            for box in here:
                box.x, box.width = x, width
            x += width
        edges.append(x)
        return [*edges, x + _gutter_width(lanes.get(len(columns), {}))]

    def _line_points(self, box: Box, row: Row, target: str, route: list[tuple[int, float]],
                     edges: list[float], lanes: dict[int, dict[str, int]]) -> list[Point]:
        to, end = self.line_ends[target]
        start = box.x + box.width if route[0][0] == box.column + 1 else box.x
        points, y = [(start, row.y)], row.y
        for gutter, leaves in route:
            x = edges[gutter] + 18 + lanes[gutter][target] * LANE_WIDTH
            points += [(x, y), (x, leaves)]
            y = leaves
        return [*points, (to.x if route[-1][0] == to.column else to.x + to.width, end)]


def _assign_lanes(spans: dict[str, list[float]]) -> dict[str, int]:
    """Target → its lane in a gutter. Targets whose lines do not overlap share a lane."""
    found: dict[str, int] = {}
    ends: list[float] = []
    for target, heights in sorted(spans.items(), key=lambda item: min(item[1])):
        free = next((lane for lane, end in enumerate(ends) if end + 8 < min(heights)), len(ends))
        ends[free:free + 1] = [max(heights)]
        found[target] = free
    return found


def _gutter_width(lanes: dict[str, int]) -> float:
    return 36 + LANE_WIDTH * (max(lanes.values()) + 1) if lanes else 24


def _box_width(box: Box) -> float:
    return max(len(box.name) * 7.6 + 20,
               *(CHARACTER_WIDTH * (len(row.text) + (len(row.points) + 3 if row.points else 0)) + 34
                 for row in box.rows))
