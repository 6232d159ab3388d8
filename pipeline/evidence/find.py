"""Finds the places of a page where a value may stand. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipeline.evidence.amounts import Amount, amounts, whole_number
from pipeline.evidence.dates import Found, Moment, dates, in_order, moment, same_time, times_in
from pipeline.evidence.letters import fold, fold_letter, folded
from pipeline.evidence.page import Page, Row, Span
from pipeline.evidence.similar import similar_number, similar_texts
from pipeline.evidence.types import Code, Match
from pipeline.evidence.words import CURRENCIES

#: A part of a value that ends a line is at least this long, so that a single letter begins no value.
_SHORTEST_PART = 2
#: A value goes on over at most this many lines.
_MOST_LINES = 6
_PHONE = re.compile(r"\+?\(?\d[\d\s()/.\-‐–]{4,}\d")  # noqa: RUF001
_IS_PHONE = re.compile(r"(?:\+|0|\()[\d\s()/.\-‐–]{6,}")  # noqa: RUF001
_PARTS = re.compile(r"\s*[,;\n]\s*")
#: The parts of a value that are written apart stand at most this many lines from each other.
_NEAR = 4.0
_YEARS = range(1900, 2101)
#: Lines times values that are compared for similar text: about a second.
_MOST_COMPARED = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """A place where a value may stand."""

    match: Match
    spans: tuple[Span, ...] = ()
    code: Code | None = None  #: a barcode with the value

    @property
    def text(self) -> str:
        return self.code.text if self.code else " ".join(span.text for span in self.spans)


class Finder:
    """Looks for values on one page. It keeps what all values share."""

    def __init__(self, page: Page, codes: Iterable[Code]) -> None:
        self._page = page
        self._codes = tuple(codes)
        self._amounts: list[tuple[Row, Amount]] = [(row, each) for row in page.rows for each in amounts(row.line.text)]
        self._dates: list[tuple[Row, Found]] = [(row, each) for row in page.rows for each in dates(row.line.text)]
        self._times: list[tuple[Row, Found]] = [(row, each) for row in page.rows for each in times_in(row.line.text)]
        #: How many more lines may be compared for similar text. It bounds the time for records of thousands of wrong values.
        self._left = _MOST_COMPARED
        self._orders = [found.order for _, found in self._dates if found.order]

    def spots(self, value: Any, least: int = 1) -> tuple[Spot, ...]:
        """The places of a text or a number, from the top; each place once. If they are fewer than `least`, those of similar text too."""
        if isinstance(value, str):
            # The bars of a code are its place only if its text is not printed, because a person can check printed text.
            found = (list(self._texts(value)) or list(self._barcodes(value))) if fold(value) else []
            right = _each_once(found or self._marks(value))
            if len(right) >= least or not self._may_compare():
                return right
            return _each_once([*right, *similar_texts(value, self._page, Spot, right)])
        right = _each_once(self._numbers(_decimal(value), str(value)))
        if right or not self._may_compare():
            return right
        return _each_once(similar_number(_decimal(value), self._page, Spot))

    def _may_compare(self) -> bool:
        self._left -= len(self._page.rows)
        return self._left >= 0

    def named(self, name: str) -> list[Span]:
        """The places of a field's name, which is folded."""
        return [Span(row=row, start=start, end=end) for row in self._page.rows for start, end in row.bare.find(name)]

    # --- numbers ---

    def _numbers(self, value: Decimal, written: str, only: Callable[[Amount], bool] = lambda _: True) -> Iterator[Spot]:
        for row, amount in self._amounts:
            right = value in amount.values or (amount.percent and value * 100 in amount.values)
            if right and only(amount):
                span = Span(row=row, start=amount.start, end=amount.end)
                match = Match.EXACT if span.text == written else Match.EQUIVALENT
                yield Spot(match=Match.FUZZY if amount.part else match, spans=(span,))
        if value == int(value) and int(value) in _YEARS:
            for row, found in self._dates:
                if any(day[0] == value for day in found.days):
                    yield Spot(match=Match.EQUIVALENT, spans=(Span(row=row, start=found.start, end=found.end),))

    # --- texts ---

    def _texts(self, value: str) -> Iterator[Spot]:
        yield from self._words(value)
        if when := moment(value):
            yield from self._moments(when, value)
        elif amount := whole_number(value):
            yield from self._quantities(amount, value)
        if _IS_PHONE.fullmatch(value.strip()):
            yield from self._phones(value)
        codes = CURRENCIES.get(fold(value)) if len(value) <= 4 else None
        if codes:
            yield from self._currencies(codes, value)

    def _words(self, value: str) -> Iterator[Spot]:
        """The value's letters in their order, in one line or in several that follow each other."""
        wanted, bare = folded(value).text, fold(value)
        found = False
        is_code = sum(letter.isdigit() for letter in bare) >= 4 and "." not in wanted
        for row in self._page.rows:
            # The separators of a code are of no account; those within the numbers of a text are.
            places = set(row.words.find(wanted)) | (set(row.bare.find(bare)) if is_code else set())
            for start, end in sorted(places):
                found = True
                yield self._as_written(value, (Span(row=row, start=start, end=end),))
        if found:
            return
        for row in self._page.rows:
            for spans in self._over_lines(row, wanted):
                found = True
                yield self._as_written(value, spans)
        if not found:
            yield from self._in_parts(value)

    def _as_written(self, value: str, spans: tuple[Span, ...]) -> Spot:
        written = " ".join(span.text for span in spans)
        return Spot(match=Match.EXACT if written == " ".join(value.split()) else Match.EQUIVALENT, spans=spans)

    def _over_lines(self, row: Row, wanted: str) -> Iterator[tuple[Span, ...]]:
        text = row.words.text
        for start in sorted(row.words.starts):
            part = text[start:]
            if _SHORTEST_PART <= len(part) < len(wanted) and wanted.startswith(part):
                here = Span(row=row, start=row.words.at[start], end=_end(row))
                for rest in self._rest(row, wanted[len(part) :], _MOST_LINES):
                    yield (here, *rest)
                    break

    def _rest(self, row: Row, wanted: str, left: int) -> Iterator[tuple[Span, ...]]:
        for following in self._page.following[row.number]:
            words = following.words
            if not words.text:
                continue
            first = words.at[0]
            if words.text.startswith(wanted) and len(wanted) in words.ends:
                yield (Span(row=following, start=first, end=words.at[len(wanted) - 1] + 1),)
            elif wanted.startswith(words.text) and left:
                for rest in self._rest(following, wanted[len(words.text) :], left - 1):
                    yield (Span(row=following, start=first, end=_end(following)), *rest)

    def _in_parts(self, value: str) -> Iterator[Spot]:
        """The parts of a value that commas or line ends separate, each in a line of its own but near to the others."""
        parts = [part for part in _PARTS.split(value.strip()) if fold(part)]
        if len(parts) < 2:
            return
        places = []
        for part in parts:
            wanted = folded(part).text
            places.append(
                [Span(row=row, start=start, end=end) for row in self._page.rows for start, end in row.words.find(wanted)]
            )
        for first in places[0]:
            spans = [first]
            for others in places[1:]:
                last = spans[-1].area
                near = [each for each in others if abs(each.area.y - last.y) <= _NEAR and each not in spans]
                if not near:
                    break
                spans.append(min(near, key=lambda each: (abs(each.area.y - last.y), abs(each.area.left - last.left))))
            else:
                yield Spot(match=Match.EQUIVALENT, spans=tuple(spans))

    def _barcodes(self, value: str) -> Iterator[Spot]:
        for code in self._codes:
            if code.text == value:
                yield Spot(match=Match.EXACT, code=code)
            elif fold(code.text) == fold(value) or (
                code.text.isdigit() and value.isdigit() and code.text.lstrip("0") == value.lstrip("0")
            ):
                yield Spot(match=Match.EQUIVALENT, code=code)

    def _moments(self, when: Moment, value: str) -> Iterator[Spot]:
        if not when.days:
            for row, found in self._times:
                if _share_time(when, found):
                    yield self._as_written(value, (Span(row=row, start=found.start, end=found.end),))
            return
        midnight = all(time[:2] == (0, 0) for time in when.times)
        for row, found in self._dates:
            days = in_order(found, self._orders)
            if not any(_same_day(day, wanted) for day in days for wanted in when.days):
                continue
            day = Span(row=row, start=found.start, end=found.end)
            clocks = [
                Span(row=other, start=each.start, end=each.end)
                for other, each in self._times
                if when.times
                and _share_time(when, each)
                and not (other is row and each.start < found.end and found.start < each.end)
            ]
            near = [span for span in clocks if abs(span.area.y - day.area.y) <= _NEAR]
            if near:
                yield Spot(match=Match.EQUIVALENT, spans=(day, min(near, key=lambda span: abs(span.area.y - day.area.y))))
            elif midnight:
                yield self._as_written(value, (day,))

    def _quantities(self, wanted: Amount, value: str) -> Iterator[Spot]:
        """Numbers with a currency or a unit, which the page may leave out but not contradict."""

        def fits(amount: Amount) -> bool:
            if wanted.currencies and amount.currencies and not wanted.currencies & amount.currencies:
                return False
            if wanted.percent and not amount.percent:
                return False
            plain = wanted.unit and not wanted.currencies and amount.unit and not amount.currencies
            return not plain or wanted.unit == amount.unit or amount.unit.startswith(wanted.unit)

        for number in wanted.values:
            yield from self._numbers(number, value, fits)

    def _phones(self, value: str) -> Iterator[Spot]:
        for row in self._page.rows:
            for found in _PHONE.finditer(row.line.text):
                if _same_phone(value, found[0]):
                    yield self._as_written(value, (Span(row=row, start=found.start(), end=found.end()),))

    def _currencies(self, codes: frozenset[str], value: str) -> Iterator[Spot]:
        for row in self._page.rows:
            for found in re.finditer(r"[^\W\d_]+\$?|[€£$¥₺₹]", row.line.text):
                if codes & CURRENCIES.get("".join(fold_letter(letter) or letter for letter in found[0]), frozenset()):
                    yield self._as_written(value, (Span(row=row, start=found.start(), end=found.end()),))

    def _marks(self, value: str) -> list[Spot]:
        """The places of a value without letters, such as "%"."""
        value = value.strip()
        if not value or fold(value):
            return []
        places = ((row, row.line.text.find(value)) for row in self._page.rows)
        return [
            Spot(match=Match.EXACT, spans=(Span(row=row, start=start, end=start + len(value)),))
            for row, start in places
            if start >= 0
        ]


