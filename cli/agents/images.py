"""The images that an agent names in a call: URLs, files of this machine, or base64."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from cli.client import File
from cli.run.scan import as_text
from pipeline.decode.sniff import sniff
from pipeline.types import MAX_IMAGE_BYTES, MAX_IMAGES, MAX_TOTAL_BYTES, MB, Refused

HEAD = 4096  #: bytes that decide the format of nearly every file
LIMITS = f"at most {MAX_IMAGES} images, {MAX_IMAGE_BYTES // MB} MB each and {MAX_TOTAL_BYTES // MB} MB together"


class Inline(BaseModel, extra="forbid"):
    """An image that is part of the call."""

    name: str = Field(description="What to call the image in the results, such as receipt.jpg.", max_length=256)
    data: str = Field(description="The image's bytes as base64, without a data: prefix.")


def images_of(urls: Sequence[str], paths: Sequence[str], inline: Sequence[Inline]) -> list[File | str]:
    """The images of the call. Raises ToolError if they are of several kinds, too many, too large, or no images."""
    given = [kind for kind in (urls, paths, inline) if kind]
    if len(given) != 1:
        what = "No images were given." if not given else "Images of several kinds can't be in one job."
        raise ToolError(f"{what} Call the tool with exactly one of urls, paths and inline.")
    if len(given[0]) > MAX_IMAGES:
        raise ToolError(f"{len(given[0])} images are too many: {LIMITS}. Call the tool several times with fewer images.")
    if urls:
        return list(urls)
    files = [_file(path) for path in paths] or [_inline(image) for image in inline]
    total = sum(file.size for file in files)
    if total > MAX_TOTAL_BYTES:
        raise ToolError(f"The images have {total / MB:.0f} MB together: {LIMITS}. Call the tool several times with fewer images.")
    return list(files)


def _file(named: str) -> File:
    """A file of this machine. It is read with the rights of the user who started the server, and only if it is an image."""
    path = Path(named).expanduser()
    try:
        # Opening a pipe would wait for its writer, so the kind is checked first. `fstat` checks it again on what was opened.
        if not stat.S_ISREG(path.stat().st_mode):
            what = "a folder. Name its files, or let the user run `extract-image run`" if path.is_dir() else "not a regular file"
            raise ToolError(f"{named} is {what}.")
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            facts = os.fstat(file.fileno())
            head = file.read(HEAD)
            refused = isinstance(sniff(head), Refused)
            if refused and stat.S_ISREG(facts.st_mode) and facts.st_size <= MAX_IMAGE_BYTES:
                refused = isinstance(sniff(head + file.read(MAX_IMAGE_BYTES)), Refused)  # a TGA is known only by its whole file
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        text = f"{named} can't be read: {reason}. Paths are those of the machine on which this server runs; use absolute ones."
        raise ToolError(text) from None
    if facts.st_size > MAX_IMAGE_BYTES:
        raise ToolError(f"{named} has {facts.st_size / MB:.1f} MB: {LIMITS}. Leave it out, or have it made smaller.")
    if not stat.S_ISREG(facts.st_mode) or refused:
        raise ToolError(f"{named} is not an image that the service reads, so it is not sent. Leave it out.")
    return File(name=as_text(path.name), source=path, size=facts.st_size)


def _inline(image: Inline) -> File:
    try:
        data = base64.b64decode("".join(image.data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ToolError(f"{image.name} is not valid base64: {error}. Send its bytes as standard base64 with padding.") from None
    if not data or len(data) > MAX_IMAGE_BYTES:
        raise ToolError(f"{image.name} has {len(data)} bytes: {LIMITS}, and none may be empty.")
    return File(name=image.name, source=data, size=len(data))
