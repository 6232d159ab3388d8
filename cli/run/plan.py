"""Cuts the images into jobs that fit the limits of a request, and gives each job its key. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.client import Formats
from cli.run.options import digest
from cli.run.types import Image

LONGEST_CUSTOM_ID = 256  #: characters
MOST_NAME_BYTES = 1 << 20  #: of all names of a job; the service takes 2 MB of fields
KEEP_SECONDS = 3600  #: how long the service keeps the files of a job for another try
#: A larger run does not ask for its files to be kept, because they would fill the service's scratch and hold up the run itself.
MOST_KEPT_BYTES = 2 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What fits into a request."""

    images: int
    image_bytes: int  #: of one image
    total_bytes: int  #: of all images together

    @classmethod
    def of(cls, formats: Formats, most: int | None) -> Limits:
        """What the service takes. `most`: the user wants no more images in a job."""
        images = min(formats.max_images, most or formats.max_images)
        return cls(images=images, image_bytes=formats.max_image_bytes, total_bytes=formats.max_total_bytes)


def how_many_fit(sizes: Iterable[tuple[str, int]], limits: Limits) -> int:
    """How many of the images, given as (name, bytes), the next job takes. At least 1, if there is one."""
    count = total = names = 0
    for name, size in sizes:
        total += size
        names += 4 + len(name.encode())
        if count and (count >= limits.images or total > limits.total_bytes or names > MOST_NAME_BYTES):
            break
        count += 1
    return count


def job_sizes(sizes: Iterable[tuple[bool, str, int]], limits: Limits) -> Iterator[int]:
    """How many images each job of a run will have. `sizes`: for each image whether it is a URL, its name, its bytes."""
    kind = False
    count = total = names = 0
    for is_url, name, size in sizes:
        names_after = names + 4 + len(name.encode())
        full = count >= limits.images or total + size > limits.total_bytes or names_after > MOST_NAME_BYTES
        if count and (full or is_url != kind):
            yield count
            count = total = names = 0
        kind, count, total, names = is_url, count + 1, total + size, names + 4 + len(name.encode())
    if count:
        yield count


def custom_id(name: str) -> str:
    """The name as the service takes it. Of a longer name, the end is kept, because it differs more than the beginning."""
    return name if len(name) <= LONGEST_CUSTOM_ID else f"…{name[1 - LONGEST_CUSTOM_ID :]}"


def job_fields(
    common: Mapping[str, Any], images: Sequence[Image], *, keep: bool, max_money: float | None, of_images: int
) -> dict[str, Any]:
    """The fields of one job's request. `max_money`: dollars for all `of_images` images of the run; the job gets its share."""
    fields = {**common, "customIds": [custom_id(image.name) for image in images]}
    if keep:
        fields["keepInputsSeconds"] = KEEP_SECONDS
    if max_money:
        fields["maxMoney"] = round(max_money * len(images) / max(of_images, len(images)), 6)
    return fields


def job_key(fields: Mapping[str, Any], images: Sequence[Image], *, salt: str) -> str:
    """The idempotency key of a job. The same content gives the same key, so it is never paid twice, even without the state file.

    `tries` is part of it, because another try of a failed image is a new job. `salt` makes the keys of a --restart new.
    """
    content = [[image.sha256 or image.source, image.tries] for image in images]
    return f"run-{digest([dict(fields), content, salt])}"
