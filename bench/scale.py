"""Measures what an image and a job take of each part, as input for docs/reference/sizes.md: CPU, memory, SQL, WAL, scratch, Redis, calls.

It counts CPU time and not wall-clock time, so that it can run beside other work. One web process, one worker and a supervisor run with
Postgres, Valkey and SeaweedFS. It sends two kinds of traffic: requests of one image by base64, and jobs of many images by URL.
"""

from __future__ import annotations

import argparse
import base64
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
from redis import Redis

from bench.counted import trips
from bench.large_job import others
from bench.report import machine, print_report
from testbed import Production, numbered_picture, postgres, production, seaweedfs

NAMES = ("web-1", "worker-1", "supervisor")
PICTURE_BYTES = 100_000  #: of a picture that is sent by base64; those by URL have 33 KB
LOOK_SECONDS = 0.5
IDLE_SECONDS = 10.0
CPU = "CPU of "
TABLES = ("jobs", "images", "chunks", "steps", "ledger")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100, help="of one image by base64")
    parser.add_argument("--jobs", type=int, default=3, help="of 300 images by URL")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres() as server,
        seaweedfs(Path(folder) / "s3") as s3,
        others(0.0) as place,
    ):

        @contextmanager
        def started(name: str, command: str) -> Iterator[tuple[Production, Any]]:
            model = {"GEMINI_API_KEY": place["key"], "GEMINI_BASE_URL": place["model"], "FETCH_ALLOW": place["allow"]}
            fake: Any = _Address(place["key"], place["model"])
            with production(
                Path(folder) / name, server=server, s3=s3, fake=fake, names=NAMES, command=command, **model
            ) as cluster:
                yield cluster, cluster.client("web-1", cluster.new_key())

        picture = base64.b64encode(numbered_picture(1, format="JPEG", pad_to=PICTURE_BYTES)).decode()
        single = {"inputMethod": "base64", "images": [picture], "prompt": "Which number?"}
        urls = [f"{place['web']}/{number}.jpg" for number in range(300)]
        batch = {"inputMethod": "url", "images": urls, "prompt": "Which number?", "granularity": "perImage", "jsonMode": True}
        kinds = {"single": (single, options.requests), "batch": (batch, options.jobs)}
        measured: dict[str, Any] = {"machine": machine(), "kinds": {}}
        with started("plain", "cli.main") as (cluster, client):
            for name, (body, times) in kinds.items():
                send(client, body)  # a first one, so that everything is connected and compiled
                measured["kinds"][name] = usage_of(cluster, client, body, times)
            measured["memory"] = {role: memory(cluster, role) for role in NAMES}
        keep(measured, options.json)
        with started("counted", "bench.counted") as (cluster, client):
            for name, (body, _) in kinds.items():
                measured["kinds"][name]["trips"] = trips_of(cluster, client, body, 10 if name == "single" else 1)
    keep(measured, options.json)
    rows = [
        (f"{kind}: {name}, {part}", f"{value:g}", "")
        for kind, figures in measured["kinds"].items()
        for name, value_of in figures.items()
        for part, value in (value_of.items() if isinstance(value_of, dict) else [("", value_of)])
    ]
    print_report("What a job takes of each part", rows)


def keep(measured: dict[str, Any], path: Path | None) -> None:
    """Writes what was measured so far, because a later part may fail on a busy machine."""
    if path:
        path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


class _Address:
    """Where the fake model is, as `production` asks for it."""

    def __init__(self, key: str, base_url: str) -> None:
        self.key, self.base_url = key, base_url


def send(client: Any, body: dict[str, Any]) -> None:
    status, headers, answer = client.extract(body, {} if len(body["images"]) == 1 else {"Prefer": "respond-async"})
    if status == 202:
        answer = client.follow(headers["location"])
        assert answer["status"] == "succeeded", answer
    else:
        assert status == 200, answer


def usage_of(cluster: Production, client: Any, body: dict[str, Any], times: int) -> dict[str, Any]:
    """What one job of this body takes: CPU seconds by part, what the servers count, new rows, and the most at one moment.

    What the idle service takes in the same time is taken off, with what this bench asks meanwhile.
    """
    quiet(cluster)
    idle = spent(cluster, lambda: time.sleep(IDLE_SECONDS))
    rows = table_rows(cluster)
    most = Most(lambda: {"scratch bytes": scratch_bytes(cluster), "connections": connections(cluster)})
    busy = spent(cluster, lambda: [send(client, body) for _ in range(times)] and quiet(cluster))
    peak = most.end()
    share = busy["seconds"] / idle["seconds"]
    each = {name: max(0.0, value - idle[name] * share) / times for name, value in busy.items()}
    return {
        "images": len(body["images"]),
        "calls": client.send("GET", "/api/v1/jobs?limit=1")[2]["jobs"][0]["usage"]["modelCalls"],
        "cpu": {name.removeprefix(CPU): round(value, 6) for name, value in each.items() if name.startswith(CPU)},
        "counted": {name: round(value, 3) for name, value in each.items() if not name.startswith(CPU) and name != "seconds"},
        "rows": {name: (count - rows[name]) / times for name, count in table_rows(cluster).items()},
        "peak": peak,
    }


