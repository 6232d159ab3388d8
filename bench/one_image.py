"""Measures requests of one 100 KB base64 image: one client with an instant model, and 32 clients with a 1.0 s model."""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.report import print_report, spread
from testbed import FakeGemini, Service, numbered_picture, postgres, production, seaweedfs, serving

CLIENTS, LATENCY = 32, 1.0
REQUESTS = 100
RATE_LIMIT = "100000/minute"
GOALS = {"embedded": ("40 ms", ""), "production": ("25 ms", "80 ms")}
WARM_UP, SECONDS = 3.0, 10.0  #: the rate is measured for SECONDS, after WARM_UP seconds


def latencies(service: Service, body: bytes) -> list[float]:
    """Milliseconds of each request on one connection, after 20 warm-up requests."""
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    taken = []
    for number in range(REQUESTS + 20):
        started = time.perf_counter()
        connection.request("POST", "/api/v1/extract-image", body, {"Authorization": f"Bearer {service.key}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        if number >= 20:
            taken.append((time.perf_counter() - started) * 1000)
    connection.close()
    return taken


def crowd(service: Service, body: bytes) -> tuple[float, float]:
    """Runs CLIENTS clients that start at the same moment. Each sends its next image once the one before is answered.

    Returns the seconds until all have their first answer, and then the answers per second.
    """
    first: list[float] = []
    answered: list[float] = []
    started = time.perf_counter()
    begin, end = started + WARM_UP, started + WARM_UP + SECONDS

    def client(_number: int) -> None:
        assert service.extract(body)[0] == 200
        first.append(time.perf_counter() - started)
        while time.perf_counter() < end:
            assert service.extract(body)[0] == 200
            answered.append(time.perf_counter())

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))  # raises the exception of a client that failed
    return max(first), sum(begin <= at < end for at in answered) / SECONDS


@contextmanager
def parts(name: str, folder: Path, fake: FakeGemini) -> Iterator[Service]:
    """Runs the service with `embedded` or `production` parts."""
    if name == "embedded":
        settings = {"GEMINI_API_KEY": fake.key, "GEMINI_BASE_URL": fake.base_url, "RATE_LIMIT": RATE_LIMIT}
        with serving(folder / "data", **settings) as service:
            yield service
        return
    processes = ("web-1", "worker-1", "supervisor")
    with (
        postgres(fsync=True) as server,
        seaweedfs(folder / "weed") as s3,
        production(folder / "bench", server=server, s3=s3, fake=fake, names=processes, RATE_LIMIT=RATE_LIMIT) as cluster,
    ):
        yield cluster.client("web-1", cluster.new_key())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--parts", choices=GOALS, default="embedded", help="production: Postgres, Valkey and SeaweedFS on loopback"
    )
    options = parser.parse_args()
    image = base64.b64encode(numbered_picture(1, format="JPEG", pad_to=100_000)).decode()
    body = json.dumps({"inputMethod": "base64", "images": [image], "prompt": "p"}).encode()
    medians, tails, bursts, rates = [], [], [], []
    with FakeGemini() as fake, tempfile.TemporaryDirectory() as folder, parts(options.parts, Path(folder), fake) as service:
        for _ in range(options.runs):
            fake.latency = 0.0
            taken = latencies(service, body)
            medians.append(statistics.median(taken))
            tails.append(sorted(taken)[int(len(taken) * 0.99) - 1])
            fake.latency = LATENCY
            burst, rate = crowd(service, body)
            bursts.append(burst)
            rates.append(rate)
    most = CLIENTS / LATENCY
    median, tail = GOALS[options.parts]
    print_report(
        f"One image of 100 KB a request, {options.parts} parts, {options.runs} runs of {REQUESTS}",
        [
            ("POST to 200, median", spread(medians, "ms", 1), median),
            ("POST to 200, 99th percentile", spread(tails, "ms", 1), tail),
            (f"{CLIENTS} clients at the same moment, until all are answered", spread(bursts, "s", 2), ""),
            (
                f"the same, one image after the other, model {LATENCY} s, of {most:.0f}/s",
                spread([rate / most for rate in rates], "x"),
                "0.9 x",
            ),
        ],
    )


if __name__ == "__main__":
    main()
