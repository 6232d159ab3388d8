"""Slow image servers of an account take no threads from the jobs of another account."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

from pipeline.types import Failure, Fetched
from tests.harness import running
from workers.lending import Lending, LentPlaces, look_always
from workers.run import run_step

ASYNC = {"Prefer": "respond-async"}


def test_while_four_jobs_wait_for_slow_servers_another_accounts_job_is_done(tmp_path):
    with running(tmp_path, workers_count=2) as house:
        answer, over = threading.Event(), threading.Event()
        slow = [house.page(f"https://slow.example/{number}") for number in range(80)]
        fetch = house.fetch

        def fetch_slowly(urls: Iterable[tuple[int, str]], *, total: int, timeout: float) -> Iterator[Fetched | Failure]:
            asked = list(urls)
            if any(url in slow for _, url in asked):
                answer.wait(30)
            yield from fetch(asked, total=total, timeout=timeout)

        lent = LentPlaces()
        lending = Lending(lent, places=16)
        house.work = replace(house.work, fetch=fetch_slowly, lending=lending)

        def work_if_lent() -> None:
            while not over.is_set():
                if lent.acquire(timeout=0.05):
                    with suppress(queue.Empty):
                        run_step(house.work, house.signals.rung.get(timeout=0.05))
                    lent.release()

        spares = [threading.Thread(target=work_if_lent) for _ in range(16)]
        spares.append(threading.Thread(target=look_always, args=(lending, over)))
        for thread in spares:
            thread.start()
        try:
            for job in range(4):
                body = {"inputMethod": "url", "images": slow[20 * job : 20 * job + 20], "prompt": "p"}
                house.post(body, headers=ASYNC)
            _, key = house.new_key()
            body = {"inputMethod": "url", "images": house.urls(3), "prompt": "p"}
            job = house.post(body, headers=ASYNC, key=key).json["id"]
            shown = house.get(f"/api/v1/jobs/{job}?wait=20", key=key).json
            assert (shown["status"], answer.is_set()) == ("succeeded", False)
        finally:
            answer.set()
            house.drain()
            over.set()
            for thread in spares:
                thread.join()
