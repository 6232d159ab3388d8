"""The calls of a chunk that are still to be made, and what was tried already.

It is stored with each outcome. If a time slice ends early (the model is unavailable, a worker dies), the next one resumes from
it. So a refused group is not sent again, and the limits on retries hold across time slices.
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
    """The images of one call that is still to be made."""

    images: Group
    beside: Group = ()  #: the first half, if `images` is the second half of a group that the model refused


@dataclass(kw_only=True, slots=True)
class Progress:
    """The state of a chunk's calls. Every image without an outcome appears in exactly one planned call."""

    planned: deque[PlannedCall] = field(default_factory=deque)
    culprits: set[int] = field(default_factory=set)  #: images that the model refused when they were sent alone
    faults: Counter[int] = field(default_factory=Counter)  #: by image: how many calls with it ended in a ModelFault
    spoiled: Counter[int] = field(default_factory=Counter)  #: by image: how many answers about it were not valid JSON
    re_asked: Counter[int] = field(default_factory=Counter)  #: by image: how often its result was asked for again
    wrong: dict[int, str] = field(default_factory=dict)  #: by image: why its last result was refused

    def next(self) -> Group | None:
        """The images of the next call. None if no call is left.

        If the model refused a group and its first half had no culprit, the second half must have one. So the second half is
        bisected at once, and never sent as a whole.
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
        """Plans both halves of a group that the model refused, the smaller half first.

        If the first half has no culprit, the second half is not sent as a whole. So one culprit among n images is found in
        2 log2(n) calls.
        """
        first, second = halves(group)
        self.planned.extendleft((PlannedCall(second, first), PlannedCall(first)))

    def kept(self) -> dict[str, Any]:
        """Returns the state as JSON values, without the counts of images that have an outcome."""
        left = {index for call in self.planned for index in call.images}
        by_image = {name: getattr(self, name) for name in (*COUNTERS, "wrong")}
        return {
            "planned": [[call.images, call.beside] for call in self.planned],
            "culprits": sorted(self.culprits),
            **{name: {str(index): kept[index] for index in left if index in kept} for name, kept in by_image.items()},
        }

    @classmethod
    def of(cls, kept: Mapping[str, Any], *, open_: Container[int]) -> Self:
        """Restores what `kept` returned, for the images in `open_`."""
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
