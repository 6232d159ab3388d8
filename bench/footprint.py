"""Measures the embedded service's memory and CPU: idle before the first request and after many, memory over ten jobs of 3000
URLs, and CPU for each image of jobs of 30, 300 and 3000 images.

The memory of all processes is the sum of their PSS, which divides shared pages among the processes that map them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench.front_door import memory
from bench.large_job import others
from bench.report import at_most, print_report, spread
from bench.web import IMAGES
from testbed import Service, command_of, serving

MB = 1_000_000
SETTLE_SECONDS, REST_SECONDS = 10, 30  #: time until the service is idle; time over which the idle service is measured


def family(service: Service) -> list[psutil.Process]:
    root = psutil.Process(service.process.pid)
    return [root, *root.children(recursive=True)]


def cpu(service: Service) -> float:
    """CPU seconds of all processes so far, including decoders that were replaced."""
    times = [process.cpu_times() for process in family(service)]
    return float(sum(spent.user + spent.system + spent.children_user + spent.children_system for spent in times))


def worker(service: Service) -> psutil.Process:
    return next(process for process in family(service) if command_of(process)[-1:] == ["worker"])


def at_rest(service: Service) -> tuple[float, float]:
    """The idle service's memory in bytes, with shared pages counted once, and its CPU use as a share of one core."""
    time.sleep(SETTLE_SECONDS)
    before = cpu(service)
    time.sleep(REST_SECONDS)
    spent = cpu(service) - before
    return float(sum(process.memory_full_info().pss for process in family(service))), spent / REST_SECONDS


def run_jobs(service: Service, body: dict[str, Any], images: int, jobs: int = 1) -> float:
    """CPU milliseconds for each image. It runs `jobs` jobs in turn, because one small job is too short for the clock."""
    before = cpu(service)
    for _ in range(jobs):
        status, _, job = service.extract({**body, "images": body["images"][:images]}, {"Prefer": "respond-async"})
        assert status == 202
        assert service.follow(job["links"]["self"])["counts"]["succeeded"] == images
    return (cpu(service) - before) / images / jobs * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder, others() as place:
        settings = {"GEMINI_API_KEY": place["key"], "GEMINI_BASE_URL": place["model"], "FETCH_ALLOW": place["allow"]}
        with serving(Path(folder) / "data", **settings):
            pass  # the first start also makes the database, which takes 10 MB more
        with serving(Path(folder) / "data", **settings) as service:
            unused = at_rest(service)
        report(jobs, unused, place["web"], Path(folder), settings)


def report(jobs: int, unused: tuple[float, float], web: str, folder: Path, settings: dict[str, str]) -> None:
    body = {"inputMethod": "url", "images": [f"{web}/{n}.jpg" for n in range(IMAGES)], "prompt": "Which number?"}
    with serving(folder / "data", **settings) as service:
        run_jobs(service, body, 300)
        small = [run_jobs(service, body, 30, 10) for _ in range(5)]
        middle = [run_jobs(service, body, 300, 3) for _ in range(5)]
        large, held = [], []
        for _ in range(jobs):
            large.append(run_jobs(service, body, IMAGES))
            held.append(memory(worker(service), "VmRSS") / MB)
        peak = memory(worker(service), "VmHWM") / MB
        rest, share = at_rest(service)
    usual = statistics.median(large)
    print_report(
        f"The embedded service at rest, and {jobs} jobs of {IMAGES} URLs",
        [
            ("at rest before the first request, all processes", spread([unused[0] / MB], "MB", 0), at_most(250)),
            ("at rest before the first request, of a core", spread([100 * unused[1]], "% of a core", 2), at_most(0.5)),
            ("at rest after these jobs, all processes", spread([rest / MB], "MB", 0), at_most(400)),
            ("at rest after them, of a core", spread([100 * share], "% of a core", 2), at_most(0.5)),
            ("the worker's memory at its most", spread([peak], "MB", 0), at_most(400)),
            ("the worker's memory after each job", spread(held, "MB", 0), ""),
            ("after the last / after the second", f"{held[-1] / held[min(1, jobs - 1)]:.2f} x", "flat"),
            (f"CPU an image, {IMAGES} images", spread(large, "ms"), ""),
            (f"300 images / {IMAGES}", spread([each / usual for each in middle], "x"), at_most(1.15)),
            (f"30 images / {IMAGES}", spread([each / usual for each in small], "x"), ""),
        ],
    )


if __name__ == "__main__":
    main()
