"""Finds out how many pictures a model takes in one call, while a chunk is asked about. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.asking.progress import Group
from pipeline.types import Reply

ENOUGH = 2  #: refused groups without a culprit, from which follows that the model takes one picture in a call


@dataclass(kw_only=True, slots=True)
class CallSize:
    """The most pictures in a call, and what was seen of it. A server that takes one picture does not always say so."""

    most: int
    alone: set[int] = field(default_factory=set)  #: images that were answered alone in their call
    suspect: list[Group] = field(default_factory=list)  #: refused groups
    together: bool = False  #: whether a call with several pictures was answered
    learnt: bool = False  #: whether it was found out that the model takes one picture

    def refused(self, group: Group, *, at_most: int | None = None) -> None:
        """The model refused a group. `at_most`: how many pictures it takes, if it says so."""
        if len(group) < 2:
            return
        if at_most is not None:
            self.most = min(self.most, at_most)
        elif group not in self.suspect:
            self.suspect.append(group)

    def is_one_after(self, group: Group, replies: Sequence[Reply]) -> bool:
        """Takes note of a group's replies. Returns True once: when the model was seen to take no more than one picture in a call.

        This is so if it refused several groups, then answered each of their images alone, and never several together.
        """
        if replies and len(group) == 1:
            self.alone.update(group)
        self.together |= bool(replies) and len(group) > 1
        innocent = [group for group in self.suspect if self.alone.issuperset(group)]
        if self.learnt or self.together or len(innocent) < ENOUGH:
            return False
        self.most, self.learnt = 1, True
        return True


def pieces(group: Group, most: int) -> list[Group]:
    """Neighbouring parts of a group with at most `most` images each."""
    return [group[start : start + most] for start in range(0, len(group), most)]