def spent(cluster: Production, work: Callable[[], object]) -> dict[str, float]:
    """By how much each counter rose while the work was done, and the seconds that it took."""

    def look() -> dict[str, float]:
        return (
            {f"{CPU}{part}": seconds for part, seconds in cpu(cluster).items()}
            | counters(cluster)
            | {"seconds": time.monotonic()}
        )

    before = look()
    work()
    return {name: value - before[name] for name, value in look().items()}


def quiet(cluster: Production) -> None:
    """Waits until no step is open and scratch is empty."""
    while one(cluster, "SELECT count(*) FROM steps WHERE state IN ('ready', 'leased')") or cluster.scratch():
        time.sleep(LOOK_SECONDS)


def cpu(cluster: Production) -> dict[str, float]:
    """CPU seconds so far. `decode`: the worker's children. `postgres`: all its processes."""
    found: Counter[str] = Counter()
    for name in NAMES:
        process = psutil.Process(cluster.processes[name].pid)
        own = process.cpu_times()
        found[name] += own.user + own.system
        children = own.children_user + own.children_system
        for child in process.children(recursive=True):
            spent = child.cpu_times()
            children += spent.user + spent.system
        found["decode" if name.startswith("worker") else name] += children
    server = psutil.Process(int(Path(one(cluster, "SHOW data_directory"), "postmaster.pid").read_text().split()[0]))
    for process in (server, *server.children(recursive=True)):
        found["postgres"] += sum(process.cpu_times()[:2])
    found["postgres"] += sum(server.cpu_times()[2:4])  # of the connections that have ended
    with Redis.from_url(cluster.settings["REDIS_URL"], protocol=2) as client:
        spent: Any = client.info("cpu")
    found["redis"] += spent["used_cpu_user"] + spent["used_cpu_sys"]
    weeds = [process for process in psutil.Process().children(recursive=True) if process.name() == "weed"]
    found["s3"] += sum(sum(process.cpu_times()[:2]) for process in weeds)
    return dict(found)


def counters(cluster: Production) -> dict[str, float]:
    """What the servers have counted so far."""
    with Redis.from_url(cluster.settings["REDIS_URL"], protocol=2) as client:
        stats: Any = client.info("stats")
    return {
        "WAL bytes": float(one(cluster, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")),
        "table bytes": float(
            one(
                cluster,
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
            )
        ),
        "transactions": float(one(cluster, "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")),
        "Redis commands": float(stats["total_commands_processed"]),
    }


def table_rows(cluster: Production) -> dict[str, int]:
    return {table: int(one(cluster, f"SELECT count(*) FROM {table}")) for table in TABLES}


def scratch_bytes(cluster: Production) -> float:
    return float(one(cluster, "SELECT sum(bytes) FROM scratch_totals"))


def connections(cluster: Production) -> float:
    return float(one(cluster, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")) - 1


@cache
def _connection(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def one(cluster: Production, query: LiteralString) -> Any:
    """The only value that the query gives. `Most` asks in a thread of its own, which psycopg allows."""
    row = _connection(cluster.settings["DATABASE_URL"]).execute(query).fetchone()
    assert row is not None
    return row[0]


def memory(cluster: Production, name: str) -> int:
    """Bytes of a process and its children, with shared pages counted once."""
    process = psutil.Process(cluster.processes[name].pid)
    return sum(each.memory_full_info().pss for each in (process, *process.children(recursive=True)))


def trips_of(cluster: Production, client: Any, body: dict[str, Any], times: int) -> dict[str, float]:
    """Round trips of one job to each part. Those of the supervisor are left out, because it makes them without a job too."""
    send(client, body)
    quiet(cluster)
    time.sleep(1)  # the processes write their trips down now and then
    before = _trips(cluster)
    for _ in range(times):
        send(client, body)
    quiet(cluster)
    time.sleep(1)
    return {kind: (count - before[kind]) / times for kind, count in _trips(cluster).items()}


def _trips(cluster: Production) -> Counter[str]:
    return Counter(trip.kind for trip in trips(cluster.folder / "data") if trip.role != "supervisor")


class Most:
    """Looks at figures now and then, and keeps the highest of each."""

    def __init__(self, look: Callable[[], dict[str, float]]) -> None:
        self._look = look
        self._most: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            for name, value in self._look().items():
                self._most[name] = max(value, self._most.get(name, 0.0))

    def end(self) -> dict[str, float]:
        self._stop.set()
        self._thread.join()
        return self._most


if __name__ == "__main__":
    main()
