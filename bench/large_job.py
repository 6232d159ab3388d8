"""Compares the time of a job of 3000 URLs, from POST to result, with the time of the model calls alone.

The fake model answers after 1.0 s. With 16 images in a call, the job needs 188 calls. With 32 calls at once, they take 6.0 s.
For comparison, the bench also runs a script that a user might write: asyncio with google-genai. The script fetches nothing,
checks nothing, and loses everything when it ends. The two take turns. The fake model and the pictures have their own processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path

from bench.report import at_most, print_report, spread
from bench.web import IMAGES, beside, web
from testbed import FakeGemini, FlexServer, numbered_picture, serving

PER_CALL, AT_ONCE, LATENCY = 16, 32, 1.0
FLEX_FACTOR = 1 / 30  #: so that calls in the tier economy are answered after 2 to 30 s
IDEAL = ceil(ceil(IMAGES / PER_CALL) / AT_ONCE) * LATENCY


def outside(latency: float) -> None:
    """Runs the fake model's process. It prints the model's address and key, and ends when standard input closes."""
    with FakeGemini(latency=latency) as fake:
        fake.flex = FlexServer(factor=FLEX_FACTOR)
        print(json.dumps({"model": fake.base_url, "key": fake.key}), flush=True)
        sys.stdin.read()


@contextmanager
def others(latency: float = LATENCY) -> Iterator[dict[str, str]]:
    """Starts the processes of the model and of the pictures. Gives their addresses. `latency`: seconds of each model call."""
    with beside("bench.large_job", "--outside", str(latency)) as model, web("numbered") as port:
        yield json.loads(model) | {"web": f"http://127.0.0.1:{port}", "allow": f"127.0.0.1/32:{port}"}


def through_service(place: dict[str, str]) -> float:
    """Seconds from POST to the answer, after a warm-up request."""
    settings = {
        "GEMINI_API_KEY": place["key"],
        "GEMINI_BASE_URL": place["model"],
        "FETCH_ALLOW": place["allow"],
        "MERGED_PER_CALL": str(PER_CALL),
        "WORKER_CONCURRENCY": str(2 * AT_ONCE),
        "MODEL_CONCURRENCY": str(AT_ONCE),
    }
    body = {"inputMethod": "url", "images": [f"{place['web']}/{n}.jpg" for n in range(IMAGES)], "prompt": "Which number?"}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data", **settings) as service:
        warm = {**body, "images": body["images"][:1]}
        assert service.extract(warm)[0] == 200
        started = time.perf_counter()
        status, _, answer = service.extract(body)
        seconds = time.perf_counter() - started
        assert (status, answer["imageCount"]) == (200, IMAGES)
    return seconds


def through_script(place: dict[str, str]) -> float:
    """Seconds of the asyncio script. Its images are already in memory."""
    from google import genai
    from google.genai import types

    images = [numbered_picture(number, format="JPEG", pad_to=30_000) for number in range(IMAGES)]

    async def run() -> None:
        client = genai.Client(
            api_key=place["key"], http_options=types.HttpOptions(base_url=place["model"], api_version="v1beta", timeout=60_000)
        )
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(first: int) -> None:
            parts = [types.Part.from_text(text="Which number?")]
            for label, data in enumerate(images[first : first + PER_CALL], start=first + 1):
                parts += [types.Part.from_text(text=f"Image {label}:"), types.Part.from_bytes(data=data, mime_type="image/jpeg")]
            async with gate:
                await client.aio.models.generate_content(
                    model="gemini-3.5-flash-lite", contents=types.Content(role="user", parts=parts)
                )

        await asyncio.gather(*(ask(first) for first in range(0, IMAGES, PER_CALL)))

    started = time.perf_counter()
    asyncio.run(run())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--outside", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.outside is not None:
        outside(options.outside)
        return
    service: list[float] = []
    script: list[float] = []
    with others() as place:
        for _ in range(options.runs):
            service.append(through_service(place))
            script.append(through_script(place))
    ratios = [mine / theirs for mine, theirs in zip(service, script, strict=True)]
    print_report(
        f"{IMAGES} URLs of 30 KB, {PER_CALL} a call, {AT_ONCE} calls at once, model {LATENCY} s; ideal {IDEAL:.1f} s",
        [
            ("POST to result", spread(service, "s"), at_most(round(1.1 * IDEAL + 1, 1))),
            ("an asyncio script, images in memory", spread(script, "s"), ""),
            ("service / script, pair by pair", spread(ratios, "x"), at_most(0.98)),
        ],
    )


if __name__ == "__main__":
    main()
