"""Text as it is compared: without case, diacritics, ligatures, full width and separators. It is known where each letter came from."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

#: Letters that Unicode does not decompose.
_PLAIN = {
    "ß": "ss",
    "æ": "ae",
    "œ": "oe",
    "ø": "o",
    "ł": "l",
    "đ": "d",
    "ð": "d",
    "þ": "th",
    "\u0131": "i",
    "ħ": "h",
    "ŋ": "n",
    "\u017f": "s",
    "º": "o",
    "ª": "a",
    "№": "no",
}
#: What stands for a mark between two digits, so that 1.5 is not 15. Commas and points are one: 0,5 l is 0.5 l.
POINT = "."
_POINTS = frozenset(".,'\u2019\u00b7\u066b")
#: These join the parts of one code or range: 0287 is no number of its own in 0287-833.
_JOINING = frozenset("-/‐‑–:_")  # noqa: RUF001
#: The first of the characters of scripts that put no spaces between words.
_FIRST_WIDE = "\u2e80"
#: Scripts that the OCR has no letters for, by the first word of their characters' Unicode names.
UNREAD_SCRIPTS = frozenset(
    [
        "CYRILLIC",
        "GREEK",
        "ARABIC",
        "HEBREW",
        "HANGUL",
        "THAI",
        "DEVANAGARI",
        "BENGALI",
        "TAMIL",
        "TELUGU",
        "KANNADA",
        "MALAYALAM",
        "GUJARATI",
        "GURMUKHI",
        "ARMENIAN",
        "GEORGIAN",
        "SINHALA",
        "KHMER",
        "LAO",
        "MYANMAR",
        "ETHIOPIC",
        "TIBETAN",
        "ORIYA",
    ]
)


@lru_cache(maxsize=8192)
def fold_letter(letter: str) -> str:
    """The letters and digits that stand for one character. Empty for a separator."""
    found = []
    for part in unicodedata.normalize("NFKD", letter.casefold()):
        plain = _PLAIN.get(part, part)
        found.append("".join(each for each in plain if each.isalnum()))
    return "".join(found)


def fold(text: str) -> str:
    """The letters and digits of a text, without POINT."""
    return "".join(map(fold_letter, text))


@dataclass(frozen=True, kw_only=True, slots=True)
class Folded:
    """A text as it is compared."""

    source: str
    text: str  #: letters and digits, and POINT between digits
    at: tuple[int, ...]  #: for each of them the character of `source` that it came from
    starts: frozenset[int]  #: where a word may begin
    ends: frozenset[int]  #: after which place a word may end
    inside: frozenset[int]  #: those of both that are within a code, such as the hyphen of AB-123

    def find(self, wanted: str) -> Iterator[tuple[int, int]]:
        """Start and end in `source` of each place where `wanted` stands as whole words."""
        place = self.text.find(wanted) if wanted else -1
        loose = any(letter.isalpha() for letter in wanted)
        while place >= 0:
            end = place + len(wanted)
            if self._bounded(place, end, loose=loose):
                yield self.at[place], self.at[end - 1] + 1
            place = self.text.find(wanted, place + 1)

    def _bounded(self, start: int, end: int, *, loose: bool) -> bool:
        if start not in self.starts or end not in self.ends:
            return False
        return loose or not (start in self.inside or end in self.inside)


def folded(source: str, *, points: bool = True) -> Folded:
    """`source` as it is compared. `points`: keep POINT, else 1.234 and 1234 are the same."""
    letters: list[str] = []
    at: list[int] = []
    last = len(source) - 1
    for place, letter in enumerate(source):
        plain = fold_letter(letter)
        if not plain and letter in _POINTS and 0 < place < last and source[place - 1].isdigit() and source[place + 1].isdigit():
            plain = POINT
        letters += plain
        at += [place] * len(plain)
    starts, ends, inside = _boundaries(source, letters, at)
    if not points and POINT in letters:
        kept = [place for place, letter in enumerate(letters) if letter != POINT]
        new = {old: place for place, old in enumerate(kept)} | {len(letters): len(kept)}
        starts, ends, inside = ({new[place] for place in each if place in new} for each in (starts, ends, inside))
        letters, at = [letters[place] for place in kept], [at[place] for place in kept]
        starts |= {0}
        ends |= {len(letters)}
    return Folded(
        source=source,
        text="".join(letters),
        at=tuple(at),
        starts=frozenset(starts),
        ends=frozenset(ends),
        inside=frozenset(inside),
    )


def _boundaries(source: str, letters: list[str], at: list[int]) -> tuple[set[int], set[int], set[int]]:
    """Where words may begin and end. The OCR loses spaces, so a change of case or from letters to digits may be one, too."""
    both: set[int] = {0, len(letters)}
    inside: set[int] = set()
    for place in range(1, len(letters)):
        before, here = source[at[place - 1]], source[at[place]]
        if at[place] - at[place - 1] > 1:
            both.add(place)
            between = source[at[place - 1] + 1 : at[place]]
            if len(between) == 1 and between in _JOINING:
                inside.add(place)
        elif POINT in (letters[place - 1], letters[place]):
            continue
        elif here >= _FIRST_WIDE or before >= _FIRST_WIDE or (before.islower() and here.isupper()):
            both.add(place)
        elif before.isdigit() != here.isdigit():
            both.add(place)
            inside.add(place)
    return both, set(both), inside


#: Letters that the OCR mistakes for each other, each with the one that stands for its kind.
_ALIKE = str.maketrans(
    {"0": "o", "q": "o", "1": "l", "i": "l", "j": "l", "|": "l", "5": "s", "8": "b", "2": "z", "6": "g", "u": "v", "f": "t"}
)


def alike(text: str) -> str:
    """A folded text in which letters that the OCR mistakes for each other are the same."""
    return text.replace("rn", "m").replace("vv", "w").replace("cl", "d").replace("ii", "u").translate(_ALIKE)


@lru_cache(maxsize=4096)
def _unread(letter: str) -> bool:
    return letter.isalpha() and unicodedata.name(letter, "").split(" ", 1)[0] in UNREAD_SCRIPTS


def is_unread(text: str) -> bool:
    """Whether a third of the letters, or more, are of a script that the OCR has no letters for."""
    letters = [letter for letter in text if letter.isalpha()]
    return bool(letters) and 3 * sum(map(_unread, letters)) >= len(letters)
