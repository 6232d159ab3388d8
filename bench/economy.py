"""Shows that the tier economy keeps its promise: 3000 images a job, with a simulated model server and a clock that jumps.

The steps, the limiter, the plan and the database are real (testbed/economy.py). Times are those of the simulated clock.

With --real, the processes of `serve` and a clock that does not jump: how long requests of one image take beside the jobs. A standard call
is answered after 1.0 s, and a slow one after 2 to 30 s.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from bench.backlog import answered
from bench.large_job import others
from bench.report import print_report
from bench.web import IMAGES
from pipeline.types import Tier
from testbed import economy, serving

CALL = 20  #: images


def prices(place: economy.Town, images: int) -> dict[str, float]:
    body = {"inputMethod": "url", "images": place.house.urls(images), "prompt": "p", "granularity": "perImage"}
    found: dict[str, float] = place.house.ask("POST", "/api/v1/extract-image/estimate", json=body).json["moneyByTier"]
    return found


def measure(
    server: economy.FlexServer, images: int, *, most: float | None = None, **fields: float
) -> tuple[economy.Ended, dict[str, float], str]:
    """How a job ended, what it would have cost in each tier, and how its calls were asked.

    `most`: the job's maxMoney, as a fraction of its standard price.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, economy.town(Path(folder), server, IMAGES_PER_CALL=str(CALL)) as place:
        price = prices(place, images)
        limit = {} if most is None else {"maxMoney": most * price["standard"]}
        job = place.post(images, tier="economy", **fields, **limit)
        place.run([job])
        asked = place.engine.asked
        text = (
            f"{asked[Tier.ECONOMY]} economy calls ({place.engine.given_up} given up), {asked[Tier.STANDARD]} standard ones, "
            f"{place.clock.now / 60:.0f} min, simulated in {time.monotonic() - began:.0f} s"
        )
        return place.ended(job), price, text


def saved(end: economy.Ended, price: dict[str, float]) -> float:
    """The fraction of what a job with economy calls alone would have saved."""
    return (price["standard"] - end.money) / (price["standard"] - price["economy"])


def row(
    name: str, server: economy.FlexServer, images: int, goal: str, *, most: float | None = None, **fields: float
) -> tuple[str, str, str]:
    end, price, text = measure(server, images, most=most, **fields)
    right = "all records right" if set(end.partition) == {"right"} else f"{end.status}: {dict(Counter(end.partition))}"
    if most is not None:
        # The service counts whole billionths of a dollar.
        within = round(end.money * 1e9) <= round(most * price["standard"] * 1e9)
        right += ", within maxMoney" if within else ", OVER maxMoney"
    money = f"${end.money:.4f} of ${price['standard']:.4f}, {100 * saved(end, price):.0f} % of what can be saved"
    return name, f"{right}; {money}; {end.left / 60:.0f} min before the deadline; {text}", goal


def alike(name: str, server: economy.FlexServer, images: int) -> tuple[str, str, str]:
    """Whether the same images fail with the same codes in a standard job and in an economy job. One image in fifty can't be read."""
    with tempfile.TemporaryDirectory() as folder, economy.town(Path(folder), server, IMAGES_PER_CALL=str(CALL)) as place:
        place.engine.refused = frozenset(f"img{index}".encode() for index in range(7, images, 100))
        urls = ["https://gone.example/" if index % 100 == 50 else url for index, url in enumerate(place.house.urls(images))]
        jobs = [place.post(urls), place.post(urls, tier="economy")]
        place.run(jobs)
        standard, slow = (place.ended(job) for job in jobs)
    same = sum(one == other for one, other in zip(standard.partition, slow.partition, strict=True))
    text = f"{same} of {images} images alike, {dict(Counter(slow.partition))}, ${slow.money:.4f} instead of ${standard.money:.4f}"
    return f"some images fail, {name}", text, "all alike"


