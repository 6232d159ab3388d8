"""Divides a job into chunks when it is accepted, and a chunk into calls. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.types import Staged

RAW_BYTES = 14_000_000  #: of all pictures in one call, because a request must stay below 20 MB, including the base64


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkPlan:
    """A chunk: consecutive images that are staged and leased together."""

    no: int  #: from 0
    first: int  #: index of its first image
    count: int


def cut(images: int, size: int) -> list[ChunkPlan]:
    """Chunks of `size` images in order. The last one may be smaller. Every image is in exactly one chunk."""
    return [ChunkPlan(no=no, first=first, count=min(size, images - first)) for no, first in enumerate(range(0, images, size))]


def pack_calls(staged: Sequence[Staged], *, pictures: int, raw_bytes: int) -> list[tuple[Staged, ...]]:
    """Groups consecutive images into calls of at most `pictures` images and `raw_bytes` bytes.

    An image larger than `raw_bytes` gets a call of its own, because its engine handles such images separately. The grouping is
    greedy, which gives the fewest calls for consecutive images.
    """
    calls: list[tuple[Staged, ...]] = []
    group: list[Staged] = []
    weight = 0
    for image in staged:
        if group and (len(group) >= pictures or weight + image.size > raw_bytes):
            calls.append(tuple(group))
            group, weight = [], 0
        group.append(image)
        weight += image.size
    if group:
        calls.append(tuple(group))
    return calls


def halves(group: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The halves of a group of two or more. If they differ, the second one is larger, because `Progress.bisect` needs it so."""
    middle = len(group) // 2
    return group[:middle], group[middle:]
