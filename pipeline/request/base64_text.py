"""Reads the images that came with a request: decodes base64 texts (by pybase64, because it is fast), and copies files."""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator

import pybase64

from pipeline.packed import PackReader
from pipeline.request.check import base64_payload
from pipeline.types import Failure, Fetched, ItemCode


def decode_texts(texts: PackReader, indexes: Iterable[int]) -> Iterator[Fetched | Failure]:
    """Yields the bytes of each image in turn, none for an empty text. A text that does not decode is a Failure of its image alone.

    Such texts are rare, because the API has checked all texts when it accepted the request.
    """
    for index in indexes:
        if texts.entries[index].facts.get("raw"):  # a file
            yield Fetched(index=index, data=texts.read(index))
            continue
        try:
            payload = base64_payload(texts.read(index).strip())
            data = pybase64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError) as error:
            yield Failure(index=index, code=ItemCode.IMAGE_CORRUPT, detail=f"This is not valid base64: {error}")
        else:
            yield Fetched(index=index, data=data)