def _end(row: Row) -> int:
    """The end of a line's last letter: a hyphen after it is not part of the value."""
    return row.words.at[-1] + 1


def _decimal(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _share_time(when: Moment, found: Found) -> bool:
    return any(same_time(one, other) for one in when.times for other in found.times)


def _same_day(found: tuple[int, int, int], wanted: tuple[int, int, int]) -> bool:
    return found == wanted or (wanted[2] == 0 and found[:2] == wanted[:2])


def _same_phone(one: str, other: str) -> bool:
    """Whether two phone numbers are the same. Only one of them may have its country's code."""
    (home, first), (away, second) = sorted((_phone(one), _phone(other)))
    if len(first) < 5 or len(second) < 5:
        return False
    if home == away:
        return first == second
    return any(
        second.endswith(each) and 1 <= len(second) - len(each) <= 3 for each in {first, first.removeprefix("0")} if len(each) >= 6
    )


def _phone(text: str) -> tuple[bool, str]:
    """Whether it begins with a country's code, and its digits without the marks of a foreign call."""
    text = text.replace("(0)", "").strip()
    digits = "".join(letter for letter in text if letter.isdigit())
    abroad = text.lstrip("( ").startswith("+") or digits.startswith("00")
    return abroad, digits.removeprefix("00") if digits.startswith("00") else digits


def _each_once(spots: Iterable[Spot]) -> tuple[Spot, ...]:
    """The spots without those that lie in another one, or are the same as one that is as good."""
    order = {Match.EXACT: 0, Match.EQUIVALENT: 1, Match.FUZZY: 2}
    kept: list[Spot] = []
    for spot in sorted(spots, key=lambda each: (order[each.match], -sum(span.end - span.start for span in each.spans))):
        if not any(_covers(other, spot) for other in kept):
            kept.append(spot)
    return tuple(sorted(kept, key=lambda each: (each.spans[0].row.number, each.spans[0].start) if each.spans else (-1, 0)))


def _covers(one: Spot, other: Spot) -> bool:
    if one.code or other.code:
        return one.code is other.code
    return all(any(a.row is b.row and a.start < b.end and b.start < a.end for a in one.spans) for b in other.spans)
