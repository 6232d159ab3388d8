"""Dates and times in running text: in the usual orders, with the months' names of the languages that the OCR reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from pipeline.evidence.letters import fold
from pipeline.evidence.words import MONTHS

#: Year, month and day. The day is 0 if only a month is named.
Day = tuple[int, int, int]
#: Hour, minute and second. The second is -1 if it is not named.
Time = tuple[int, int, int]

_MARK = r"\s?[./\-‐–·\s]\s?"  # noqa: RUF001
_NUMERIC = re.compile(rf"(?<![\d.,])(\d{{1,4}})({_MARK})(\d{{1,2}})({_MARK})((?:19|20)\d\d(?=\d{{1,2}}:\d\d)|\d{{2,4}}(?!\d))")
_COMPACT = re.compile(r"(?<!\d)((?:19|20)\d\d)(\d\d)(\d\d)(?!\d)")
_EASTERN = re.compile(r"(\d{4})\s?年\s?(\d{1,2})\s?月(?:\s?(\d{1,2})\s?日)?")
_NAME = r"([^\W\d_]{3,12})"
_DAY = r"(\d{1,2})(?:st|nd|rd|th|er|[.ºª°])?"
_YEAR = r"['’]?(\d{4}|\d{2})"  # noqa: RUF001
_BETWEEN = r"[\s.,\-/]{0,3}(?:(?:de|del|of|den)\b)?[\s.,\-/]{0,3}"
#: The OCR loses the space between a year and a time that follows it.
_YEAR_ENDS = r"(?:(?!\d)|(?<=(?:19|20)\d\d)(?=\d{1,2}:\d\d))"
#: Between a day and its year. "juli 2023" is not 20 July 23, so nothing may be missing unless four digits follow.
_BEFORE_YEAR = r"(?:[\s,.]{1,4}|(?=['’])|(?=(?:19|20)\d\d))"  # noqa: RUF001
_DAY_FIRST = re.compile(rf"(?<!\d){_DAY}{_BETWEEN}{_NAME}{_BETWEEN}{_YEAR}{_YEAR_ENDS}", re.IGNORECASE)
_MONTH_FIRST = re.compile(rf"{_NAME}{_BETWEEN}{_DAY}{_BEFORE_YEAR}{_YEAR}{_YEAR_ENDS}", re.IGNORECASE)
_YEAR_FIRST = re.compile(rf"(?<!\d)(\d{{4}}){_BETWEEN}{_NAME}{_BETWEEN}{_DAY}(?!\d)", re.IGNORECASE)
_MONTH_ONLY = re.compile(rf"{_NAME}{_BETWEEN}(\d{{4}})(?!\d)", re.IGNORECASE)
_MONTH_AND_YEAR = re.compile(r"(?<![\d./-])(\d{1,2})\s?[/.-]\s?(\d{4})(?![\d])")
_ISO = re.compile(r"(\d{4})-(\d{2})(?:-(\d{2}))?(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?\s?(?:Z|[+-]\d{2}:?\d{2})?)?")
_CLOCK = re.compile(
    # The OCR loses the space between a date and a time.
    r"(?:(?<![\d.,])(?<!\d:)|(?<=[./\-\s,](?:19|20)\d\d))(\d{1,2})\s?(?:[:h.]|Uhr\s)\s?(\d{2})(?:[:.](\d{2}))?(?![\d])(?:\s?([AaPp])\.?\s?[Mm]\b\.?)?(?:\s?(?:Uhr|uur|h)\b)?"
)
_HOUR = re.compile(r"(?<![\d.,:])(\d{1,2})\s?([AaPp])\.?\s?[Mm]\b\.?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A date or a time that stands in a text."""

    start: int  #: first character
    end: int  #: after the last character
    days: frozenset[Day] = frozenset()  #: 03/04/26 may be two days
    times: frozenset[Time] = frozenset()
    #: For a date of three numbers with slashes or hyphens: the first two numbers, which are day and month in either order.
    order: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A record's value that is a date, a time, or both."""

    days: frozenset[Day]  #: empty if it is a time
    times: frozenset[Time]  #: empty if it is a date


def moment(text: str) -> Moment | None:
    """What a whole text says as a date or a time. None if it is anything else."""
    text = text.strip()
    if iso := _ISO.fullmatch(text):
        year, month, day = int(iso[1]), int(iso[2]), int(iso[3] or 0)
        if not _is_day(year, month, day):
            return None
        times = frozenset({(int(iso[4]), int(iso[5]), int(iso[6] or -1))}) if iso[4] else frozenset()
        return Moment(days=frozenset({(year, month, day)}), times=times)
    days = [found for found in dates(text) if found.end - found.start >= len(text) - 1]
    if days:
        return Moment(days=frozenset(day for found in days for day in found.days), times=frozenset())
    clocks = [found for found in times_in(text) if found.end - found.start >= len(text)]
    if clocks and re.search(r"[:hAaPp]", text):
        return Moment(days=frozenset(), times=frozenset(time for found in clocks for time in found.times))
    both = [(day, clock) for day in dates(text) for clock in times_in(text) if day.start == 0 and clock.start >= day.end]
    if both and both[0][1].end == len(text) and both[0][1].start - both[0][0].end <= 4:
        return Moment(days=both[0][0].days, times=both[0][1].times)
    return None


