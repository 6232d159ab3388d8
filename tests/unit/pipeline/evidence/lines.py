"""Makes what the OCR reads of a page, for the tests of evidence."""

from __future__ import annotations

from typing import Any

from pipeline.evidence.ground import ground
from pipeline.evidence.types import Code, Evidence, Line, Place, Quad, Reading

SIZE = (1000, 1000)
#: The width of each character and the height of each line, in pixels.
CHARACTER, HEIGHT = 10, 20


def line(text: str, x: int = 100, y: int = 100, confidence: float = 0.98) -> Line:
    """A line of text whose upper left corner is at (x, y). All characters are equally wide."""
    box: Quad = ((x, y), (x + CHARACTER * len(text), y), (x + CHARACTER * len(text), y + HEIGHT), (x, y + HEIGHT))
    places = tuple(round(1000 * (at + 0.5) / len(text)) for at in range(len(text)))
    return Line(text=text, box=box, confidence=confidence, places=places)


def page(*rows: str) -> tuple[Line, ...]:
    """Lines below each other. A bar separates the cells of a row, which begin at every 300 pixels."""
    return tuple(
        line(cell.strip(), 100 + 300 * column, 100 + 30 * number)
        for number, row in enumerate(rows)
        for column, cell in enumerate(row.split("|"))
        if cell.strip()
    )


def look(record: Any, *rows: str, schema: Any = None, codes: tuple[Code, ...] = (), doubtful: bool = False) -> Evidence:
    return ground(record, Reading(size=SIZE, lines=page(*rows), codes=codes, doubtful=doubtful), schema)


def place_of(value: Any, *rows: str) -> Place:
    """Where a single value stands."""
    return look(value, *rows).places[""]
