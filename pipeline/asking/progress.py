"""What of a chunk is still to be asked, and what was tried already.

It is kept with each outcome, so that a time slice that ends early (the model is away, a worker dies) is gone on from: what was
refused is not sent again, and nobody is asked more often than he may be.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pipeline.plan import halves

COUNTERS = ("faults", "spoiled", "re_asked")

Group = tuple[int, ...]  #: images of one call, by their index in the job


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """Images to be sent together."""

    images: Group
    beside: Group = ()  #: the first half of a refused set whose second half this is


@dataclass(kw_only=True, slots=True)
class Progress:
    """Each image that is open is in exactly one of the planned calls."""

    planned: deque[PlannedCall] = field(default_factory=deque)
    culprits: set[int] = field(default_factory=set)  #: refused alone
    faults: Counter[int] = field(default_factory=Counter)  #: by image: calls with it that the model failed on
    spoiled: Counter[int] = field(default_factory=Counter)  #: by image: answers with it that were no JSON
    re_asked: Counter[int] = field(default_factory=Counter)  #: by image: how often it was asked for again by itself
    wrong: dict[int, str] = field(default_factory=dict)  #: by image: what its last result was refused for

    def next(self) -> Group | None:
        """The images of the next call; None when all are settled.

        Of a set that was refused the second half holds a culprit if the first one held none: it is not sent as a whole.
        """
        while self.planned:
            call = self.planned.popleft()
            if len(call.images) > 1 and call.beside and self.culprits.isdisjoint(call.beside):
                self.bisect(call.images)
                continue
            return call.images
        return None

    def ask_next(self, *groups: Group) -> None:
        self.planned.extendleft(PlannedCall(group) for group in reversed(groups))

    def bisect(self, group: Group) -> None:
        """Both halves next, after one of the images has made the model refuse them all. The smaller one first: where it
        is clear, the other one costs no call. So a culprit among n is found in 2 log2(n) calls."""
        first, second = halves(group)
        self.planned.extendleft((PlannedCall(second, first), PlannedCall(first)))

    def kept(self) -> dict[str, Any]:
        """As JSON: of those that are open."""
        left = {index for call in self.planned for index in call.images}
        by_image = {name: getattr(self, name) for name in (*COUNTERS, "wrong")}
        return {
            "planned": [[call.images, call.beside] for call in self.planned],
            "culprits": sorted(self.culprits),
            **{name: {str(index): kept[index] for index in left if index in kept} for name, kept in by_image.items()},
        }

    @classmethod
    def of(cls, kept: Mapping[str, Any], *, open_: Container[int]) -> Self:
        """What `kept` gave, of the images that are open."""
        left = (PlannedCall(_those(images, open_), tuple(beside)) for images, beside in kept["planned"])
        counters = {
            name: Counter({int(index): times for index, times in kept[name].items()})
            for name in ("faults", "spoiled", "re_asked")
        }
        return cls(
            planned=deque(call for call in left if call.images),
            culprits=set(kept["culprits"]),
            wrong={int(index): text for index, text in kept["wrong"].items()},
            **counters,
        )


def _those(indexes: Iterable[int], open_: Container[int]) -> Group:
    return tuple(index for index in indexes if index in open_)
