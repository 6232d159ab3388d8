"""A sheet of bench.evidence that is being drawn. It remembers where each value of its record was written."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from numpy.random import Generator

from bench.evidence_words import Language, Manner

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import ink

Box = tuple[float, float, float, float]
_HYPHEN = "-"


@dataclass(kw_only=True)
class Sheet:
    """A page that is being drawn, and what was written on it as a value of the record."""

    rng: Generator
    language: Language
    manner: Manner
    pen: ink.Pen
    size: float  #: of the type, in pixels
    kinds: dict[str, str] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)  #: an amount without its currency, as written

    def pick(self, words: str) -> str:
        options = words.split(";")
        return options[int(self.rng.integers(len(options)))]

    def digits(self, count: int) -> str:
        return "".join(str(digit) for digit in self.rng.integers(0, 10, count))

    def label(self, name: str) -> str:
        return self.language.labels[name]

    def put(
        self, at: tuple[float, float], words: str, size: float = 0, *, face: str = "", side: str = "l", **values: str
    ) -> None:
        """Writes `words` at a place on its base line. `values`: for a pointer (a__b is /a/b) the part of `words` that is its value."""
        size = size or self.size
        face = face or self.pen.face
        self.pen.text(at, words, size, face=face, anchor=side + "s")
        chosen = ink.font(face, size)
        left = at[0] - {"l": 0.0, "m": chosen.getlength(words) / 2, "r": chosen.getlength(words)}[side]
        _, top, _, bottom = chosen.getbbox("Hg", anchor="ls")
        for name, whole in values.items():
            part = self.numbers.get(name, whole)
            start = words.index(part)
            x0, x1 = left + chosen.getlength(words[:start]), left + chosen.getlength(words[: start + len(part)])
            self.boxes.setdefault("/" + name.replace("__", "/"), []).append((x0, at[1] + top, x1, at[1] + bottom))

    def know(self, name: str, kind: str, value: Any) -> None:
        pointer = "/" + name.replace("__", "/")
        self.kinds[pointer], self.truth[pointer] = kind, value

    # --- values, which are known to the record and given as the page has them ---

    def amount(self, name: str, low: int, high: int, *, sign: bool = False, value: Decimal | None = None) -> str:
        if value is None:
            value = Decimal(int(self.rng.integers(low * 100, high * 100))) / 100
        self.know(name, "amount", float(value))
        self.numbers[name] = self.manner.number(value.quantize(Decimal("0.01")))
        return self.manner.amount(value.quantize(Decimal("0.01")), sign=sign)

    def day(self, name: str, first: int = 2019) -> str:
        value = date(first, 1, 1) + timedelta(days=int(self.rng.integers(0, 365 * 7)))
        self.know(name, "date", value.isoformat())
        return self.manner.day(value)

    def time(self, name: str) -> str:
        hour, minute = int(self.rng.integers(7, 22)), int(self.rng.integers(0, 60))
        self.know(name, "time", f"{hour:02}:{minute:02}")
        if self.language.code == "en" and self.rng.random() < 0.4:
            return f"{(hour - 1) % 12 + 1}:{minute:02} {'pm' if hour >= 12 else 'am'}"
        return f"{hour}h{minute:02}" if self.language.code == "fr" and self.rng.random() < 0.4 else f"{hour:02}:{minute:02}"

    def phone(self, name: str) -> str:
        country = {"en": "44", "de": "49", "fr": "33", "es": "34", "it": "39", "nl": "31"}[self.language.code]
        area, rest = "".join(str(self.rng.integers(1, 10)) for _ in range(3)), self.digits(6)
        self.know(name, "phone", f"+{country}{area}{rest}")
        forms = (
            f"+{country} {area} {rest[:3]} {rest[3:]}",
            f"+{country} ({area}) {rest[:2]} {rest[2:4]} {rest[4:]}",
            f"00{country} {area}/{rest}",
            f"0{area} {rest[:3]} {rest[3:]}",
            f"+{country}-{area}-{rest[:3]}-{rest[3:]}",
        )
        return forms[int(self.rng.integers(len(forms)))]

    def iban(self, name: str) -> str:
        country, length = {
            "en": ("GB", 18),
            "de": ("DE", 18),
            "fr": ("FR", 23),
            "es": ("ES", 20),
            "it": ("IT", 23),
            "nl": ("NL", 14),
        }[self.language.code]
        grouped = ink.iban(country, self.digits(length))
        self.know(name, "IBAN", grouped.replace(" ", ""))
        return grouped

    def person(self, name: str) -> str:
        written = self.pick(self.language.names)
        self.know(name, "name", written)
        return written.upper() if self.rng.random() < 0.2 else written

    def shop(self, name: str) -> str:
        written = self.pick(self.language.shops)
        self.know(name, "name", written)
        return written.upper() if self.rng.random() < 0.4 else written

    def goods(self, name: str) -> str:
        written = self.pick(self.language.goods)
        self.know(name, "text", written)
        return written

    def code(self, name: str) -> str:
        letters = "".join(chr(65 + int(letter)) for letter in self.rng.integers(0, 26, 2))
        written = f"{letters}-{self.digits(4)}-{self.digits(3)}"
        self.know(name, "code", written)
        return written

    def count(self, name: str) -> str:
        value = int(self.rng.integers(1, 30))
        self.know(name, "count", value)
        return str(value)

    def address(self, name: str) -> tuple[str, str]:
        street, town = self.pick(self.language.streets), self.pick(self.language.towns)
        self.know(name, "address", f"{street}, {town}")
        return street, town

    def mail(self, name: str) -> str:
        first, *_ = self.pick(self.language.names).lower().split()
        plain = first.encode("ascii", "ignore").decode() or "info"
        written = f"{plain}{self.digits(2)}@{self.pick('seestern;moorland;valdoro;kestrel')}.example"
        self.know(name, "mail", written)
        return written


def hyphenated(words: str, face: str, size: float, width: float) -> list[str]:
    """Lines of `words`. A word that does not fit is divided, so that the last letters of a line are followed by a hyphen."""
    chosen = ink.font(face, size)
    lines, line = [], ""
    for word in words.split():
        longer = f"{line} {word}" if line else word
        if chosen.getlength(longer) <= width:
            line = longer
            continue
        for cut in range(len(word) - 3, 3, -1):
            if line and chosen.getlength(f"{line} {word[:cut]}{_HYPHEN}") <= width:
                lines.append(f"{line} {word[:cut]}{_HYPHEN}")
                line = word[cut:]
                break
        else:
            lines.append(line)
            line = word
    return [*lines, line]
