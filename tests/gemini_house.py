"""The whole service in one process. It sends numbered pictures to the fake Gemini with the real SDK."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.engines.gemini import GeminiEngine
from pipeline.engines.governed import GovernedEngine
from pipeline.engines.limiter import LocalLimiter
from pipeline.models import KNOWN
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.fakes.gemini_pictures import sniff
from tests.fakes.images import fake_decode
from tests.harness import Harness, running

MODEL = "gemini-3.5-flash-lite"
RECORD = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}


#: A decoder that accepts all bytes which begin like a picture. The fake Gemini checks that they decode.
take = functools.partial(fake_decode, mime_of=sniff, size=(64, 48))


@contextmanager
def gemini_house(folder: Path, fake: FakeGemini, **options: Any) -> Iterator[Harness]:
    """Runs the service. `options` are those of `running`. At the end, it checks that no call broke Gemini's contract."""
    gemini = GeminiEngine(api_key=fake.key, model=MODEL, base_url=fake.base_url)
    engine = GovernedEngine(gemini, limiter=LocalLimiter(concurrency=100), models=KNOWN, pause=lambda _seconds: None)
    try:
        with running(folder, engine=engine, **options) as house:
            house.work = replace(house.work, decode=take)
            yield house
    finally:
        engine.close()
    assert fake.faults == []
    assert fake.refused == []


@functools.cache
def picture(number: int, pad_to: int | None = None) -> bytes:
    return numbered_picture(number, pad_to=pad_to)


def numbered_urls(house: Harness, count: int) -> list[str]:
    """`count` URLs that serve the pictures 0, 1 and so on."""
    return [house.page(f"https://pictures.example/{n}.png", picture(n)) for n in range(count)]
