"""Says for each value of a record where it stands in its picture, or that it does not. Pure: the record is never changed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.evidence.choose import Chooser
from pipeline.evidence.find import Finder, Spot
from pipeline.evidence.leaves import Leaf, leaves
from pipeline.evidence.letters import fold, is_unread
from pipeline.evidence.page import box_around, box_of, open_page
from pipeline.evidence.types import Evidence, Match, Place, Reading

#: A value of so few letters or digits stands on most pages by chance. It counts only beside its label or its siblings.
_SHORT = 2
#: Of a record with more leaves than this, the rest are not looked for.
MOST_LEAVES = 2000


def ground(record: Any, reading: Reading, schema: Any = None) -> Evidence:
    """The evidence for a record in what the OCR read.

    `schema`: the record's JSON Schema if there is one. Its titles and descriptions tell what the picture calls a field.
    """
    every = leaves(record, schema)[:MOST_LEAVES]
    page = open_page(reading.lines)
    finder = Finder(page, reading.codes)
    written = [leaf for leaf in every if is_text(leaf.value)]
    # Equal values are looked for once. If there are more of them than places, one of them may have been misread.
    counts = Counter((type(leaf.value), leaf.value) for leaf in written)
    known = {key: finder.spots(key[1], count) for key, count in counts.items()}
    spots = {leaf.pointer: known[type(leaf.value), leaf.value] for leaf in written}
    chooser = Chooser(every, spots, finder)
    chosen = chooser.choose()
    exchanged = chooser.exchanged()
    places: dict[str, Place] = {}
    unsupported: list[str] = []
    unread = reading.doubtful
    for leaf in every:
        spot = chosen.get(leaf.pointer)
        if not is_text(leaf.value) or (spot is None and leaf.judged):
            places[leaf.pointer] = Place(match=Match.NOT_VERBATIM)
        elif spot is None:
            places[leaf.pointer] = Place(match=Match.NONE)
            if isinstance(leaf.value, str) and is_unread(leaf.value):
                unread = True
            else:
                unsupported.append(leaf.pointer)
        elif leaf.pointer in exchanged or (_is_short(leaf) and not chooser.supported(leaf)):
            places[leaf.pointer] = _place(spot, reading, Match.NONE)
            unsupported.append(leaf.pointer)
        else:
            places[leaf.pointer] = _place(spot, reading, spot.match)
    return Evidence(places=places, script_not_read=unread, unsupported=() if reading.doubtful else tuple(unsupported))


def is_text(value: Any) -> bool:
    """Whether a picture may show a value as text: no booleans, nothing empty."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and not isinstance(value, bool | list | dict)


def _is_short(leaf: Leaf) -> bool:
    return len(fold(str(leaf.value))) <= _SHORT


def _place(spot: Spot, reading: Reading, match: Match) -> Place:
    if spot.code:
        return Place(match=match, text=spot.text, boxes=(box_around(spot.code.box, reading.size),), confidence=1.0)
    return Place(
        match=match,
        text=spot.text,
        boxes=tuple(box_of(span, reading.size) for span in spot.spans),
        confidence=min(span.row.line.confidence for span in spot.spans),
    )
