"""Measures how well the evidence for records is found on pages that are drawn here, so that it is known where each value stands.

It draws receipts, invoices, labels, cards and forms in six languages and eight layouts, askew, noisy, shaded and as JPEG, and reads them
with the real OCR. Then it looks for the true record of each page, for records with invented values, and for records in which two values
are exchanged.
"""

from __future__ import annotations

import argparse
import copy
import json
import string
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pillow_heif
from numpy.random import Generator, default_rng
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from bench.evidence_pages import Box, Page, page
from bench.report import machine
from pipeline.engines.ocr.text_reader import reading_of
from pipeline.engines.ocr.wire import OcrReply
from pipeline.evidence.ground import ground, is_text
from pipeline.evidence.types import Match, Reading

STANDS = (Match.EXACT, Match.EQUIVALENT)
FOUND = (*STANDS, Match.FUZZY)
NOT_WRITTEN = ("boolean", "enum")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
#: Each value is invented once, in one of so many records of its page.
TURNS = 4
GOALS = {"found": 0.98, "refused": 0.99, "milliseconds": 25.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kept", type=Path, help="a folder that keeps what the OCR read, for the next run")
    parser.add_argument("--only-kept", action="store_true", help="leave out the pages that the folder does not have")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--failed", action="store_true", help="list what failed")
    asked = parser.parse_args()
    tally = Tally()
    read = Kept(asked)
    for drawn, reading in _pages(asked, read):
        measure(drawn, reading, default_rng((asked.seed, 77, tally.pages)), tally)
    for name, texts, reading in _examples(read):
        places = ground(texts, reading).places
        tally.examples["all"] += len(texts)
        tally.examples["found"] += sum(place.match in FOUND for place in places.values())
        tally.failures += [
            f"{name}: {texts[int(pointer[1:])]!r}" for pointer, place in places.items() if place.match not in FOUND
        ]
    figures = tally.figures()
    if asked.failed:
        print("\n".join(tally.failures))
    _show(figures)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


class Tally:
    """Counts."""

    def __init__(self) -> None:
        self.pages = 0
        self.true: dict[str, Counter[str]] = defaultdict(Counter)
        self.invented: dict[str, Counter[str]] = defaultdict(Counter)
        self.exchanged: dict[str, Counter[str]] = defaultdict(Counter)
        self.examples: Counter[str] = Counter()  #: the texts of the pictures in examples/
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.earlier: dict[str, list[Any]] = defaultdict(list)  #: the values of the pages before, by kind

    def figures(self) -> dict[str, Any]:
        kinds = {}
        for kind in sorted(self.true):
            true, invented, exchanged = self.true[kind], self.invented[kind], self.exchanged[kind]
            kinds[kind] = {"true": dict(true), "invented": dict(invented), "exchanged": dict(exchanged)}
        written = [kind for kind in self.true if kind not in NOT_WRITTEN]
        whole = {
            "found": _share([self.true[kind] for kind in written], "right"),
            "refused": _share(list(self.invented.values()), "refused"),
            "notVerbatim": _share([self.true[kind] for kind in NOT_WRITTEN], "right"),
            "exchanges noticed": _share(list(self.exchanged.values()), "noticed"),
            "texts of the twelve examples found": _share([self.examples], "found"),
            "milliseconds": round(1000 * median(self.seconds), 2),
            "slowest milliseconds": round(1000 * max(self.seconds), 2),
        }
        return {"pages": self.pages, "whole": whole, "kinds": kinds}


def _share(counts: list[Counter[str]], name: str) -> float:
    return round(sum(each[name] for each in counts) / max(1, sum(each["all"] for each in counts)), 4)


def measure(drawn: Page, reading: Reading, rng: Generator, tally: Tally) -> None:
    """Counts what is found for a page's true record, and for wrong ones."""
    tally.pages += 1
    started = time.process_time()
    evidence = ground(drawn.record, reading, drawn.schema)
    tally.seconds.append(time.process_time() - started)
    for pointer, value in drawn.values.items():
        place = evidence.places[pointer]
        counts = tally.true[value.kind]
        counts["all"] += 1
        counts[place.match] += 1
        right = (
            place.match is Match.NOT_VERBATIM
            if value.kind in NOT_WRITTEN
            else place.match in FOUND and same_places(value.boxes, place.boxes)
        )
        counts["right"] += right
        if not right:
            where = "elsewhere" if place.match in FOUND else ""
            tally.failures.append(
                f"{drawn.name}{pointer} {value.kind} {value.value!r}: {place.match} {where} {place.text!r} {_worst(value.boxes, place.boxes)}"
            )
    for turn in range(TURNS):
        record, wrong = invent(drawn, turn, rng, tally.earlier)
        evidence = ground(record, reading, drawn.schema)
        for pointer, value in wrong.items():
            kind = drawn.values[pointer].kind
            place = evidence.places[pointer]
            tally.invented[kind]["all"] += 1
            tally.invented[kind]["refused"] += place.match not in STANDS
            tally.invented[kind]["none"] += place.match is Match.NONE
            if place.match in STANDS:
                tally.failures.append(
                    f"{drawn.name}{pointer} {kind} invented {value!r} for {drawn.values[pointer].value!r}: {place.match} {place.text!r}"
                )
    for value in drawn.values.values():
        tally.earlier[value.kind].append(value.value)
    for one, other in exchanges(drawn):
        record = copy.deepcopy(drawn.record)
        first, second = drawn.values[one].value, drawn.values[other].value
        _put(record, one, second)
        _put(record, other, first)
        evidence = ground(record, reading, drawn.schema)
        counts = tally.exchanged[drawn.values[one].kind]
        counts["all"] += 1
        noticed = Match.NONE in (evidence.places[one].match, evidence.places[other].match)
        counts["noticed"] += noticed
        if not noticed:
            tally.failures.append(f"{drawn.name}{one} and {other} exchanged: {first!r} {second!r}")


def same_places(true: tuple[Box, ...], found: tuple[Box, ...]) -> bool:
    """Whether each true box has a found one of its own, of which the intersection is at least half the union."""
    left = list(found)
    for box in true:
        best = max(left, key=lambda each: overlap(box, each), default=None)
        if best is None or overlap(box, best) < 0.5:
            return False
        left.remove(best)
    return not left


def _worst(true: tuple[Box, ...], found: tuple[Box, ...]) -> str:
    return " ".join(f"{max((overlap(box, each) for each in found), default=0.0):.2f}" for box in true)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    wide = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    high = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    both = wide * high
    return both / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both)


