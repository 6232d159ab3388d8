"""Measures what 500 waiting clients cost the API process. Half use long polls, half use Server-Sent Events."""

from __future__ import annotations

import argparse
import base64
import socket
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from bench.front_door import front_door, memory
from bench.report import at_most, print_report, spread
from testbed import Service, numbered_picture, serving

CLIENTS = 500
PLACES = 666  #: waiting places, of which one account gets three quarters: as many as there are clients
FULL_SECONDS = 60.0  #: until all clients wait
JOBS = 50  #: jobs that the clients wait for
BODY = {"inputMethod": "base64", "images": [base64.b64encode(numbered_picture(1, format="PNG")).decode()], "prompt": "p"}
#: The model is unreachable, so no job ends.
SETTINGS = {
    "GEMINI_API_KEY": "none",
    "GEMINI_BASE_URL": "http://127.0.0.1:9",
    "RATE_LIMIT": "1000000/minute",
    "MAX_WAITERS": str(PLACES),
    "MAX_OPEN_JOBS": "10000",
}


def wait_for(service: Service, job: str, *, events: bool) -> socket.socket | None:
    """Opens a connection that waits for the job. Returns None if the server had no free place for an event stream."""
    address = urlsplit(service.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    path = f"/api/v1/jobs/{job}/events" if events else f"/api/v1/jobs/{job}?wait=300"
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {service.key}\r\n\r\n".encode())
    if events and connection.recv(12) != b"HTTP/1.1 200":
        connection.close()
        return None
    return connection


def seconds_to_free(service: Service, job: str, waiting: list[socket.socket]) -> float:
    """Seconds from when a client closes its connection until another client gets its place."""
    started = time.perf_counter()
    waiting.pop(0).close()
    while (fresh := wait_for(service, job, events=True)) is None:
        time.sleep(0.01)
    waiting.append(fresh)
    return time.perf_counter() - started


def post_seconds(service: Service) -> float:
    started = time.perf_counter()
    status, _, _ = service.extract(BODY, {"Prefer": "respond-async"})
    assert status == 202
    return time.perf_counter() - started


def is_full(service: Service, job: str) -> bool:
    """Whether no place is free. If one is free, the check itself takes it for a second."""
    return service.send("GET", f"/api/v1/jobs/{job}?wait=1")[0] == 429


def cpu_share(process: psutil.Process, seconds: float) -> float:
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=40)
    posts = parser.parse_args().posts
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), **SETTINGS) as service:
        jobs = [service.extract(BODY, {"Prefer": "respond-async"})[2]["id"] for _ in range(JOBS)]
        alone = [post_seconds(service) for _ in range(posts)]
        process = front_door(service)
        at_rest = memory(process, "VmRSS")
        opened = [wait_for(service, jobs[place % JOBS], events=place % 2 == 0) for place in range(CLIENTS)]
        waiting = [connection for connection in opened if connection]
        ends = time.monotonic() + FULL_SECONDS
        while process.num_threads() < CLIENTS:  # each waiter has a thread
            assert time.monotonic() < ends, f"only {process.num_threads()} threads wait"
            time.sleep(0.1)
        time.sleep(2.0)  # let the last clients get their places, because the check below could take one
        assert is_full(service, jobs[0]), "the clients do not hold all places"
        beside = [post_seconds(service) for _ in range(posts)]
        with_them = memory(process, "VmRSS")
        share = cpu_share(process, 5.0)
        freed = [seconds_to_free(service, jobs[place], waiting) for place in range(10)]
        for connection in waiting:
            connection.close()
    print_report(
        f"{CLIENTS} clients wait at once for {JOBS} jobs, {posts} posts beside them",
        [
            ("the front door's memory with them", f"{with_them / 1e6:.0f} MB", "400 MB"),
            ("of which for each of them", f"{(with_them - at_rest) / CLIENTS / 1e3:.0f} kB", ""),
            ("its CPU while they wait", f"{share:.0%} of a core", ""),
            ("POST to 202 without them", spread([each * 1000 for each in alone], "ms", 0), ""),
            ("POST to 202 beside them", spread([each * 1000 for each in beside], "ms", 0), at_most(100)),
            ("as a ratio", f"{statistics.median(beside) / statistics.median(alone):.1f} x", ""),
            ("a client hangs up, until its place is another's", spread(freed, "s"), at_most(2)),
        ],
    )


if __name__ == "__main__":
    main()
