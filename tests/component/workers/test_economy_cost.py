"""What slow calls cost the worker while they wait: the memory that they hold, and the reads of scratch that are made for nothing."""

from __future__ import annotations

import json
import queue
import tempfile
import threading
import tracemalloc
from collections import deque
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import IO

import pytest

from pipeline.asking.memory_budget import MemoryBudget
from pipeline.engines.governed import GovernedEngine
from pipeline.engines.limiter import SHEDS, LocalLimiter
from pipeline.models import Model
from pipeline.ports import Cause, ModelUnavailable
from pipeline.types import MB, Answer, Finish, Tier
from tests.fakes.engine import FakeEngine
from tests.fakes.scratch import MemoryScratch
from tests.harness import running
from workers.run import run_step

MODEL = Model(name="fake-1", price_in=1.0, price_out=10.0, flex=0.5)
THREADS = 4
PICTURE = MB // 2


class SpoolingScratch(MemoryScratch):
    """Gives its objects as `S3Scratch` does, which holds small ones in memory. Counts the reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def open(self, key: str) -> IO[bytes]:
        self.reads += 1
        file = tempfile.SpooledTemporaryFile(max_size=8 * MB)  # noqa: SIM115 - the caller's to close
        file.write(super().open(key).read())
        file.seek(0)
        return file


def accepted(house, images, **fields):
    body = {"inputMethod": "url", "images": images, "prompt": "p", "granularity": "perImage", "tier": "economy", **fields}
    answer = house.post(body, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.json
    return answer.json["id"]


def rung(house):
    """The steps that are announced, until none is."""
    found = []
    while True:
        house.supervisor.ring()
        try:
            found.append(house.signals.rung.get_nowait())
        except queue.Empty:
            return found


@pytest.mark.parametrize("fit", [THREADS, THREADS // 2])
def test_slow_calls_hold_their_pictures_once_and_only_as_many_calls_wait_as_fit_in_the_budget(tmp_path, fit):
    inside, go_on = threading.Barrier(fit + 1), threading.Event()

    def wait(call, _number):
        with suppress(threading.BrokenBarrierError):
            inside.wait(30)
        go_on.wait(30)
        said = [{"index": picture.number, "result": picture.data[:5].decode()} for picture in call.pictures]
        return Answer(finish=Finish.COMPLETE, text=json.dumps(said), tier=Tier.ECONOMY)

    size = 4 * PICTURE
    with running(tmp_path, engine=(engine := FakeEngine(script=wait)), workers_count=0, IMAGES_PER_CALL="4") as house:
        house.models["fake-1"] = MODEL
        scratch = SpoolingScratch()
        scratch.objects = house.scratch.objects
        house.work = replace(house.work, scratch=scratch, slow_memory=MemoryBudget(fit * size, patience=0))
        pictures = [f"img{index:02}".encode().ljust(PICTURE, b".") for index in range(4 * THREADS)]
        accepted(house, [house.page(f"https://pictures.example/{index}", data) for index, data in enumerate(pictures)])
        for step in rung(house):
            run_step(house.work, step)
        slow = rung(house)
        assert len(slow) == THREADS
        with ThreadPoolExecutor(THREADS) as pool:
            tracemalloc.start()
            try:
                ended = [pool.submit(run_step, house.work, step) for step in slow]
                inside.wait(30)
                deque(islice(as_completed(ended, 30), THREADS - fit), 0)  # those that find no memory are handed back
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
                go_on.set()
            for each in ended:
                each.result(30)
        assert len(engine.calls) == fit
        assert held < 1.1 * fit * size
        inside.abort()  # so that the other calls need not wait for each other
        house.skip_waits()
        house.drain()
        job = house.get("/api/v1/jobs").json["jobs"][0]
        assert (job["status"], job["counts"]["succeeded"]) == ("succeeded", len(pictures))


def test_a_step_that_is_tried_while_its_model_is_paused_reads_no_pictures(tmp_path):
    def shed(call, _number):
        return ModelUnavailable("no capacity", retry_after=60, cause=Cause.SHED) if call.tier is Tier.ECONOMY else None

    engine = FakeEngine(script=shed)
    with running(tmp_path, engine=engine, workers_count=0, IMAGES_PER_CALL="1") as house:
        house.models["fake-1"] = MODEL
        limiter = LocalLimiter(concurrency=10)
        governed = GovernedEngine(engine, limiter=limiter, models=house.models, pause=lambda _: None)
        scratch = SpoolingScratch()
        scratch.objects = house.scratch.objects
        house.work = replace(house.work, scratch=scratch, limiter=limiter, engine=governed)
        job = accepted(house, house.urls(SHEDS + 3))
        for _ in range(5):
            house.drain()
            house.skip_waits()
        assert len(engine.calls) == SHEDS
        assert scratch.reads == SHEDS
        house.make_overdue()
        house.supervisor.tick()
        assert house.get(f"/api/v1/jobs/{job}").json["status"] == "failed"
