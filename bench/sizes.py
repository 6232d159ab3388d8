"""Writes the tables of docs/reference/sizes.md from the figures of bench/scale.py and the simulation of bench/queueing.py.

Everything that is assumed and not measured is a constant of this file, and stands on the page.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.queueing import Fleet, Outcome, Traffic, simulate
from config.roles import ALONE_CONNECTIONS, CONNECTIONS
from testbed import ROOT
from workers.alone import SEATS

FIGURES = ROOT / "docs" / "reference" / "scale.json"
PAGE = ROOT / "docs" / "reference" / "sizes.md"
BEGIN, END = "<!-- tables: python -m bench.sizes -->\n", "<!-- end of the tables -->\n"

MONTHS = {"1 million": 1e6, "10 million": 1e7, "100 million": 1e8}
MONTH_SECONDS = 30 * 86_400
PEAK = 4.0  #: the busiest minutes of a month, times the average
BUSY = 0.6  #: fraction of a core or of the threads that is used at the peak; the rest is for what comes at random
CALL_SECONDS = 5.0  #: of a model call
THREADS = 40  #: WORKER_CONCURRENCY's default
SUPERVISORS = 2
#: the most connections of one process to the database
POOL = {**CONNECTIONS, "worker": CONNECTIONS["worker"] + SEATS * ALONE_CONNECTIONS}
MACHINE_CORES = 4
DEADLINE = 600.0  #: seconds; of the simulated jobs
KINDS = {"single": "requests of one image", "batch": "jobs of 300 images"}
SERVERS = ("postgres", "redis", "s3")

Rows = Sequence[tuple[str, Sequence[str]]]


def peak_images(month: float) -> float:
    """Images a second in the busiest minutes."""
    return month / MONTH_SECONDS * PEAK


def fleet_of(kind: Mapping[str, Any], month: float) -> dict[str, int]:
    """How many processes and machines the peak needs. A process computes in Python on one core at a time; decoders are more processes."""
    jobs = peak_images(month) / kind["images"]
    cores = {part: seconds * jobs / BUSY for part, seconds in kind["cpu"].items()}
    threads = jobs * kind["calls"] * CALL_SECONDS / BUSY
    web = max(2, math.ceil(cores["web-1"]))
    worker = max(2, math.ceil(cores["worker-1"]), math.ceil(threads / THREADS))
    ours = sum(cores[part] for part in cores if part not in SERVERS)
    return {
        "web": web,
        "worker": worker,
        "threads": worker * THREADS,
        "machines": max(2, math.ceil(ours / MACHINE_CORES)),
        "postgres cores": math.ceil(cores["postgres"]),
        "s3 cores": math.ceil(cores["s3"]),
        "connections": web * POOL["web"] + worker * POOL["worker"] + SUPERVISORS * POOL["supervisor"],
    }


def need_table(kind: Mapping[str, Any], memory: Mapping[str, int]) -> str:
    """What each number of images a month needs."""
    columns = [(month, fleet_of(kind, month)) for month in MONTHS.values()]

    def row(of: Callable[[float, dict[str, int]], str]) -> list[str]:
        return [of(month, fleet) for month, fleet in columns]

    def jobs(month: float) -> float:
        return month / kind["images"]

    def at_peak(figure: float) -> Callable[[float, dict[str, int]], str]:
        return lambda month, _: number(figure * peak_images(month) / kind["images"])

    counted, trips = kind["counted"], kind["trips"]
    rows_of_job = sum(kind["rows"].values())
    return table(
        [
            ("images a second at the peak", row(lambda month, _: number(peak_images(month)))),
            ("web processes", row(lambda _, fleet: str(fleet["web"]))),
            ("workers", row(lambda _, fleet: str(fleet["worker"]))),
            (f"machines of {MACHINE_CORES} cores for them", row(lambda _, fleet: str(fleet["machines"]))),
            (
                "memory for them at rest",
                row(lambda _, fleet: size(fleet["web"] * memory["web-1"] + fleet["worker"] * memory["worker-1"])),
            ),
            ("cores for Postgres", row(lambda _, fleet: str(fleet["postgres cores"]))),
            ("cores for S3", row(lambda _, fleet: str(fleet["s3 cores"]))),
            ("connections to Postgres, at most", row(lambda _, fleet: number(fleet["connections"]))),
            ("transactions a second at the peak", row(at_peak(counted["transactions"]))),
            ("WAL a day", row(lambda month, _: size(counted["WAL bytes"] * jobs(month) / 30))),
            ("new rows a month", row(lambda month, _: number(rows_of_job * jobs(month)))),
            ("tables grow a month by", row(lambda month, _: size(counted["table bytes"] * jobs(month)))),
            ("commands a second to Redis at the peak", row(at_peak(counted["Redis commands"]))),
            ("requests a second to S3 at the peak", row(at_peak(trips.get("s3", 0.0)))),
            ("model calls a minute at the peak", row(at_peak(kind["calls"] * 60))),
        ]
    )


def unit_table(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """What was measured, for each image and each job."""
    parts = {
        "web-1": "front door",
        "worker-1": "fetching, calls, commits",
        "decode": "decoding",
        "supervisor": "supervisor",
        "postgres": "Postgres",
        "redis": "Valkey",
        "s3": "SeaweedFS",
    }
    columns = [kinds[name] for name in KINDS]
    rows = [
        (f"CPU an image: {what}", [f"{kind['cpu'][part] / kind['images'] * 1000:.2f} ms" for kind in columns])
        for part, what in parts.items()
    ]
    rows += [
        ("rows a job", [number(sum(kind["rows"].values())) for kind in columns]),
        ("WAL an image", [size(kind["counted"]["WAL bytes"] / kind["images"]) for kind in columns]),
        ("growth of the tables an image", [size(kind["counted"]["table bytes"] / kind["images"]) for kind in columns]),
        ("transactions a job", [number(kind["counted"]["transactions"]) for kind in columns]),
        ("statements a job", [number(kind["trips"].get("statement", 0.0)) for kind in columns]),
        ("commands to Redis a job", [number(kind["counted"]["Redis commands"]) for kind in columns]),
        ("requests to S3 a job", [number(kind["trips"].get("s3", 0.0)) for kind in columns]),
        ("bytes in scratch at most, an image", [size(kind["peak"]["scratch bytes"] / kind["images"]) for kind in columns]),
        ("connections at most, all processes", [number(kind["peak"]["connections"]) for kind in columns]),
        ("model calls a job", [number(kind["calls"]) for kind in columns]),
    ]
    return table(rows, head=("what", *KINDS.values()))


def queue_table(kind: Mapping[str, Any]) -> str:
    """The simulated busiest hour of each size, with the fleet of the table above and three quotas."""
    rows = []
    for name, month in MONTHS.items():
        calls = peak_images(month) / kind["images"] * kind["calls"]
        traffic = Traffic(calls=calls / 2, call_seconds=CALL_SECONDS, peak=2.0)  # the hour whose middle is the peak
        for of_peak in (0.0, 1.0, 0.45):
            quota = calls * 60 * of_peak
            fleet = Fleet(threads=fleet_of(kind, month)["threads"], quota=quota, deadline=DEADLINE)
            found = simulate(traffic, fleet)
            rows.append((f"{name}, {f'{number(quota)} calls a minute' if quota else 'no quota'}", outcome(found)))
    head = ("images a month, quota", "a call waits", "99th percentile", "threads that work", "late after 10 min")
    return table(rows, head=head)


def outcome(found: Outcome) -> list[str]:
    return [f"{found.wait:.1f} s", f"{found.wait99:.1f} s", f"{found.busy:.0%}", f"{found.late:.0%}"]


def table(rows: Rows, head: Sequence[str] = ("what", *MONTHS)) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join((what, *values))} |" for what, values in rows]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Two significant digits, with thousands set apart."""
    if value == 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{round(value, 1 - math.floor(math.log10(abs(value)))):,.{digits}f}"


def size(value: float) -> str:
    """Bytes in the unit that people read."""
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= bytes_:
            return f"{number(value / bytes_)} {unit}"
    return f"{number(value)} bytes"


def tables(figures: Mapping[str, Any]) -> str:
    """All tables of the page, with their headings."""
    kinds = figures["kinds"]
    parts = [f"## Measured\n\n`python -m bench.scale`, {figures['machine']}.\n\n{unit_table(kinds)}"]
    for name, what in KINDS.items():
        parts.append(f"## If all are {what}\n\n{need_table(kinds[name], figures['memory'])}")
    for name, what in KINDS.items():
        parts.append(f"## The busiest hour, simulated: {what}\n\n{queue_table(kinds[name])}")
    return "\n".join(parts)


def page_with(page: str, figures: Mapping[str, Any]) -> str:
    """The page with its tables made anew."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{tables(figures)}\n{END}{after}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main()
