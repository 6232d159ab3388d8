"""How a job is cut: into chunks at accept, and a chunk into calls. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.types import Staged

RAW_BYTES = 14_000_000  #: of the pictures of one call: a request must stay below 20 MB, base64 and all


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkPlan:
    """A run of neighbouring images: the unit of staging and leasing."""

    no: int  #: from 0
    first: int  #: index of its first image
    count: int


def cut(images: int, size: int) -> list[ChunkPlan]:
    """Chunks of `size` images in order, the last one smaller; every image in exactly one."""
    return [ChunkPlan(no=no, first=first, count=min(size, images - first)) for no, first in enumerate(range(0, images, size))]


def pack_calls(staged: Sequence[Staged], *, pictures: int, raw_bytes: int) -> list[tuple[Staged, ...]]:
    """Groups neighbours into calls of at most `pictures` images and `raw_bytes` bytes.

    An image larger than `raw_bytes` by itself makes a call of its own: its engine has another way for it. Greedy in
    order, which is optimal in the number of calls for neighbours.
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
    """Two parts of a group of two or more, the second one the larger: see `Progress.bisect`."""
    middle = len(group) // 2
    return group[:middle], group[middle:]
