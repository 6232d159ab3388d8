"""Measures the time to send 3000 records of 10 kB as JSON Lines and as CSV, and the API process's memory meanwhile."""

from __future__ import annotations

import argparse
import tempfile
import time
import urllib.request
from pathlib import Path

from sqlalchemy import select, update

from bench.front_door import front_door, memory
from bench.report import Row, print_report, spread
from storage import schema
from storage.database import Database, now_ms
from storage.job import accepting
from testbed import Service, job_of, serving

IMAGES = 3000
RECORD = {f"field {number}": "x" * 500 for number in range(20)}


def finished_job(folder: Path) -> str:
    """Writes a finished job with IMAGES records directly to the database. Returns its id."""
    database = Database(f"sqlite:///{folder / 'extract-image.db'}")
    jobs, images, steps = schema.jobs_table, schema.images_table, schema.steps_table
    with database.write() as connection:
        account = connection.execute(select(schema.api_keys_table.c.account)).scalars().first()
        new = job_of(str(account), images=IMAGES, chunk=20)
        accepting.accept(connection, new, max_open=1000, max_scratch=10**12)
        connection.execute(update(steps).where(steps.c.job == new.id).values(state="done"))
        connection.execute(update(images).where(images.c.job == new.id).values(state="done", result=RECORD))
        ended = {"status": "succeeded", "result": "[]", "finished_at": now_ms(), "expires_at": now_ms() + 3_600_000}
        connection.execute(update(jobs).where(jobs.c.id == new.id).values(**ended))
    database.close()
    return new.id


def read(service: Service, job: str, wanted: str) -> tuple[float, int]:
    """Reads the results in the `wanted` format. Returns the seconds and the bytes."""
    request = urllib.request.Request(f"{service.url}/api/v1/jobs/{job}/results?format={wanted}")
    request.add_header("Authorization", f"Bearer {service.key}")
    started, size = time.perf_counter(), 0
    with urllib.request.urlopen(request) as answer:
        while piece := answer.read(1 << 20):
            size += len(piece)
    return time.perf_counter() - started, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as service:
        job = finished_job(Path(folder))
        process = front_door(service)
        service.send("GET", f"/api/v1/jobs/{job}")
        at_rest = memory(process, "VmHWM")
        rows: list[Row] = []
        for wanted in ("jsonl", "csv"):
            measured = [read(service, job, wanted) for _ in range(runs)]
            rows.append((f"{wanted}: {measured[0][1] / 1e6:.0f} MB", spread([seconds for seconds, _ in measured], "s"), ""))
        grown = (memory(process, "VmHWM") - at_rest) / 1e6
    print_report(
        f"{IMAGES} records of 10 kB, {runs} runs of each format",
        [*rows, ("the most that the front door's memory grew by", f"{grown:.1f} MB", "a few pages of 50 records")],
    )


if __name__ == "__main__":
    main()
