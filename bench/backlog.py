"""Compares a request of one image behind a queue of 20 jobs of 3000 URLs with one on an idle service. The model takes 1.0 s.

One account sends its requests behind its own jobs. A second account sends them behind the first account's jobs.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import tempfile
import time
from pathlib import Path

from bench.large_job import others
from bench.report import at_most, print_report, spread
from bench.web import IMAGES
from testbed import Service, numbered_picture, serving

JOBS = 20
REQUESTS = 20


def answered(service: Service) -> list[float]:
    """Seconds from POST to 200 of each request. The requests run one after the other."""
    picture = base64.b64encode(numbered_picture(1, format="JPEG", pad_to=100_000)).decode()
    body = json.dumps({"inputMethod": "base64", "images": [picture], "prompt": "Which number?"}).encode()
    taken = []
    for _ in range(REQUESTS):
        started = time.perf_counter()
        assert service.extract(body)[0] == 200
        taken.append(time.perf_counter() - started)
    return taken


def run() -> tuple[list[float], list[float], list[float]]:
    """The requests' seconds on an idle service, behind the account's own jobs, and behind another account's jobs."""
    with others() as place, tempfile.TemporaryDirectory() as folder:
        settings = {"GEMINI_API_KEY": place["key"], "GEMINI_BASE_URL": place["model"], "FETCH_ALLOW": place["allow"]}
        with serving(Path(folder) / "data", **settings) as service:
            stranger_key = json.loads(service.cli("keys", "create", "stranger", "--credits", "10000", "--json"))["key"]
            stranger = Service(service.folder, service.process, service.url, stranger_key)
            answered(service)
            idle = answered(service)
            body = {"inputMethod": "url", "images": [f"{place['web']}/{n}.jpg" for n in range(IMAGES)], "prompt": "Which number?"}
            for _ in range(JOBS):
                status, _, job = service.extract(body, {"Prefer": "respond-async"})
                assert status == 202
            own, behind = answered(service), answered(stranger)
            assert service.send("GET", job["links"]["self"])[2]["status"] in {"queued", "running"}, (
                "they did not outlast the requests"
            )
            service.process.kill()  # the queued jobs would take minutes
            service.process.wait()
    return idle, own, behind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    rows: dict[str, list[float]] = {"idle": [], "own": [], "stranger": [], "slowest": []}
    for _ in range(parser.parse_args().runs):
        idle, own, stranger = run()
        usual = statistics.median(idle)
        rows["idle"].append(usual)
        rows["own"].append(statistics.median(own) / usual)
        rows["stranger"].append(statistics.median(stranger) / usual)
        rows["slowest"].append(max(*own, *stranger) / usual)
    print_report(
        f"A request of one image while {JOBS} jobs of {IMAGES} are queued, model 1.0 s, {REQUESTS} requests of each",
        [
            ("idle", spread(rows["idle"], "s"), ""),
            ("behind one's own jobs / idle", spread(rows["own"], "x"), at_most(1.2)),
            ("behind a stranger's / idle", spread(rows["stranger"], "x"), at_most(1.2)),
            ("the slowest of all / idle", spread(rows["slowest"], "x"), ""),
        ],
    )


if __name__ == "__main__":
    main()
