"""A picture's lines, prepared for searching: their letters, and where they are on a page that is turned straight. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from pipeline.evidence.letters import Folded, folded
from pipeline.evidence.types import Box, Line, Point, Quad

#: A line that is this many times taller than wide was read from top to bottom.
_TALL = 1.5
#: The OCR's boxes are larger than their text: by so many of a box's heights at each side, above and below. Measured on drawn pages.
_PADS = (0.15, 0.18, 0.05)
#: The same for a line of a few characters, whose box is larger in proportion.
_SHORT, _PADS_OF_SHORT = 3, (0.2, 0.25, 0.09)
#: The OCR sees a character so many of a box's heights behind its middle. Measured as well.
_LATE = 0.07
#: Lines one below the other have centres at most this far apart, in line heights.
_NEXT_LINE = 2.2
#: The cell to the right begins within this many line heights.
_NEXT_CELL = 6.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Area:
    """An upright rectangle on the straightened page, in heights of its usual line."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def x(self) -> float:
        return (self.left + self.right) / 2

    @property
    def y(self) -> float:
        return (self.top + self.bottom) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of text of the page."""

    number: int  #: its place in Page.rows
    line: Line
    words: Folded  #: with the points between digits
    bare: Folded  #: without them
    area: Area
    borders: tuple[float, ...]  #: where its characters begin, 0 to 1 of its length, and where the last one ends


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A part of a line."""

    row: Row
    start: int  #: first character
    end: int  #: after the last character

    @property
    def text(self) -> str:
        return self.row.line.text[self.start : self.end]

    @property
    def area(self) -> Area:
        whole = self.row.area
        width = whole.right - whole.left
        start, end = self.row.borders[self.start], self.row.borders[self.end]
        return Area(left=whole.left + width * start, top=whole.top, right=whole.left + width * end, bottom=whole.bottom)


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """The lines of a picture, from the top."""

    rows: tuple[Row, ...]
    #: For each line the lines in which a value may go on: those below it, and the cell to its right.
    following: tuple[tuple[Row, ...], ...]


def open_page(lines: Sequence[Line]) -> Page:
    """The page of a picture's lines. Lines without letters are left out."""
    lines = [line for line in lines if line.text.strip()]
    turn = -_angle(lines)
    height = median(_height(line.box) for line in lines) if lines else 1.0
    placed = [(_area(line.box, turn, max(1.0, height)), line) for line in lines]
    placed.sort(key=lambda each: (each[0].y, each[0].left))
    rows = tuple(
        Row(
            number=number,
            line=line,
            words=folded(line.text),
            bare=folded(line.text, points=False),
            area=area,
            borders=_borders(line),
        )
        for number, (area, line) in enumerate(placed)
    )
    return Page(rows=rows, following=tuple(_following(row, rows) for row in rows))


def box_of(span: Span, size: tuple[int, int]) -> Box:
    """The rectangle around a part of a line, 0 to 1 of a picture of `size`."""
    start, end = span.row.borders[span.start], span.row.borders[span.end]
    a, b, c, d = _trimmed(span.row.line)
    if _is_tall(span.row.line.box):
        corners = (_between(a, d, start), _between(b, c, start), _between(a, d, end), _between(b, c, end))
    else:
        corners = (_between(a, b, start), _between(d, c, start), _between(a, b, end), _between(d, c, end))
    return box_around(corners, size)


def box_around(corners: Sequence[Point], size: tuple[int, int]) -> Box:
    """The upright rectangle around points in pixels, 0 to 1 of a picture of `size`."""
    width, height = size
    xs, ys = [x / width for x, _ in corners], [y / height for _, y in corners]
    return (_share(min(xs)), _share(min(ys)), _share(max(xs)), _share(max(ys)))


def _share(value: float) -> float:
    return round(min(1.0, max(0.0, value)), 4)


def _between(one: Point, other: Point, share: float) -> Point:
    return one[0] + (other[0] - one[0]) * share, one[1] + (other[1] - one[1]) * share


def _is_tall(box: Quad) -> bool:
    (x0, y0), (x1, y1), _, (x3, y3) = box
    return math.hypot(x3 - x0, y3 - y0) >= _TALL * math.hypot(x1 - x0, y1 - y0)


