"""Numbers in running text, as all countries write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from pipeline.evidence.letters import fold, fold_letter
from pipeline.evidence.words import CURRENCIES, NUMBERS, UNITS

#: Digits with marks between them. A space joins groups of three digits only.
_NUMBER = re.compile(r"\d+(?:[.,'’·]\s?\d+|[ \u00a0\u202f]\d{3}(?!\d))*")  # noqa: RUF001
_GROUP_WITH_ZERO = re.compile(r" 0\d")
_MINUS = frozenset("-−–﹣－")  # noqa: RUF001
_GROUP_MARKS = frozenset("'’· \u00a0\u202f")  # noqa: RUF001
_WORD = re.compile(r"[^\W\d_]+")
#: A word before a number is part of a code if it is shorter.
_LONG_WORD = 4
_CURRENCY_SIGNS = "€£$¥₺₹円元"


@dataclass(frozen=True, kw_only=True, slots=True)
class Amount:
    """A number that stands in a text."""

    start: int  #: first character
    end: int  #: after the last character
    values: frozenset[Decimal]  #: 1.234 may be two numbers
    percent: bool = False  #: its sign is within `end`
    currencies: frozenset[str] = frozenset()  #: codes that its sign may mean
    unit: str = ""  #: the word after it, folded
    word: bool = False  #: written as a word: "two"
    part: bool = False  #: a part of a run such as "2 350" that may also be one number


def amounts(text: str) -> tuple[Amount, ...]:
    """All numbers in a line of text, from the left. What is part of a code, a date or a time is none."""
    return tuple(_amounts(text))


def _amounts(text: str) -> Iterator[Amount]:
    for found in _NUMBER.finditer(text):
        for start, end in _readings(text, found.start(), found.end()):
            values = read(text[start:end])
            if not values or not _alone(text, start, end):
                continue
            before, after = text[:start].rstrip(), text[end:].lstrip()
            if _negative(text, start, end):
                values = frozenset(-value for value in values)
            word = _WORD.match(after)
            unit = fold(word[0]) if word else ""
            last = _WORD.search(before[-12:][::-1])
            ahead = fold(last[0][::-1]) if last and before.endswith(last[0][::-1]) else ""
            percent = after[:1] in ("%", "\uff05", "٪")
            signs = [before[-1:], after[:1], unit, ahead]
            yield Amount(
                part=(start, end) != found.span(),
                start=start,
                end=len(text) - len(after) + 1 if percent else end,
                values=values,
                percent=percent,
                currencies=frozenset[str]().union(*(CURRENCIES.get(sign, frozenset()) for sign in signs if sign)),
                unit=unit,
            )
    for found in _WORD.finditer(text):
        number = NUMBERS.get(fold(found[0]))
        if number is not None:
            yield Amount(start=found.start(), end=found.end(), values=frozenset({Decimal(number)}), word=True)


def _readings(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The whole run of digits, and its parts between spaces if there are any, because "2 350" may be two numbers or one.

    "1 050" is one, because no number begins with 05.
    """
    yield start, end
    if " " in text[start:end] and not _GROUP_WITH_ZERO.search(text[start:end]):
        at = start
        for part in text[start:end].split(" "):
            yield at, at + len(part)
            at += len(part) + 1


@lru_cache(maxsize=8192)
def read(digits: str) -> frozenset[Decimal]:
    """The numbers that digits with marks between them may mean: 1.234,56 is one, 1.234 may be two, 14.03.26 is none."""
    digits = digits.replace(", ", ",").replace(". ", ".")
    marks = [letter for letter in digits if not letter.isdigit()]
    groups = re.split(r"\D", digits)
    found = set()
    if not marks:
        found.add(digits)
    elif _are_thousands(groups) and len(set(marks)) == 1:
        found.add("".join(groups))
    # The last mark may be the decimal one, if it does not occur before.
    if marks and marks[-1] in ".,'’" and marks[-1] not in marks[:-1]:  # noqa: RUF001
        whole = groups[:-1]
        grouped = len(set(marks[:-1])) <= 1 and (len(whole) == 1 or _are_thousands(whole))
        apostrophe = marks[-1] in _GROUP_MARKS and len(groups[-1]) == 3
        if grouped and not apostrophe:
            found.add("".join(whole) + "." + groups[-1])
    try:
        return frozenset(Decimal(each) for each in found)
    except InvalidOperation:
        return frozenset()


def _are_thousands(groups: list[str]) -> bool:
    return 1 <= len(groups[0]) <= 3 and groups[0] != "" and all(len(group) == 3 for group in groups[1:])


def _alone(text: str, start: int, end: int) -> bool:
    """Whether the digits are no part of a word, a code, a date or a time."""
    before, after = text[:start], text[end:]
    if before and (before[-1].isalpha() or before[-1] == "_"):
        word = re.search(r"[^\W\d_]+$", before)
        name = fold(word[0]) if word else ""
        # The OCR loses the space between a word and a number. Codes begin with fewer letters, and with capitals.
        lost_space = len(name) >= _LONG_WORD and before[-1].islower()
        if name not in CURRENCIES and name not in UNITS and not lost_space:
            return False
    if after and (after[0].isalpha() or after[0] == "_"):
        word = _WORD.match(after)
        name = fold(word[0]) if word else ""
        if name not in CURRENCIES and name not in UNITS:
            return False
    joined_before = len(before) > 1 and before[-1] in "-/:.,'’‐–" and before[-2].isalnum()  # noqa: RUF001
    if joined_before and not (before[-1] in ":.," and before[-2].isalpha()):
        return False
    return not (len(after) > 1 and after[0] in "-/:.,'’‐–" and after[1].isalnum() and (after[0] in "-/:" or after[1].isdigit()))  # noqa: RUF001


def _negative(text: str, start: int, end: int) -> bool:
    before, after = text[:start].rstrip(_CURRENCY_SIGNS + " "), text[end:]
    if before[-1:] in _MINUS and (len(before) == 1 or before[-2].isspace() or before[-2] in "(:"):
        # A sign that is far from its number is a dash between two texts.
        return start - len(before) <= 2
    if after[:1] in _MINUS and not after[1:2].isalnum():
        return True
    return before[-1:] == "(" and after.lstrip()[:1] == ")"


def whole_number(text: str) -> Amount | None:
    """The number that a text consists of, with a currency or a unit if there is one. None if there is anything else."""
    found = [amount for amount in amounts(text.strip()) if not amount.word]
    if not found:
        return None
    amount = max(found, key=lambda each: each.end - each.start)
    rest = (text.strip()[: amount.start] + " " + text.strip()[amount.end :]).strip(" +-−–()%\uff05")  # noqa: RUF001
    words = rest.split()
    if any(_name(word) not in CURRENCIES and _name(word) not in UNITS for word in words) or len(words) > 1:
        return None
    return amount


def _name(word: str) -> str:
    return "".join(fold_letter(letter) or letter for letter in word)
