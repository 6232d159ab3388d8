"""Measures the effect of each admission control: it runs the same load with the control and without it, in pairs.

docs/admission-control.md lists the controls. A control whose ratio stays at 1 has no effect and can go. Lower is better for each
figure. The service runs embedded, with one web and one worker process. The fake model and the pictures have their own processes.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.footprint import MB, cpu, worker
from bench.front_door import front_door, memory
from bench.large_job import others
from bench.report import Row, print_report, spread
from bench.web import web
from testbed import Service, numbered_picture, serving

Place = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One control and the load that shows its effect."""

    guards: str  #: describes the figure
    unit: str
    measure: Callable[[Service, Place], float]
    settings: dict[str, str] = field(default_factory=dict)  #: settings of both services of a pair
    latency: float = 1.0  #: seconds of each model call
    without: dict[str, str] = field(default_factory=dict)  #: settings that turn the control off; if empty, bench/without.py does


def async_job(service: Service, body: dict[str, Any]) -> str:
    status, _, job = service.extract(body, {"Prefer": "respond-async"})
    assert status == 202, job
    return str(job["links"]["self"])


def urls(place: Place, images: int, **more: Any) -> dict[str, Any]:
    addresses = [f"{place['web']}/{number}.jpg" for number in range(images)]
    return {"inputMethod": "url", "images": addresses, "prompt": "Which number?", **more}


def one_image(service: Service, times: int = 7) -> float:
    """The median of the milliseconds from POST to 200, for requests of one image."""
    picture = base64.b64encode(numbered_picture(1, format="JPEG", pad_to=100_000)).decode()
    body = json.dumps({"inputMethod": "base64", "images": [picture], "prompt": "Which number?"}).encode()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        assert service.extract(body)[0] == 200
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def stranger(service: Service) -> Service:
    key = json.loads(service.cli("keys", "create", "stranger", "--credits", "10000", "--json"))["key"]
    return Service(service.folder, service.process, service.url, key)


def behind_large_jobs(service: Service, place: Place) -> float:
    """Milliseconds of a job of 10 URLs behind another account's large jobs. Its caller holds no connection."""
    for _ in range(6):
        async_job(service, urls(place, 1000))
    other = stranger(service)
    started = time.perf_counter()
    job = async_job(other, urls(place, 10))
    other.follow(job)
    return (time.perf_counter() - started) * 1000


def while_threads_are_busy(service: Service, place: Place) -> float:
    """Milliseconds of a request with a waiting caller, while jobs without one have a model call on every thread."""
    for _ in range(3):
        async_job(service, urls(place, 1000, imagesPerCall=4))
    time.sleep(3)  # until every thread has a model call
    return one_image(service)


def crowded_model(service: Service, place: Place) -> float:
    """Seconds of a job with far more calls than the model accepts at once."""
    started = time.perf_counter()
    service.follow(async_job(service, urls(place, 400, imagesPerCall=4)))
    return time.perf_counter() - started


def many_calls(service: Service, place: Place) -> float:
    """Seconds of a job of 3000 images, with twice as many threads as calls at once."""
    started = time.perf_counter()
    service.follow(async_job(service, urls(place, 3000)))
    return time.perf_counter() - started


def large_pictures(service: Service, place: Place) -> float:
    """Peak memory of the worker in MB, for jobs with pictures of 2 MB."""
    bodies = [base64.b64encode(numbered_picture(number, format="JPEG", pad_to=2_000_000)).decode() for number in range(40)]
    body = json.dumps({"inputMethod": "base64", "images": bodies, "prompt": "Which number?"}).encode()
    jobs = []
    for _ in range(4):
        status, _, job = service.extract(body, {"Prefer": "respond-async"})
        assert status == 202
        jobs.append(job["links"]["self"])
    for job in jobs:
        service.follow(job)
    return memory(worker(service), "VmHWM") / MB


def photos_by_url(service: Service, place: Place) -> float:
    """Peak memory of the worker in MB, while photos arrive faster than they are decoded."""
    addresses = [f"{place['photos']}/{number}.jpg" for number in range(40)]
    body = {"inputMethod": "url", "images": addresses, "prompt": "Which number?"}
    for job in [async_job(service, body) for _ in range(4)]:
        while service.send("GET", job)[2]["progress"] < 0.5:  # until each image is staged; another trial measures calls
            time.sleep(0.2)
    return memory(worker(service), "VmHWM") / MB