def _height(box: Quad) -> float:
    (x0, y0), (x1, y1), _, (x3, y3) = box
    return min(math.hypot(x3 - x0, y3 - y0), math.hypot(x1 - x0, y1 - y0))


def _length(box: Quad) -> float:
    (x0, y0), (x1, y1), _, (x3, y3) = box
    return max(math.hypot(x3 - x0, y3 - y0), math.hypot(x1 - x0, y1 - y0))


def _angle(lines: Sequence[Line]) -> float:
    """The angle of most of the text in radians, clockwise positive. Long lines count more, because their angle is more exact."""
    slopes = []
    for line in lines:
        (x0, y0), (x1, y1), _, _ = line.box
        slopes.append((math.atan2(y1 - y0, x1 - x0), math.hypot(x1 - x0, y1 - y0)))
    turns: dict[int, float] = {}
    for slope, weight in slopes:
        turn = round(slope / (math.pi / 2)) % 4
        turns[turn] = turns.get(turn, 0.0) + weight
    if not turns:
        return 0.0
    base = max(turns, key=lambda turn: turns[turn]) * math.pi / 2
    near = sorted(((slope - base + math.pi) % math.tau - math.pi, weight) for slope, weight in slopes)
    near = [(slope, weight) for slope, weight in near if abs(slope) <= math.pi / 4]
    half, seen = sum(weight for _, weight in near) / 2, 0.0
    for slope, weight in near:
        seen += weight
        if seen >= half:
            return base + slope
    return base


def _area(box: Quad, turn: float, unit: float) -> Area:
    cos, sin = math.cos(turn) / unit, math.sin(turn) / unit
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = ((x * cos - y * sin, x * sin + y * cos) for x, y in box)
    # The means of the sides, not their ends: the ends of a slanted line reach into the lines above and below.
    return Area(left=(ax + dx) / 2, right=(bx + cx) / 2, top=(ay + by) / 2, bottom=(cy + dy) / 2)


def _pads(line: Line) -> tuple[float, float, float]:
    return _PADS_OF_SHORT if len(line.text) <= _SHORT else _PADS


def _trimmed(line: Line) -> Quad:
    """The line's box without what the OCR adds above and below the text."""
    a, b, c, d = line.box
    _, top, bottom = _pads(line)
    if _is_tall(line.box):
        # Read from top to bottom: the text's top is the box's right side.
        return (_between(a, b, bottom), _between(b, a, top), _between(c, d, top), _between(d, c, bottom))
    return (_between(a, d, top), _between(b, c, top), _between(c, b, bottom), _between(d, a, bottom))


def _borders(line: Line) -> tuple[float, ...]:
    """Where each character begins, and where the last one ends, 0 to 1 of the line's length."""
    count = len(line.text)
    height = _height(line.box) / max(1.0, _length(line.box))
    pad, late = min(0.3, _pads(line)[0] * height), _LATE * height
    if len(line.places) != count:
        return tuple(pad + (1 - 2 * pad) * place / count for place in range(count + 1))
    middles = [min(1 - pad, max(pad, place / 1000 - late)) for place in line.places]
    inner = [(left + right) / 2 for left, right in pairwise(middles)]
    return (pad, *inner, 1 - pad)


def _following(row: Row, rows: Sequence[Row]) -> tuple[Row, ...]:
    below: list[tuple[float, Row]] = []
    right: list[tuple[float, Row]] = []
    area = row.area
    for other in rows:
        at = other.area
        down = at.y - area.y
        height = (area.bottom - area.top + at.bottom - at.top) / 2
        if other is row:
            continue
        if abs(down) < 0.5 * height and 0 <= at.left - area.right + 0.5 < _NEXT_CELL:
            right.append((at.left, other))
        elif 0.5 * height <= down <= _NEXT_LINE * height and at.left < area.right and at.right > area.left:
            below.append((down + 0.1 * abs(at.left - area.left), other))
    below.sort(key=lambda each: each[0])
    right.sort(key=lambda each: each[0])
    return tuple(other for _, other in [*right[:1], *below[:3]])
