"""Puts the lines that an OCR engine found into the order in which a person reads them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]

#: What separates the cells of one row, so that "Coffee   2.40" does not read as one phrase.
CELL_GAP = "   "

_QUARTER = math.pi / 2
#: The centres of items in one row are at most this far apart, in heights of the smaller item.
_SAME_ROW = 0.5
#: A space between words is at most this wide, in line heights. A wider space separates two cells.
_WORD_GAP = 1.0
#: The white space between two columns (a gutter) is at least this wide, in line heights.
_GUTTER = 1.0
#: A column has at least this many lines.
_COLUMN_LINES = 3
#: Running text is at least this wide, in line heights: about 16 Latin letters, 8 Chinese ones.
_PROSE_WIDTH = 8.0
#: A run of rows must show a second column within this many rows. Otherwise the search goes on from a later row.
_LOOK_AHEAD = 8
#: This many of the widest breaks between the rows of a run are tried as the end of the columns.
_MOST_BREAKS = 3
#: On a page of up to this many rows, columns may start at any row. On longer pages only some rows are tried, because trying all
#: takes quadratic time.
_EXACT_ROWS = 300
#: The least white space between two paragraphs, in line heights, and as a multiple of the usual white space of the block.
_PARAGRAPH_GAP, _PARAGRAPH_RATIO = 0.8, 1.6


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLine:
    """A piece of text and where it stands."""

    text: str
    box: Quad  #: pixels; corners as the text sees them: top left, top right, bottom right, bottom left


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    """A line as an upright rectangle, after the page was rotated to be straight."""

    text: str
    left: float
    right: float
    middle: float  #: y of the centre
    height: float

    @property
    def width(self) -> float:
        return self.right - self.left


_Row = list[_Item]
_Span = tuple[float, float]


def page_text(lines: Sequence[TextLine]) -> str:
    """The text of a page, from its lines in any order.

    Items on one baseline become one line, with CELL_GAP between cells. Columns of running text are read one after the other.
    Tables and receipts are read row by row. An empty line separates two blocks. The page may be skewed, on its side or upside
    down, because its angle is computed from the boxes.
    """
    angle = page_angle(lines)
    items = [_straight(line, angle) for line in lines if line.text.strip()]
    blocks = [_paragraphs(rows) for rows in _blocks(items)]
    return "\n\n".join(block for block in blocks if block)


def page_angle(lines: Sequence[TextLine]) -> float:
    """The angle of the page's baselines in radians, clockwise positive, in (-pi, pi]: 0 for an upright page.

    Boxes are weighted by their width, because the angle of a short box is inexact.
    """
    slopes = []
    for line in lines:
        (x0, y0), (x1, y1) = line.box[0], line.box[1]
        slopes.append((math.atan2(y1 - y0, x1 - x0), math.hypot(x1 - x0, y1 - y0)))
    if not slopes:
        return 0.0
    # First find the quarter turn of most of the text, so that the median is not taken across the jump at +-pi.
    turns: dict[int, float] = {}
    for slope, weight in slopes:
        turn = round(slope / _QUARTER) % 4
        turns[turn] = turns.get(turn, 0.0) + weight
    base = max(turns, key=lambda turn: turns[turn]) * _QUARTER
    near = [((slope - base + math.pi) % math.tau - math.pi, weight) for slope, weight in slopes]
    angle = base + _weighted_median([(slope, weight) for slope, weight in near if abs(slope) <= _QUARTER / 2])
    return angle if angle <= math.pi else angle - math.tau


def _weighted_median(values: list[tuple[float, float]]) -> float:
    half = sum(weight for _, weight in values) / 2
    seen = 0.0
    for value, weight in sorted(values):
        seen += weight
        if seen >= half:
            return value
    return 0.0


def _straight(line: TextLine, angle: float) -> _Item:
    cos, sin = math.cos(-angle), math.sin(-angle)
    points = [(x * cos - y * sin, x * sin + y * cos) for x, y in line.box]
    xs = [x for x, _ in points]
    (_, y0), (_, y1), (_, y2), (_, y3) = points
    height = max(1.0, ((y3 - y0) + (y2 - y1)) / 2)
    return _Item(text=line.text.strip(), left=min(xs), right=max(xs), middle=(y0 + y1 + y2 + y3) / 4, height=height)


def _rows(items: list[_Item]) -> list[_Row]:
    """Groups items by baseline. Rows are ordered from the top, and the items of a row from the left."""
    rows: list[_Row] = []
    for item in sorted(items, key=lambda item: item.middle):
        # Only the latest rows can be near, because items come in order from the top.
        for row in reversed(rows[-3:]):
            if _beside(row, item):
                row.append(item)
                break
        else:
            rows.append([item])
    for row in rows:
        row.sort(key=lambda item: item.left)
    return rows


def _beside(row: _Row, item: _Item) -> bool:
    first = row[0]
    if abs(first.middle - item.middle) > _SAME_ROW * min(first.height, item.height):
        return False
    return all(min(other.right, item.right) - max(other.left, item.left) < 0.5 * min(other.width, item.width) for other in row)


def _blocks(items: list[_Item]) -> list[list[_Row]]:
    """The blocks in reading order. A block is a run of rows, or a column. A column is divided into blocks again."""
    rows = _rows(items)
    blocks: list[list[_Row]] = []
    plain: list[_Row] = []
    wide = _GUTTER * median(item.height for item in items) if items else 0.0
    at = 0
    while at < len(rows):
        end, columns = _columns_from(rows, at, wide)
        if not columns:
            step = 1 if len(rows) <= _EXACT_ROWS else max(1, (end - at) // 16)
            plain += rows[at : at + step]
            at += step
            continue
        blocks.append(plain)
        plain = []
        for column in columns:
            blocks.extend(_blocks(column))
        at = end
    blocks.append(plain)
    return [block for block in blocks if block]


def _columns_from(rows: list[_Row], start: int, wide: float) -> tuple[int, list[list[_Item]]]:
    """Finds the longest run of rows from `start` that is set in columns. Returns the row after the run, and each column's items.

    If there are no columns, returns the row after the rows that were looked at, and an empty list. The run grows while a gutter
    of at least `wide` goes through all of its rows. It may end where a gutter is lost. It may also end at the widest breaks
    between rows, because a table below an article can have the same gutter.
    """
    gutters: list[_Span] = []
    white = [(-math.inf, math.inf)]
    ends: list[tuple[int, list[_Span]]] = []
    breaks: list[tuple[float, int, list[_Span]]] = []
    for at in range(start, len(rows)):
        white = _meet(white, _free(rows[at]), wide)
        inner = [span for span in white if math.isfinite(span[0]) and math.isfinite(span[1])]
        if len(inner) < len(gutters):
            ends.append((at, gutters))
        elif gutters and (gap := _white_between(rows[at - 1], rows[at])) > _PARAGRAPH_GAP * wide:
            breaks.append((gap, at, gutters))
        if not inner and (gutters or at - start >= _LOOK_AHEAD):
            break
        gutters = inner
    else:
        ends.append((len(rows), gutters))
    widest = [(at, spans) for _, at, spans in sorted(breaks, key=lambda item: item[0])[-_MOST_BREAKS:]]
    for end, spans in sorted(ends + widest, key=lambda item: -item[0]):
        if end - start < _COLUMN_LINES or not spans:
            continue
        columns = _with_markers([item for row in rows[start:end] for item in row], spans)
        if _are_columns(columns, rows[start:end]):
            return end, columns
    return (ends[-1][0] if ends else start), []


def _white_between(high: _Row, low: _Row) -> float:
    return (low[0].middle - low[0].height / 2) - (high[0].middle + high[0].height / 2)


def _free(row: _Row) -> list[_Span]:
    """The white spans of a row, from minus to plus infinity."""
    spans = []
    at = -math.inf
    for item in row:
        if item.left > at:
            spans.append((at, item.left))
        at = max(at, item.right)
    return [*spans, (at, math.inf)]


def _meet(one: list[_Span], other: list[_Span], wide: float) -> list[_Span]:
    """The white spans that two rows share and that are at least `wide`."""
    both = []
    i = j = 0
    while i < len(one) and j < len(other):
        left, right = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if right - left >= wide:
            both.append((left, right))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return both


def _with_markers(items: list[_Item], gutters: list[_Span]) -> list[list[_Item]]:
    """Groups the items by column. Bullets and numbers before the lines of a column are part of that column."""
    columns: list[list[_Item]] = [[] for _ in range(len(gutters) + 1)]
    for item in items:
        columns[sum(item.left >= right for _, right in gutters)].append(item)
    whole: list[list[_Item]] = []
    markers: list[_Item] = []
    for column in columns:
        if max(len(item.text) for item in column) <= 3:
            markers += column
            continue
        whole.append(markers + column)
        markers = []
    return [*whole, markers] if markers else whole


def _are_columns(columns: list[list[_Item]], rows: list[_Row]) -> bool:
    """Whether the columns are text that is read down (an article), and not cells that are read across (a table).

    They are text if their lines are prose that mostly fills its column, or if their lines do not share baselines.
    """
    if len(columns) < 2 or any(len(column) < _COLUMN_LINES for column in columns):
        return False
    if all(_is_prose(column) for column in columns):
        return True
    if any(median(item.width / item.height for item in column) < _PROSE_WIDTH for column in columns):
        return False
    alone = {id(row[0]) for row in rows if len(row) == 1}
    return all(sum(id(item) in alone for item in column) > 0.5 * len(column) for column in columns)


def _is_prose(column: list[_Item]) -> bool:
    lines = [item for item in column if len(item.text) > 3]
    left, right = min(item.left for item in lines), max(item.right for item in lines)
    if sum(item.width >= 0.75 * (right - left) for item in lines) < 0.5 * len(lines):
        return False
    if median(item.width / item.height for item in lines) < _PROSE_WIDTH:
        return False
    text = "".join(item.text for item in lines)
    if sum(letter.isdigit() for letter in text) > len(text) / 3:
        return False
    # Words are counted only in ASCII text, because some scripts have no spaces.
    return not text.isascii() or median(item.text.count(" ") for item in lines) >= 2


def _paragraphs(rows: list[_Row]) -> str:
    """The rows of a block as lines, with an empty line between two paragraphs."""
    gaps = [_white_between(high, low) for high, low in pairwise(rows)]
    usual = median(gaps) if gaps else 0.0
    text = _joined(rows[0])
    for gap, row in zip(gaps, rows[1:], strict=True):
        wide = max(_PARAGRAPH_GAP * median(item.height for item in row), _PARAGRAPH_RATIO * usual)
        text += ("\n\n" if gap > wide else "\n") + _joined(row)
    return text


def _joined(row: _Row) -> str:
    text = row[0].text
    for before, item in pairwise(row):
        near = item.left - before.right <= _WORD_GAP * min(before.height, item.height)
        text += (" " if near else CELL_GAP) + item.text
    return text
