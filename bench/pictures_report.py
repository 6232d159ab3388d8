"""Prints what bench.pictures has seen, in tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.pictures_explained import refusal
from bench.report import machine
from pipeline.types import ItemCode

_SLOWEST = 20.0  # seconds that a picture may take


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The outcome for one picture."""

    name: str
    kind: str  #: the format, empty if it is none that the service takes
    seconds: float  #: time of the slower of the two ways
    outcome: str = ""  #: `as it came`, `converted`, `wrong`, `fault`, or an item code
    told: str = ""  #: what is wrong, or the detail of a refusal
    openers: tuple[str, ...] = ()  #: the other decoders that open the picture
    agree: tuple[str, ...] = ()  #: those of them that show the same

    def but(self, **changes: Any) -> Seen:
        return replace(self, **changes)

    @property
    def crashed(self) -> bool:
        return self.outcome == ItemCode.IMAGE_CRASHED_DECODER

    @property
    def refused(self) -> bool:
        return self.outcome in set(ItemCode)

    @property
    def opened_elsewhere(self) -> bool:
        """Whether Pillow and a second decoder open what we refuse."""
        return self.refused and "Pillow" in self.openers and len(self.openers) > 1


def report(seen: Sequence[Seen], *, missing: Sequence[str], decoders: Mapping[str, str], seconds: float) -> bool:
    """Prints the tables. Gives whether nothing is wrong."""
    console = Console(width=130)
    console.print(f"{len(seen)} pictures, each by base64 and by URL, in {seconds:.0f} s\n{machine()}\n$ python -m bench.pictures")
    console.print(f"Compared with Pillow and {' and '.join(decoders)}.")
    for name in missing:
        console.print(f"Could not be fetched, so its pictures are not among them: {name}")
    wrong = [one for one in seen if one.outcome in {"wrong", "fault"}]
    crashes = [one for one in seen if one.crashed]
    slow = [one for one in seen if one.seconds >= _SLOWEST]
    table = Table("what", "pictures", "slowest", "goal")
    outcomes: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        outcomes[one.outcome].append(one)
    for outcome, group in sorted(outcomes.items(), key=lambda item: -len(item[1])):
        if outcome not in {"wrong", "fault"}:
            table.add_row(outcome, str(len(group)), f"{max(one.seconds for one in group):.1f} s", "")
    unexplained = [one for one in seen if one.opened_elsewhere and not refusal(ItemCode(one.outcome), one.told)]
    for what, group in (
        ("wrong pixels", wrong),
        ("crashes", crashes),
        (f"over {_SLOWEST:.0f} s", slow),
        ("refused though others open it, unexplained", unexplained),
    ):
        table.add_row(what, str(len(group)), "", "0")
    console.print(table)
    _print_agreement(console, seen)
    _print_refusals(console, seen)
    for one in (*wrong, *crashes, *slow):
        console.print(f"WRONG  {one.name}: {one.kind} {one.outcome} {one.told}", soft_wrap=True)
    for one in unexplained:
        console.print(f"UNEXPLAINED  {one.name}: {one.kind} {one.outcome} {one.told}", soft_wrap=True)
    return not (wrong or crashes or slow or unexplained)


def _print_agreement(console: Console, seen: Sequence[Seen]) -> None:
    converted = [one for one in seen if one.outcome == "converted"]
    table = Table("converted pictures", "pictures", "formats")
    groups: dict[str, list[Seen]] = defaultdict(list)
    for one in converted:
        agreed = "agree with " + ", ".join(one.agree) if one.agree else one.told or "opened by no other decoder"
        if one.agree == ("Pillow",):
            agreed = "agree with Pillow; " + (
                "the second decoder differs" if len(one.openers) > 1 else "no other decoder opens it"
            )
        groups[agreed].append(one)
    for agreed, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        formats = Counter(one.kind for one in group)
        table.add_row(agreed, str(len(group)), ", ".join(f"{kind} {count}" for kind, count in formats.most_common(8)))
    console.print(table)


def _print_refusals(console: Console, seen: Sequence[Seen]) -> None:
    table = Table("refused, though Pillow and a second decoder open it", "pictures", "why")
    kinds = Counter(found for one in seen if one.opened_elsewhere and (found := refusal(ItemCode(one.outcome), one.told)))
    for found, count in kinds.most_common():
        table.add_row(found.kind, str(count), found.why)
    console.print(table)
