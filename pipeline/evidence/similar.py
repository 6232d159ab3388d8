"""Finds text that the OCR may have misread: similar letters, but no other digit. Pure. Only this module imports rapidfuzz."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein

from pipeline.evidence.amounts import read
from pipeline.evidence.letters import alike, fold
from pipeline.evidence.page import Page, Row, Span
from pipeline.evidence.types import Match

#: A text has at most one wrong letter in this many.
_LETTERS_A_FAULT = 6
#: The shortest text that may have a wrong letter.
_SHORTEST = 4
#: What rapidfuzz calls similar, of 100. What it finds is measured again, with the rules for digits.
_CUTOFF = 70.0
_DIGITS = str.maketrans("OoDQIl|iSsBZzG;", "00001111558226,")
_LIKE_NUMBER = re.compile(r"[\dOoDQIl|iSsBZzG]+(?:\s?[.,;'’]\s?[\dOoDQIl|iSsBZzG]+)*")  # noqa: RUF001

Make = Callable[..., Any]


def similar_number(value: Decimal, page: Page, make: Make) -> Iterator[Any]:
    """The places of numbers that are equal if letters in them were digits: 1O,5O is 10,50. `make` makes a spot."""
    for row in page.rows:
        for found in _LIKE_NUMBER.finditer(row.line.text):
            text = found[0]
            letters = sum(letter.isalpha() or letter == ";" for letter in text)
            if not 0 < letters < sum(letter.isdigit() for letter in text) + 1 or _touches(
                row.line.text, found.start(), found.end()
            ):
                continue
            digits = re.sub(r"\s", "", text.translate(_DIGITS))
            if value in read(digits):
                yield make(match=Match.FUZZY, spans=(Span(row=row, start=found.start(), end=found.end()),))


def _touches(text: str, start: int, end: int) -> bool:
    """Whether the part is within a word, a code, a date or a time, or has a sign."""
    return (start > 0 and (text[start - 1].isalnum() or text[start - 1] in "-/:")) or (
        end < len(text) and (text[end].isalnum() or text[end] in "-/:")
    )


def similar_texts(value: str, page: Page, make: Make, known: Sequence[Any] = ()) -> Iterator[Any]:
    """The places of the texts that are the most similar to the value, if they are similar enough. `make` makes a spot.

    `known`: spots that have the value itself. Their lines are left out.
    """
    taken = {span.row.number for spot in known for span in spot.spans}
    wanted = fold(value)
    if len(wanted) < 2:
        return
    best: list[tuple[int, tuple[Span, ...]]] = []
    for row in page.rows:
        if row.number in taken:
            continue
        best += _in_line(wanted, row)
        if len(wanted) > len(row.bare.text):
            best += _over_lines(wanted, row, page)
    least = min((faults for faults, _ in best), default=0)
    for faults, spans in best:
        if faults == least:
            yield make(match=Match.FUZZY, spans=spans)


def _in_line(wanted: str, row: Row) -> Iterator[tuple[int, tuple[Span, ...]]]:
    words = row.bare
    if len(words.text) < len(wanted) - 1 - len(wanted) // _LETTERS_A_FAULT:
        return
    found = fuzz.partial_ratio_alignment(wanted, words.text, score_cutoff=_CUTOFF)
    if found is None:
        return
    # The alignment may begin within a word, or one letter beside it. So the nearest borders of words are tried.
    inside = words.inside if wanted.isdigit() else frozenset()
    starts = sorted(words.starts - inside, key=lambda place: abs(place - found.dest_start))[:2]
    ends = sorted(words.ends - inside, key=lambda place: abs(place - found.dest_end))[:2]
    tried = [(_faults(wanted, words.text[start:end]), start, end) for start in starts for end in ends if start < end]
    good = [(faults, start, end) for faults, start, end in tried if faults is not None]
    if good:
        faults, start, end = min(good)
        yield faults, (Span(row=row, start=words.at[start], end=words.at[end - 1] + 1),)


def _over_lines(wanted: str, row: Row, page: Page) -> Iterator[tuple[int, tuple[Span, ...]]]:
    """The ends of a line from each of its words, joined with the lines that follow it."""
    if not row.bare.text:
        return
    for start in sorted(row.bare.starts):
        rows, text = [row], row.bare.text[start:]
        if len(text) < _SHORTEST or fuzz.ratio(wanted[: len(text)], text) < _CUTOFF:
            continue
        while len(text) < len(wanted) - 1 and len(rows) < _LETTERS_A_FAULT:
            following = [each for each in page.following[rows[-1].number] if each.bare.text and each not in rows]
            nexts = [
                (fuzz.ratio(wanted[len(text) : len(text) + len(each.bare.text)], each.bare.text), -each.number, each)
                for each in following
            ]
            if not nexts or max(nexts)[0] < _CUTOFF:
                break
            rows.append(max(nexts)[2])
            text += rows[-1].bare.text
        ends = sorted(rows[-1].bare.ends, key=lambda end: abs(len(text) - len(rows[-1].bare.text) + end - len(wanted)))[:2]
        for end in ends:
            whole = text[: len(text) - len(rows[-1].bare.text) + end]
            faults = _faults(wanted, whole)
            if len(rows) > 1 and end and faults is not None:
                first = Span(row=row, start=row.bare.at[start], end=row.bare.at[-1] + 1)
                inner = [Span(row=each, start=each.bare.at[0], end=each.bare.at[-1] + 1) for each in rows[1:-1]]
                last = Span(row=rows[-1], start=rows[-1].bare.at[0], end=rows[-1].bare.at[end - 1] + 1)
                yield faults, (first, *inner, last)


def _faults(wanted: str, found: str) -> int | None:
    """How many letters differ, apart from those that the OCR mistakes. None if too many do, or if a digit is another one."""
    for edit in Levenshtein.editops(wanted, found):
        kind = edit.tag
        one, other = wanted[edit.src_pos : edit.src_pos + 1], found[edit.dest_pos : edit.dest_pos + 1]
        digits = (kind != "insert" and one.isdigit(), kind != "delete" and other.isdigit())
        if kind == "replace" and digits == (False, False):
            continue
        if kind == "replace" and digits != (True, True) and alike(one) == alike(other):
            continue
        if any(digits):
            return None
    faults: int = Levenshtein.distance(alike(wanted), alike(found))
    most = max(1, len(wanted) // _LETTERS_A_FAULT) if len(wanted) >= _SHORTEST else 0
    return faults if faults <= most else None
