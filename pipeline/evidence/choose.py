"""Chooses among the places where a value stands: beside its label, in the row of its siblings, in the column of its peers. Pure.

Places are compared by cost. A cost of 1 is about what a place loses by standing three lines away from where it should.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipeline.evidence.dates import moment
from pipeline.evidence.find import Finder, Spot
from pipeline.evidence.leaves import Leaf
from pipeline.evidence.page import Area, Span
from pipeline.evidence.types import Match

#: How often the choice is repeated with what the other values chose.
_ROUNDS = 3
_COST_OF_MATCH = {Match.EXACT: 0.0, Match.EQUIVALENT: 0.05, Match.FUZZY: 1.0}
#: What a place costs where a text or a code is written otherwise than the record has it. It is more than distance from siblings costs, so
#: a heading "Lumen & Loft" beats "lumen-loft" in a footer. It is less than a missing label costs, so a place beside the label beats both.
_WRITTEN_OTHERWISE = 2.2
#: The cost of a place that another value has.
_TAKEN = 1.2
#: The cost of a place at which no label is, and the most that labels, rows and columns cost.
_NO_LABEL = 3.0
_FAR = 2.0
#: Values are told as exchanged if the exchange lowers their cost by this.
EXCHANGED = 1.0
#: A value is compared with so many of the values that follow it in its object, or in its field, to see whether they are exchanged.
_MOST_EXCHANGES = 30
#: A currency or a unit has no more characters.
_LONGEST_SIGN = 3
#: The places that are weighed for one record, each against so many labels and other values. A page and a record of a hostile caller would
#: take minutes otherwise. A receipt takes some thousand.
_MOST_WEIGHED = 1_500_000
#: Two lines are one row if their centres are at most this far apart, in line heights.
_ROW = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """A place where the picture has a field's name."""

    area: Area
    cost: float  #: 0 for the surest name


class Chooser:
    """The choice for the leaves of one record."""

    def __init__(self, leaves: Sequence[Leaf], spots: Mapping[str, Sequence[Spot]], finder: Finder) -> None:
        self._leaves = [leaf for leaf in leaves if spots.get(leaf.pointer)]
        self._spots = spots
        self._labels = _labels(self._leaves, finder)
        self._areas = {id(spot): _area(spot) for found in spots.values() for spot in found}
        #: Leaves of one object, of one element of an array, and of one field in all elements.
        self._siblings = _grouped(self._leaves, _element)
        self._peers = _grouped(self._leaves, lambda leaf: leaf.field if leaf.in_array else leaf.pointer)
        self._chosen: dict[str, Spot] = {}
        self._left = _MOST_WEIGHED
        #: The pointers of the values that chose a place in each line.
        self._in_row: defaultdict[int, set[str]] = defaultdict(set)

    def choose(self) -> dict[str, Spot]:
        """The place of each leaf that has any."""
        for leaf in self._leaves:
            found = self._spots[leaf.pointer]
            if len(found) == 1:
                self._take(leaf, found[0])
        for _ in range(_ROUNDS):
            before = dict(self._chosen)
            for leaf in self._leaves:
                found = self._spots[leaf.pointer]
                if len(found) > 1:
                    self._take(leaf, min(found, key=lambda spot: self._whole_cost(leaf, spot)))
            if before == self._chosen:
                break
        return dict(self._chosen)

    def _take(self, leaf: Leaf, spot: Spot) -> None:
        before = self._chosen.get(leaf.pointer)
        for span in before.spans if before else ():
            self._in_row[span.row.number].discard(leaf.pointer)
        for span in spot.spans:
            self._in_row[span.row.number].add(leaf.pointer)
        self._chosen[leaf.pointer] = spot

    def exchanged(self) -> set[str]:
        """The pointers of values that stand where another value of the same kind belongs, while that one stands at their place."""
        found: set[str] = set()
        flat = [leaf for leaf in self._leaves if not leaf.in_array]
        for group in (*self._siblings.values(), *self._peers.values(), flat):
            for at, one in enumerate(group):
                for other in group[at + 1 : at + 1 + _MOST_EXCHANGES]:
                    if (
                        self._may_weigh(one, times=4)
                        and self._may_be_exchanged(one, other)
                        and self._gain(one, other) >= EXCHANGED
                    ):
                        found |= {one.pointer, other.pointer}
        return found

    def supported(self, leaf: Leaf) -> bool:
        """Whether something beside the value says that it belongs to the leaf. True if nothing on the page could say so."""
        spot = self._chosen[leaf.pointer]
        area = self._areas[id(spot)]
        if area is None:
            return True
        if leaf.in_array:
            others = self._areas_of(self._siblings[_element(leaf)], leaf)
            if others:
                return min(abs(other.y - area.y) for other in others) <= 2 * _ROW
        if self._labels[leaf.field]:
            return self._label_cost(leaf, area) < _NO_LABEL
        return True

    def _may_weigh(self, leaf: Leaf, times: int = 1) -> bool:
        """Whether there is still time to weigh a place of this leaf. Otherwise the first place is taken, and no exchange is told."""
        beside = self._siblings[_element(leaf)], self._peers[leaf.field] if leaf.in_array else (), self._labels[leaf.field]
        self._left -= times * (1 + sum(map(len, beside)))
        return self._left >= 0

    def _may_be_exchanged(self, one: Leaf, other: Leaf) -> bool:
        if one.value == other.value or _kind(one.value) != _kind(other.value):
            return False
        return Match.FUZZY not in (self._chosen[one.pointer].match, self._chosen[other.pointer].match)

    def _gain(self, one: Leaf, other: Leaf) -> float:
        here, there = self._areas[id(self._chosen[one.pointer])], self._areas[id(self._chosen[other.pointer])]
        if here is None or there is None:
            return 0.0
        without = {one.pointer, other.pointer}
        now = self._cost(one, here, without) + self._cost(other, there, without)
        return now - self._cost(one, there, without) - self._cost(other, here, without)

    def _whole_cost(self, leaf: Leaf, spot: Spot) -> float:
        area = self._areas[id(spot)]
        cost = _cost_of_match(leaf, spot.match)
        if area is None or not self._may_weigh(leaf):
            return cost
        others = {pointer for span in spot.spans for pointer in self._in_row[span.row.number]} - {leaf.pointer}
        taken = any(_overlap(area, self._areas[id(self._chosen[pointer])]) for pointer in others)
        return cost + (_TAKEN if taken else 0.0) + self._cost(leaf, area, {leaf.pointer})

    def _cost(self, leaf: Leaf, area: Area, without: set[str]) -> float:
        cost = self._label_cost(leaf, area) if self._labels[leaf.field] else 0.0
        siblings = [each for each in self._siblings[_element(leaf)] if each.pointer not in without]
        others = self._areas_of(siblings, leaf)
        if others and leaf.in_array:
            cost += min(_FAR, 0.5 * min(abs(other.y - area.y) for other in others))
        elif others:
            cost += min(_FAR, 0.04 * min(abs(other.y - area.y) + 0.2 * abs(other.x - area.x) for other in others))
        if leaf.in_array:
            peers = self._areas_of([each for each in self._peers[leaf.field] if each.pointer not in without], leaf)
            if peers:
                cost += min(_FAR, 0.3 * median(min(abs(each.left - area.left), abs(each.right - area.right)) for each in peers))
        return cost

    def _label_cost(self, leaf: Leaf, area: Area) -> float:
        return min(
            (label.cost + _distance(label.area, area, column=leaf.in_array) for label in self._labels[leaf.field]),
            default=_NO_LABEL,
        )

    def _areas_of(self, leaves: Sequence[Leaf], but: Leaf) -> list[Area]:
        found = (
            self._areas[id(self._chosen[each.pointer])] for each in leaves if each is not but and each.pointer in self._chosen
        )
        return [area for area in found if area is not None]


