"""An OCR server that a picture takes over: the picture is Python code (tests/fakes/taken_over.py), and its answer what came of it."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.engines.ocr import start
from pipeline.engines.ocr.wire import OcrReply
from tests.fakes import taken_over


class TakenOver:
    model_version = "taken over"

    def read(self, data: bytes, still_wanted: Callable[[], bool]) -> OcrReply:
        return OcrReply(kind="unreadable", detail=taken_over.run(data.decode()))


if __name__ == "__main__":
    start.main(TakenOver)
