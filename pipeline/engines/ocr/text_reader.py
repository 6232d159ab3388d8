"""Gives what the OCR reads in a picture as the search for evidence takes it."""

from __future__ import annotations

import threading
from pathlib import Path

from pipeline.engines.ocr.engine import OcrEngine
from pipeline.engines.ocr.wire import Box, OcrReply
from pipeline.errors import Permanent
from pipeline.evidence.types import Code, Line, Quad, Reading
from pipeline.ports import ModelFault

LONGEST_DETAIL = 200  #: characters of the OCR's own words about a picture that it can't read


class OcrTextReader:
    """Implements pipeline.ports.TextReader. It makes its engine for the first picture, because most processes never read one."""

    def __init__(self, directory: Path) -> None:
        """`directory`: as OcrEngine has it. All readers and engines with the same directory share one server."""
        self._directory = directory
        self._lock = threading.Lock()
        self._engine: OcrEngine | None = None

    def read(self, data: bytes, *, timeout: float) -> Reading:
        said = self._opened().read(data, timeout=timeout)
        if said.kind != "reading":
            raise ModelFault(f"The OCR can't read the picture: {said.detail[:LONGEST_DETAIL]}")
        return reading_of(said)

    def close(self) -> None:
        with self._lock:
            if self._engine:
                self._engine.close()

    def _opened(self) -> OcrEngine:
        with self._lock:
            if self._engine is None:
                try:
                    self._engine = OcrEngine(self._directory)
                except OSError as error:
                    raise Permanent(f"The OCR engine can't be started: {error}") from error
            return self._engine


def reading_of(reply: OcrReply) -> Reading:
    """The reading in a reply of the kind `reading`."""
    return Reading(
        size=reply.size,
        lines=tuple(
            Line(text=line.text, box=_quad(line.box), confidence=line.confidence, places=places)
            for line, places in zip(reply.lines, reply.places, strict=True)
        ),
        codes=tuple(Code(text=code.text, box=_quad(code.box)) for code in reply.barcodes),
        doubtful=reply.doubtful,
    )


def _quad(box: Box) -> Quad:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = box
    return ((ax, ay), (bx, by), (cx, cy), (dx, dy))