def _labels(leaves: Sequence[Leaf], finder: Finder) -> dict[str, list[Label]]:
    """The places of each field's names. Fields of an array share theirs."""
    found: dict[str, list[Label]] = {}
    names = {leaf.field: leaf.names for leaf in leaves}
    places = {name: finder.named(name) for name in sorted({name for each in names.values() for name in each})}
    every = [span for spans in places.values() for span in spans]
    for field, costs in names.items():
        found[field] = [
            Label(area=span.area, cost=cost)
            for name, cost in costs.items()
            for span in places[name]
            # "Date" is no label of its own in "Due date".
            if not any(_within(span, other) for other in every)
        ]
    return found


def _within(span: Span, other: Span) -> bool:
    """Whether a part of a line lies in a longer one."""
    return (
        span.row is other.row
        and other.start <= span.start
        and span.end <= other.end
        and span.end - span.start < other.end - other.start
    )


def _distance(label: Area, area: Area, *, column: bool) -> float:
    """The cost of a place by where its label is: before it in its row, above it, or at the head of its column."""
    down, right = area.y - label.y, area.left - label.right
    height = max(0.5, min(area.bottom - area.top, label.bottom - label.top))
    if abs(down) <= _ROW * height and right > -0.5:
        return min(_NO_LABEL, 0.03 * max(0.0, right))
    aligned = min(abs(area.left - label.left), abs(area.right - label.right))
    apart = 0.0 if area.left < label.right and area.right > label.left else aligned
    if 0 < down <= 3.0:
        return min(_NO_LABEL, 0.2 + 0.25 * down + 0.25 * min(apart, aligned))
    if column and down > 0:
        return min(_NO_LABEL, 0.8 + 0.01 * down + 0.4 * min(apart, aligned))
    return _NO_LABEL


def _cost_of_match(leaf: Leaf, match: Match) -> float:
    """The cost of how a value is written at a place.

    A model copies texts and codes as they are written, but it writes numbers and dates as JSON wants them, so their spelling says nothing.
    In an array, the row of the siblings says more than the spelling.
    """
    if match is Match.EQUIVALENT and not leaf.in_array and _kind(leaf.value) in ("words", "code"):
        return _WRITTEN_OTHERWISE
    return _COST_OF_MATCH[match]


def _kind(value: Any) -> str:
    """What a value is. A model that confuses two fields gives each a value that looks as if it belonged there."""
    if not isinstance(value, str):
        return "number"
    if moment(value):
        return "date"
    if len(value.strip()) <= _LONGEST_SIGN:
        return "sign"
    return "code" if any(character.isdigit() for character in value) else "words"


def _element(leaf: Leaf) -> str:
    return leaf.parent


def _grouped(leaves: Sequence[Leaf], key: Callable[[Leaf], str]) -> dict[str, list[Leaf]]:
    found: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        found.setdefault(key(leaf), []).append(leaf)
    return found


def _area(spot: Spot) -> Area | None:
    if not spot.spans:
        return None
    areas = [span.area for span in spot.spans]
    return Area(
        left=min(area.left for area in areas),
        right=max(area.right for area in areas),
        # A value of several lines stands where its first line does.
        top=areas[0].top,
        bottom=areas[0].bottom,
    )


def _overlap(one: Area, other: Area | None) -> bool:
    if other is None:
        return False
    wide = min(one.right, other.right) - max(one.left, other.left)
    high = min(one.bottom, other.bottom) - max(one.top, other.top)
    return wide > 0.2 * min(one.right - one.left, other.right - other.left) and high > 0.5 * min(
        one.bottom - one.top, other.bottom - other.top
    )
