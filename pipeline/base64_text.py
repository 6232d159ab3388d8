"""Base64 texts to bytes, quickly (pybase64)."""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator

import pybase64

from pipeline.packed import PackReader
from pipeline.request import base64_payload
from pipeline.types import Failure, Fetched, ItemCode


def decode_texts(texts: PackReader, indexes: Iterable[int]) -> Iterator[Fetched | Failure]:
    """The bytes of each text, one after the other. The front door has checked them; what still fails, fails alone."""
    for index in indexes:
        try:
            data = pybase64.b64decode(base64_payload(texts.read(index)), validate=True)
        except (binascii.Error, ValueError) as error:
            yield Failure(index=index, code=ItemCode.IMAGE_CORRUPT, detail=f"This is not valid base64: {error}")
        else:
            yield Fetched(index=index, data=data)
