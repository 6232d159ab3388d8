"""A child of workers/alone.py that a picture kills: `python -m tests.fakes.poisoned_child <DATA_DIR> <how>`."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from config.settings import load_settings
from storage.database import Database
from storage.scratch.open import open_scratch
from tests.fakes.deliver import FakeDeliver
from tests.fakes.engine import FakeEngine
from tests.fakes.images import FakeFetch, fake_decode
from tests.fakes.signals import MemorySignals
from tests.fakes.text_reader import FakeTextReader
from workers import alone
from workers.leases import LeaseKeeper
from workers.run import run_lease
from workers.wiring import WorkerParts, ocr_places, webhook_places

POISON = b"img poison"
DEATHS = {"exit": lambda: os._exit(3), "kill": lambda: os.kill(os.getpid(), signal.SIGKILL), "hang": lambda: time.sleep(600)}


def main(folder: str, how: str) -> None:
    answers = alone.answers_apart()
    settings = load_settings({"DATA_DIR": folder})
    database = Database(settings.database_url)

    def die(call: Any, _number: int) -> None:
        if any(picture.data == POISON for picture in call.pictures):
            with (Path(folder) / "deaths").open("a") as deaths:
                deaths.write(f"{len(call.pictures)}\n")
            DEATHS[how]()

    parts = WorkerParts(
        settings=settings,
        database=database,
        scratch=open_scratch(settings),
        signals=MemorySignals(),
        leases=LeaseKeeper(database, lease_seconds=60, step_seconds=600),
        fetch=FakeFetch(),
        decode=fake_decode,
        decoding=ThreadPoolExecutor(1),
        engine=FakeEngine(script=die),
        text_reader=FakeTextReader(),
        ocr_places=ocr_places(settings),
        models={},
        deliver=FakeDeliver(),
        secret_key=b"secret",
        webhook_places=webhook_places(settings),
        owner="alone",
    ).for_one_step()
    alone.serve(lambda lease: run_lease(parts, lease), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
