"""Measures requests of one 100 KB base64 image: one client with an instant model, and 32 clients with a 1.0 s model."""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from bench.counted import trips
from bench.profile import COUNTED, Times, profile, rows
from bench.report import at_least, at_most, print_report, spread
from storage.scratch.open import open_scratch
from testbed import FakeGemini, Service, numbered_picture, postgres, production, seaweedfs, serving

CLIENTS, LATENCY = 32, 1.0
REQUESTS, WARM = 100, 20  #: the first WARM requests are not measured
QUIET = 0.5  #: seconds between two profiled requests, so that the trips of each stand apart
RATE_LIMIT = "100000/minute"
GOALS = {"embedded": (at_most(15), ""), "production": (at_most(20), at_most(50))}
WARM_UP, SECONDS = 3.0, 10.0  #: the rate is measured for SECONDS, after WARM_UP seconds


def latencies(service: Service, body: bytes, *, requests: int = REQUESTS + WARM) -> list[float]:
    """Milliseconds of each of so many requests on one connection."""
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    taken = []
    for _ in range(requests):
        started = time.perf_counter()
        connection.request("POST", "/api/v1/extract-image", body, {"Authorization": f"Bearer {service.key}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
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


def profiled(service: Service, body: bytes, fake: FakeGemini, requests: int, *, names: bool) -> None:
    """Prints how many trips a request makes to SQL, S3 and Redis, and where its time goes. Each request waits until the last is clean."""
    sent: list[tuple[float, float, int]] = []
    latencies(service, body, requests=20)
    for _ in range(requests):
        time.sleep(QUIET)
        first, started = len(fake.calls), time.monotonic()
        latencies(service, body, requests=1)
        sent.append((started, time.monotonic(), first))
    time.sleep(QUIET + 1.0)
    found = list(trips(service.folder))
    ends = [*(started for started, _, _ in sent[1:]), time.monotonic()]
    profiles = []
    for (started, answered, call), end in zip(sent, ends, strict=True):
        asked = fake.calls[call]
        profiles.append(profile(found, Times(sent=started, asked=asked.at, replied=asked.ended, answered=answered, next=end)))
    table = Table("stage", "ms", *COUNTED, title=f"One image of 100 KB a request, {requests} requests one after the other")
    for row in rows(profiles):
        table.add_row(*row)
    console = Console(width=110)
    console.print(table)
    if names:
        for name, count in profiles[-1].names.items():
            console.print(f"{count} x {name}")


def scratch_alone(folder: Path, size: int) -> list[float]:
    """Milliseconds of a put and a get of so many bytes, one after the other, in a SeaweedFS that does nothing else."""
    taken = []
    with seaweedfs(folder) as s3:
        scratch = open_scratch(s3.settings("alone"))
        for number in range(REQUESTS + WARM):
            started = time.perf_counter()
            scratch.put(f"job_{number}/a", io.BytesIO(bytes(size)))
            scratch.open(f"job_{number}/a").close()
            taken.append((time.perf_counter() - started) * 1000)
    return taken[WARM:]


@contextmanager
def parts(name: str, folder: Path, fake: FakeGemini, command: str = "cli.main") -> Iterator[Service]:
    """Runs the service with `embedded` or `production` parts. `command`: the module that has its commands."""
    if name == "embedded":
        settings = {"GEMINI_API_KEY": fake.key, "GEMINI_BASE_URL": fake.base_url, "RATE_LIMIT": RATE_LIMIT}
        with serving(folder / "data", (command,), **settings) as service:
            yield service
        return
    processes = ("web-1", "worker-1", "supervisor")
    with (
        postgres(fsync=True) as server,
        seaweedfs(folder / "weed") as s3,
        production(
            folder / "bench", server=server, s3=s3, fake=fake, names=processes, command=command, RATE_LIMIT=RATE_LIMIT
        ) as cluster,
    ):
        yield cluster.client("web-1", cluster.new_key())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--parts", choices=GOALS, default="embedded", help="production: Postgres, Valkey and SeaweedFS on loopback"
    )
    parser.add_argument(
        "--profile", type=int, default=0, metavar="N", help="count the trips of N requests, and measure nothing else"
    )
    parser.add_argument("--names", action="store_true", help="with --profile: list the trips of one request by name")
    options = parser.parse_args()
    image = base64.b64encode(numbered_picture(1, format="JPEG", pad_to=100_000)).decode()
    body = json.dumps({"inputMethod": "base64", "images": [image], "prompt": "p"}).encode()
    if options.profile:
        with (
            FakeGemini() as fake,
            tempfile.TemporaryDirectory() as folder,
            parts(options.parts, Path(folder), fake, "bench.counted") as service,
        ):
            profiled(service, body, fake, options.profile, names=options.names)
        return
    medians, tails, bursts, rates = [], [], [], []
    with FakeGemini() as fake, tempfile.TemporaryDirectory() as folder, parts(options.parts, Path(folder), fake) as service:
        for _ in range(options.runs):
            fake.latency = 0.0
            taken = latencies(service, body)[WARM:]
            medians.append(statistics.median(taken))
            tails.append(sorted(taken)[int(len(taken) * 0.99) - 1])
            fake.latency = LATENCY
            burst, rate = crowd(service, body)
            bursts.append(burst)
            rates.append(rate)
        alone = scratch_alone(Path(folder) / "alone", len(image)) if options.parts == "production" else []
    most = CLIENTS / LATENCY
    median, tail = GOALS[options.parts]
    of_scratch = "of that, a put and a get in SeaweedFS, which the request can't do without"
    print_report(
        f"One image of 100 KB a request, {options.parts} parts, {options.runs} runs of {REQUESTS}",
        [
            ("POST to 200, median", spread(medians, "ms", 1), median),
            *([(of_scratch, spread([statistics.median(alone)], "ms", 1), "")] if alone else []),
            ("POST to 200, 99th percentile", spread(tails, "ms", 1), tail),
            (f"{CLIENTS} clients at the same moment, until all are answered", spread(bursts, "s", 2), ""),
            (
                f"the same, one image after the other, model {LATENCY} s, of {most:.0f}/s",
                spread([rate / most for rate in rates], "x"),
                at_least(0.95),
            ),
        ],
    )


if __name__ == "__main__":
    main()