def invent(drawn: Page, turn: int, rng: Generator, earlier: dict[str, list[Any]]) -> tuple[Any, dict[str, Any]]:
    """The page's record with each fourth value changed, and these values by pointer."""
    record, wrong = copy.deepcopy(drawn.record), {}
    true = {str(value.value) for value in drawn.values.values()}
    for at, (pointer, value) in enumerate(drawn.values.items()):
        if at % TURNS != turn or value.kind in NOT_WRITTEN:
            continue
        for _ in range(20):
            other = _other(value.kind, value.value, rng, earlier[value.kind])
            # A value that the page has elsewhere is no invention but an exchange.
            if other != value.value and str(other) not in true:
                wrong[pointer] = other
                _put(record, pointer, other)
                break
    return record, wrong


def _other(kind: str, value: Any, rng: Generator, earlier: list[Any]) -> Any:
    """Another value: of another picture, or with a digit, a day or a letter changed."""
    if earlier and rng.random() < 0.2:
        return earlier[int(rng.integers(len(earlier)))]
    if kind == "date":
        day = date.fromisoformat(value)
        moves = (timedelta(days=1), timedelta(days=-10), timedelta(days=31), timedelta(days=365))
        return (day + moves[int(rng.integers(4))]).isoformat()
    if isinstance(value, float):
        text = f"{Decimal(str(value)):.2f}"
        return float(_with_another_digit(text, rng))
    if isinstance(value, int):
        return int(_with_another_digit(str(value), rng))
    if kind in ("name", "text", "long text", "address", "mail"):
        return _misspelt(value, rng)
    return _with_another_digit(value, rng)


def _with_another_digit(text: str, rng: Generator) -> str:
    places = [at for at, letter in enumerate(text) if letter.isdigit()]
    at = places[int(rng.integers(len(places)))]
    return text[:at] + str((int(text[at]) + int(rng.integers(1, 10))) % 10) + text[at + 1 :]


