"""An OCR in memory. It reads the bytes of a picture as its text."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pipeline.evidence.types import Line, Reading
from pipeline.ports import ModelFault

WIDTH, HEIGHT = 200, 100  #: of every picture, in pixels
LINE = 20  #: pixels of a line's height


class FakeTextReader:
    """Each line of a picture's bytes is a line of text. `script(data, number)` may give another reading or an exception instead."""

    def __init__(self, script: Callable[[bytes, int], Reading | Exception | None] | None = None) -> None:
        self.pictures: list[bytes] = []  #: that were read, in order
        self._script = script or (lambda _data, _number: None)
        self._lock = threading.Lock()

    def read(self, data: bytes, *, timeout: float) -> Reading:
        with self._lock:
            self.pictures.append(data)
            number = len(self.pictures)
        special = self._script(data, number)
        if isinstance(special, Exception):
            raise special
        return special or reading_of_text(data)

    def close(self) -> None:
        """Does nothing, because the fake holds no resources."""


def reading_of_text(data: bytes, *, confidence: float = 0.99, doubtful: bool = False) -> Reading:
    """The reading of a picture whose bytes are its text. Raises ModelFault for bytes that are no text."""
    try:
        texts = data.decode().splitlines()
    except UnicodeDecodeError:
        raise ModelFault("The OCR can't read the picture: it is none") from None
    lines = tuple(
        Line(
            text=text,
            box=((0, LINE * at), (WIDTH, LINE * at), (WIDTH, LINE * (at + 1)), (0, LINE * (at + 1))),
            confidence=confidence,
        )
        for at, text in enumerate(texts)
    )
    return Reading(size=(WIDTH, HEIGHT), lines=lines, doubtful=doubtful)