def large_bodies(service: Service, place: Place) -> float:
    """Peak memory of the API process in MB, while many bodies of 60 MB arrive at once."""
    picture = base64.b64encode(numbered_picture(1, format="JPEG", pad_to=1_500_000)).decode()
    body = json.dumps({"inputMethod": "base64", "images": [picture] * 30, "prompt": "p"}).encode()
    clients = [threading.Thread(target=service.extract, args=(body, {"Prefer": "respond-async"})) for _ in range(16)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return memory(front_door(service), "VmHWM") / MB


def small_pictures(service: Service, place: Place) -> float:
    """CPU seconds of all processes for 1000 small images."""
    service.follow(async_job(service, urls(place, 100)))
    before = cpu(service)
    service.follow(async_job(service, urls(place, 1000)))
    return cpu(service) - before


def hanging_webhooks(service: Service, place: Place) -> float:
    """Milliseconds of another account's job without a waiting caller, while 60 webhook calls hang at their receiver."""
    picture = base64.b64encode(numbered_picture(1, format="JPEG")).decode()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", HANGING_PORT))
        listener.listen(512)
        body = {"inputMethod": "base64", "images": [picture], "prompt": "p"}
        target = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        for _ in range(60):
            async_job(service, {**body, "webhookUrl": target})
        time.sleep(3)
        other = stranger(service)
        started = time.perf_counter()
        other.follow(async_job(other, body))
        return (time.perf_counter() - started) * 1000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


HANGING_PORT = free_port()
BUSY = {"WORKER_CONCURRENCY": "16", "MODEL_CONCURRENCY": "100"}
TRIALS = {
    "window": Trial(guards="another account's job behind 6 jobs of 1000", unit="ms", measure=behind_large_jobs, settings=BUSY),
    "reserved_threads": Trial(
        guards="one image that somebody waits for, all threads busy", unit="ms", measure=while_threads_are_busy, settings=BUSY
    ),
    "call_queue": Trial(
        guards="a job of 100 calls, 8 at once", unit="s", measure=crowded_model, settings={"MODEL_CONCURRENCY": "8"}
    ),
    "idle_threads_wait": Trial(
        guards="a job of 188 calls, 32 at once, 64 threads",
        unit="s",
        measure=many_calls,
        settings={"MODEL_CONCURRENCY": "32", "WORKER_CONCURRENCY": "64", "MERGED_PER_CALL": "16"},
    ),
    "memory_budget": Trial(
        guards="the worker's memory, 32 calls of 10 MB",
        unit="MB",
        measure=large_pictures,
        settings={"MERGED_PER_CALL": "5"},
        latency=10.0,
    ),
    "fetched_bytes": Trial(
        guards="the worker's memory, 160 photos of 12 MP by URL",
        unit="MB",
        measure=photos_by_url,
        settings={"MODEL_CONCURRENCY": "1"},
    ),
    "large_bodies": Trial(
        guards="the front door's memory, 16 bodies of 60 MB",
        unit="MB",
        measure=large_bodies,
        without={"MAX_LARGE_BODIES": "1000"},
    ),
    "decode_batches": Trial(guards="CPU for 1000 small images", unit="s", measure=small_pictures),
    "webhook_places": Trial(
        guards="another account's image, 60 webhooks hang",
        unit="ms",
        measure=hanging_webhooks,
        settings={**BUSY, "WEBHOOK_ALLOW": f"127.0.0.1/32:{HANGING_PORT}"},
    ),
}


def measured(name: str, trial: Trial, place: Place, *, taken_out: bool) -> float:
    """The figure of one trial. It starts a service, warms it up with two requests, measures, and kills the service."""
    settings = {
        "GEMINI_API_KEY": place["key"],
        "GEMINI_BASE_URL": place["model"],
        "FETCH_ALLOW": place["allow"],
        "RATE_LIMIT": "100000/minute",
        **trial.settings,
        **(trial.without if taken_out else {}),
    }
    command = ("bench.without", name) if taken_out and not trial.without else ("cli.main",)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        serving(Path(folder) / "data", command, **settings) as service,
    ):
        one_image(service, 2)
        figure = trial.measure(service, place)
        service.process.kill()  # the jobs that are still queued would take minutes
        service.process.wait()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=TRIALS, action="append", help="only this control; may be given several times")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only or TRIALS:
        trial = TRIALS[name]
        pairs = []
        with others(trial.latency) as place, web("large") as port:
            photos = {"photos": f"http://127.0.0.1:{port}", "allow": f"{place['allow']},127.0.0.1/32:{port}"}
            for _ in range(options.runs):
                kept = measured(name, trial, {**place, **photos}, taken_out=False)
                pairs.append((kept, measured(name, trial, {**place, **photos}, taken_out=True)))
        ratios = [without / kept for kept, without in pairs]
        figures = f"{statistics.median(kept for kept, _ in pairs):.1f} {trial.unit}"
        rows.append((f"{name}: {trial.guards}", f"{figures}; without it {spread(ratios, 'x')}", "above 1"))
    print_report(f"The load of each admission control with it and without it, {options.runs} pairs", rows)


if __name__ == "__main__":
    main()