def beside(images: int, jobs: int) -> tuple[str, str, str]:
    """How long requests of one image take beside many economy jobs, compared with an idle service."""
    with (
        tempfile.TemporaryDirectory() as folder,
        economy.town(Path(folder), economy.FlexServer(), IMAGES_PER_CALL=str(CALL)) as place,
    ):

        def one() -> float:
            began = place.clock.now
            place.run([place.post(1)])
            return place.clock.now - began

        idle = one()
        for _ in range(jobs):
            place.post(images, tier="economy")
        in_flight = min(64, jobs * -(-images // CALL))
        place.run_until(lambda: place.engine.asked[Tier.ECONOMY] >= in_flight)
        taken = max(one() for _ in range(5))
    return (
        f"a request of one image beside {jobs} economy jobs",
        f"{taken / idle:.2f} of its idle time of {idle:.0f} s",
        "at most 1.2",
    )


def real(jobs: int) -> list[tuple[str, str, str]]:
    """How long requests of one image take beside jobs of 3000 URLs in the tier economy, with the processes of `serve`."""
    with others() as place, tempfile.TemporaryDirectory() as folder:
        settings = {"GEMINI_API_KEY": place["key"], "GEMINI_BASE_URL": place["model"], "FETCH_ALLOW": place["allow"]}
        with serving(Path(folder) / "data", **settings) as service:
            answered(service)
            idle = answered(service)
            images = [f"{place['web']}/{number}.jpg" for number in range(IMAGES)]
            body = {
                "inputMethod": "url",
                "images": images,
                "prompt": "Which number?",
                "granularity": "perImage",
                "tier": "economy",
            }
            begun = [service.extract(body, {"Prefer": "respond-async"})[2]["links"]["self"] for _ in range(jobs)]

            def shown() -> list[dict[str, Any]]:
                return [service.send("GET", link)[2] for link in begun]

            service.wait_for(lambda: any(job["usage"]["modelCalls"] for job in shown()), seconds=60)
            taken = answered(service)
            calls = sum(job["usage"]["modelCalls"] for job in shown())
            assert any(not job["finishedAt"] for job in shown()), "the jobs did not outlast the requests"
            service.process.kill()  # the jobs would take minutes
            service.process.wait()
    usual = statistics.median(idle)
    return [
        ("a request of one image, idle, median", f"{usual:.2f} s", ""),
        (f"beside {jobs} economy jobs of {IMAGES}, median", f"{statistics.median(taken) / usual:.2f} of it", "at most 1.2"),
        ("the slowest", f"{max(taken) / usual:.2f} of it", ""),
        ("economy calls that were answered meanwhile", f"{calls}", ""),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", type=int, default=3000)
    arguments.add_argument("--jobs", type=int, default=20)
    arguments.add_argument(
        "--real", action="store_true", help="measure requests beside the jobs with real processes, and nothing else"
    )
    given = arguments.parse_args()
    if given.real:
        print_report("Requests of one image beside economy jobs, real processes", real(given.jobs))
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    never: Callable[[float], bool] = lambda _at: False  # noqa: E731
    rows = [row("capacity throughout", economy.FlexServer(seed=1), given.images, "all right, 100 %")]
    rows.append(row("no capacity", economy.FlexServer(has_capacity=never), given.images, "all right, before the deadline"))
    for name, (has_capacity, shed) in economy.PATTERNS.items():
        server = economy.FlexServer(seed=2, has_capacity=has_capacity, shed=shed)
        rows.append(row(name, server, given.images, "all right, at least 90 %, within maxMoney", most=1.0))
        rows.append(alike(name, economy.FlexServer(seed=2, has_capacity=has_capacity, shed=shed), given.images))
    poor = economy.FlexServer(has_capacity=never)
    rows.append(row("no capacity, maxMoney of 70 %", poor, given.images, "70 % right, the others deadline_exceeded", most=0.7))
    rows.append(beside(given.images, given.jobs))
    print_report("Economy jobs", rows)


if __name__ == "__main__":
    main()
