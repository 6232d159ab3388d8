"""What the search for evidence takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Point = tuple[float, float]
#: Corners as the text sees them: top left, top right, bottom right, bottom left; pixels of the upright picture.
Quad = tuple[Point, Point, Point, Point]
#: Left, top, right and bottom, from 0 to 1 of the upright picture.
Box = tuple[float, float, float, float]


class Match(StrEnum):
    """How a value stands in the picture. The words are public."""

    EXACT = "exact"  #: letter for letter
    EQUIVALENT = "equivalent"  #: the same value, written otherwise
    FUZZY = "fuzzy"  #: similar text, as if the OCR had misread some letters
    NONE = "none"  #: it does not stand there, or only where another field's value belongs
    NOT_VERBATIM = "notVerbatim"  #: a value that is no text of a picture, such as true


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of text that the OCR read."""

    text: str
    box: Quad
    confidence: float  #: 0 to 1
    #: Where the middle of each character is, in thousandths of the line's length. Empty if that is not known.
    places: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """One barcode."""

    text: str
    box: Quad


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What the OCR read in one picture."""

    size: tuple[int, int]  #: width and height of the upright picture in pixels
    lines: tuple[Line, ...]  #: in any order
    codes: tuple[Code, ...] = ()
    doubtful: bool = False  #: much of the text is unclear, or of a script that the OCR has no letters for


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one value of a record stands."""

    match: Match
    text: str = ""  #: as the OCR read it; the lines of a value are joined by spaces
    boxes: tuple[Box, ...] = ()  #: around the value itself, one for each line
    confidence: float | None = None  #: the OCR's, 0 to 1: the lowest of the lines; None if nothing was found


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Where the values of one record stand."""

    places: Mapping[str, Place]  #: JSON Pointer of each leaf to its place
    #: The picture shows a script that the OCR does not read, or a value is written in one. A value that was not found may stand there.
    script_not_read: bool
    unsupported: tuple[str, ...]  #: pointers of the values that the picture would show if they were right, and does not