def dates(text: str) -> tuple[Found, ...]:
    """All dates in a line of text, and months with their year."""
    return (*_in_numbers(text), *_with_names(text))


def _in_numbers(text: str) -> Iterator[Found]:
    for found in _NUMERIC.finditer(text):
        if found[2].strip() == found[4].strip():
            numbers = (found[1], found[3], found[5])
            days = frozenset(day for day in _orders(*numbers, dotted=found[2].strip() == ".") if _is_day(*day))
            order = (int(found[1]), int(found[3])) if len(found[1]) <= 2 and found[2].strip() != "." else None
            if days:
                yield Found(start=found.start(), end=found.end(), days=days, order=order)
    for pattern in (_COMPACT, _EASTERN):
        for found in pattern.finditer(text):
            day = (int(found[1]), int(found[2]), int(found[3] or 0))
            if _is_day(*day):
                yield Found(start=found.start(), end=found.end(), days=frozenset({day}))
    for found in _MONTH_AND_YEAR.finditer(text):
        if 1 <= int(found[1]) <= 12:
            yield Found(start=found.start(), end=found.end(), days=frozenset({(int(found[2]), int(found[1]), 0)}))


def _with_names(text: str) -> Iterator[Found]:
    for pattern, (year, month, day) in (
        (_DAY_FIRST, (3, 2, 1)),
        (_MONTH_FIRST, (3, 1, 2)),
        (_YEAR_FIRST, (1, 2, 3)),
        (_MONTH_ONLY, (2, 1, 0)),
    ):
        for found in pattern.finditer(text):
            names = MONTHS.get(fold(found[month]), frozenset())
            days = frozenset(
                each
                for whole in _years(found[year])
                for number in names
                if _is_day(*(each := (whole, number, int(found[day]) if day else 0)))
            )
            if days:
                yield Found(start=found.start(), end=found.end(), days=days)


def _orders(first: str, second: str, third: str, *, dotted: bool) -> Iterable[Day]:
    """The days that three numbers may mean. With points between them the day comes before the month."""
    if len(first) > 2:
        if len(first) == 4 and len(third) <= 2:
            yield int(first), int(second), int(third)
        return
    if len(third) == 3:
        return
    for year in _years(third):
        yield year, int(second), int(first)
        if not dotted:
            yield year, int(first), int(second)
    if len(third) == 2 and not dotted:
        for year in _years(first):
            yield year, int(second), int(third)


def _years(digits: str) -> tuple[int, ...]:
    return (int(digits),) if len(digits) == 4 else (1900 + int(digits), 2000 + int(digits))


def _is_day(year: int, month: int, day: int) -> bool:
    if not 1000 <= year <= 2999 or not 1 <= month <= 12:
        return False
    try:
        date(year, month, day or 1)
    except ValueError:
        return False
    return True


def in_order(found: Found, orders: Iterable[tuple[int, int]]) -> frozenset[Day]:
    """The days of a date, given the first two numbers of all such dates of its page: a page writes all of them in one order."""
    if found.order is None or len(found.days) < 2:
        return found.days
    day_first = any(first > 12 for first, _ in orders)
    month_first = any(second > 12 for _, second in orders)
    if day_first == month_first:
        return found.days
    first, second = found.order
    month, day = (second, first) if day_first else (first, second)
    return frozenset(each for each in found.days if each[1:] == (month, day))


def times_in(text: str) -> tuple[Found, ...]:
    """All times of day in a line of text."""
    found = []
    for clock in _CLOCK.finditer(text):
        hour, minute, second = int(clock[1]), int(clock[2]), int(clock[3]) if clock[3] else -1
        hours = _hours(hour, clock[4])
        if hours and minute < 60 and second < 60:
            found.append(Found(start=clock.start(), end=clock.end(), times=frozenset((each, minute, second) for each in hours)))
    found += [
        Found(start=clock.start(), end=clock.end(), times=frozenset((each, 0, -1) for each in _hours(int(clock[1]), clock[2])))
        for clock in _HOUR.finditer(text)
        if _hours(int(clock[1]), clock[2])
    ]
    return tuple(found)


def _hours(hour: int, half: str | None) -> tuple[int, ...]:
    if half:
        return ((hour % 12) + (12 if half in "pP" else 0),) if 1 <= hour <= 12 else ()
    return (hour,) if hour <= 24 else ()


def same_time(one: Time, other: Time) -> bool:
    """Whether two times are the same. A second that only one of them names must be 0, or is left out by the other."""
    if one[:2] != other[:2]:
        return False
    return one[2] == other[2] or min(one[2], other[2]) < 0