def _misspelt(text: str, rng: Generator) -> str:
    places = [at for at, letter in enumerate(text) if letter.isascii() and letter.isalpha()]
    at = places[int(rng.integers(len(places)))]
    letter = string.ascii_lowercase[int(rng.integers(26))]
    kind = rng.integers(3)
    if kind == 0:
        return text[:at] + (letter if letter != text[at].lower() else "x" if letter != "x" else "k") + text[at + 1 :]
    return text[:at] + text[at + 1 :] if kind == 1 else text[:at] + letter + text[at:]


def exchanges(drawn: Page) -> Iterator[tuple[str, str]]:
    """Pairs of fields of one object that are of one kind and differ."""
    by_object: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pointer, value in drawn.values.items():
        if is_text(value.value) and value.kind not in NOT_WRITTEN:
            by_object[pointer.rsplit("/", 1)[0], value.kind].append(pointer)
    for pointers in by_object.values():
        for one, other in pairwise(pointers):
            if drawn.values[one].value != drawn.values[other].value:
                yield one, other


def _put(record: Any, pointer: str, value: Any) -> None:
    *path, last = pointer[1:].split("/")
    for part in path:
        record = record[int(part)] if isinstance(record, list) else record[part]
    record[last] = value


class Kept:
    """What the OCR read, from a folder if it is kept there."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._folder: Path | None = asked.kept
        self._only_kept: bool = asked.only_kept
        self._reader: Any = None

    def has(self, name: str) -> bool:
        """Whether the picture is to be measured."""
        return not self._only_kept or bool(self._folder and (self._folder / f"{name}.json").exists())

    def read(self, name: str, data: bytes) -> Reading:
        kept = self._folder / f"{name}.json" if self._folder else None
        if kept and kept.exists():
            return reading_of(msgspec.json.decode(kept.read_bytes(), type=OcrReply))
        if self._reader is None:
            from pipeline.engines.ocr.reader import Reader

            self._reader = Reader()
        reply: OcrReply = self._reader.read(data, lambda: True)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(msgspec.json.encode(reply))
        return reading_of(reply)


def _pages(asked: argparse.Namespace, read: Kept) -> Iterator[tuple[Page, Reading]]:
    for number in range(asked.pages):
        name = f"{asked.seed}-{number:04}"
        if read.has(name):
            drawn = page(asked.seed, number)
            yield drawn, read.read(name, drawn.data)


def _examples(read: Kept) -> Iterator[tuple[str, list[str], Reading]]:
    """Each picture of examples/ with the texts and the barcodes that a good reader finds there."""
    pillow_heif.register_heif_opener()
    for name, expected in json.loads((EXAMPLES / "expected.json").read_text()).items():
        if read.has(name):
            data = BytesIO()
            # The OCR takes the formats that staging converts to, so the pictures are converted as they would be there.
            with Image.open(EXAMPLES / name) as picture:
                ImageOps.exif_transpose(picture).convert("RGB").save(data, "PNG", compress_level=1)
            codes = [code["text"] for code in expected["barcodes"]]
            yield name, [*expected["contains"], *codes], read.read(name, data.getvalue())


def _show(figures: dict[str, Any]) -> None:
    console = Console(width=130)
    console.print(
        f"Evidence on {figures['pages']} drawn pages\n{machine()}\n$ python -m bench.evidence {' '.join(sys.argv[1:])}".rstrip()
    )
    table = Table(
        "kind of value",
        "values",
        "found, right box",
        "exact",
        "equivalent",
        "fuzzy",
        "none",
        "inventions",
        "refused",
        "exchanges",
        "noticed",
    )
    for kind, each in figures["kinds"].items():
        true, invented, exchanged = each["true"], each["invented"], each["exchanged"]
        table.add_row(
            kind,
            str(true["all"]),
            _percent(true.get("right", 0), true["all"]),
            *(str(true.get(name, 0)) for name in ("exact", "equivalent", "fuzzy", "none")),
            str(invented.get("all", 0)),
            _percent(invented.get("refused", 0), invented.get("all", 0)),
            str(exchanged.get("all", 0)),
            _percent(exchanged.get("noticed", 0), exchanged.get("all", 0)),
        )
    console.print(table)
    for name, value in figures["whole"].items():
        goal = f" (goal {GOALS[name]})" if name in GOALS else ""
        console.print(f"{name}: {value}{goal}")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


if __name__ == "__main__":
    main()
