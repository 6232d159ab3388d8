"""Runs a job of 3000 images with evidence on production's parts while its workers are killed, and checks the outcome.

The images are 40 drawn receipts, each sent 75 times. A fake model answers with the truth of each receipt, in which some values are
planted wrong. The same job runs without evidence first. Then the bench checks that every record is the same, that every image has
evidence or a coded reason, and that nothing is left in scratch or held.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from PIL import Image

from bench.report import print_report
from testbed import (
    ROOT,
    Behaviour,
    FakeGemini,
    Production,
    SeenCall,
    Service,
    eventually,
    pictures,
    postgres,
    production,
    seaweedfs,
)

sys.path.append(str(ROOT / "examples"))
import ink

IMAGES, DISTINCT = 3000, 40
WORKERS = ("worker-1", "worker-2")
SETTINGS = {"LEASE_SECONDS": "4", "WORKER_CONCURRENCY": "8"}
#: Of so many receipts one has a wrong total, and one has a note in a script that the OCR does not read.
WRONG, UNREAD = 8, 20
SHOPS = ("Lumen & Loft", "Corner Bakery", "Harbour Books", "North Garden", "Old Mill Cycles")
TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {
        "shop": TEXT,
        "number": TEXT,
        "date": TEXT,
        "total": {"type": "number"},
        "paid": {"type": "boolean"},
        "note": TEXT,
    },
    "required": ["shop", "number", "date", "total", "paid", "note"],
}
BODY = {
    "inputMethod": "url",
    "prompt": "Read the receipt.",
    "granularity": "perImage",
    "schema": SCHEMA,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """One drawn receipt."""

    data: bytes  #: JPEG
    record: dict[str, Any]  #: what the model answers
    unsupported: list[str]  #: pointers of the values that are planted wrong


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A job that has ended, and what it left behind."""

    job: dict[str, Any]
    items: list[dict[str, Any]]
    seconds: float
    kills: int
    charged: int


def receipt(number: int) -> Receipt:
    """The receipt with this number. The same number gives the same bytes."""
    shop, code = SHOPS[number % len(SHOPS)], f"R-{7310 + 37 * number}"
    cents = 1250 + 317 * number
    picture = Image.new("RGB", (420, 260), ink.WHITE)
    pen = ink.Pen(picture)
    pen.text((20, 44), shop, 26, face="Sans-Bold")
    pen.text((20, 92), f"Receipt no. {code}", 18)
    pen.text((20, 126), f"Date {number % 28 + 1:02}.{number % 12 + 1:02}.2026", 18)
    pen.text((20, 176), "Total", 22)
    pen.text((400, 176), f"{cents / 100:.2f} EUR", 22, anchor="rs")
    pen.text((20, 226), "Thank you for your visit", 16)
    file = BytesIO()
    picture.save(file, "JPEG", quality=80)
    wrong, unread = number % WRONG == 3, number % UNREAD == 5
    record = {
        "shop": shop,
        "number": code,
        "date": f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}",
        "total": (cents + (1000 if wrong else 0)) / 100,
        "paid": True,
        "note": "Спасибо" if unread else "Thank you for your visit",
    }
    return Receipt(data=file.getvalue(), record=record, unsupported=["/total"] if wrong else [])


def model(receipts: list[Receipt]) -> FakeGemini:
    """A fake model that answers with the record of each receipt."""
    by_content = {hashlib.sha256(each.data).hexdigest(): each.record for each in receipts}

    def script(call: SeenCall) -> Behaviour:
        return Behaviour(
            records=lambda _: [
                {"index": label, **by_content[sha256]} for label, sha256 in zip(call.labels, call.sha256s, strict=True)
            ]
        )

    return FakeGemini(script=script)


class Killer:
    """Kills one worker after the other with SIGKILL, and starts each again at once."""

    def __init__(self, cluster: Production, *, every: float, most: int) -> None:
        """`every`: seconds between two kills."""
        self.kills = 0
        self._cluster, self._every, self._most = cluster, every, most
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while self.kills < self._most and not self._over.wait(self._every):
            name = WORKERS[self.kills % len(WORKERS)]
            self._cluster.stop(name, signal.SIGKILL)
            self._cluster.start(name)
            self.kills += 1


def run(cluster: Production, client: Service, urls: list[str], killer: Killer, **asked: Any) -> Outcome:
    """Sends the job, kills workers until it has ended, and reads its items."""
    before = cluster.balance()["charged"]
    started = time.monotonic()
    with killer:
        status, headers, answer = client.extract({**BODY, "images": urls, **asked}, {"Prefer": "respond-async"})
        assert status == 202, answer
        job = client.follow(headers["location"])
    seconds = time.monotonic() - started
    items = list(items_of(client, headers["location"]))
    return Outcome(job=job, items=items, seconds=seconds, kills=killer.kills, charged=cluster.balance()["charged"] - before)


def items_of(client: Service, path: str) -> Iterator[dict[str, Any]]:
    """All items of a job, page by page."""
    query = "?limit=500"
    while query:
        _, _, page = client.send("GET", f"{path}/items{query}")
        yield from page["items"]
        query = f"?limit=500&cursor={page['nextCursor']}" if page.get("nextCursor") else ""


def faults_of(plain: Outcome, found: Outcome, receipts: list[Receipt]) -> dict[str, int]:
    """How often each thing that must not happen has happened."""
    faults: Counter[str] = Counter()
    for one, other in zip(plain.items, found.items, strict=True):
        truth = receipts[one["index"] % DISTINCT]
        faults["records that differ"] += one["result"] != other["result"] or other["result"] != truth.record
        faults["images without evidence or a coded reason"] += not (
            other["evidence"] or (other["evidenceError"] or {}).get("code")
        )
        if other["evidence"]:
            faults["values without a place"] += len(truth.record) - len(other["evidence"])
            faults["images whose unsupported values are not the planted ones"] += other["unsupported"] != truth.unsupported
    return dict(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--every", type=float, default=8.0, help="seconds between two kills")
    parser.add_argument("--kills", type=int, default=10, help="the most kills")
    parser.add_argument("--keep", type=Path, help="a folder for the logs of the processes")
    asked = parser.parse_args()
    receipts = [receipt(number) for number in range(DISTINCT)]
    with ExitStack() as stack:
        folder = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fake = stack.enter_context(model(receipts))
        web = stack.enter_context(pictures())
        pages = [web.page(f"{number}.jpg", each.data) for number, each in enumerate(receipts)]
        urls = [f"{pages[number % DISTINCT]}" for number in range(asked.images)]
        server = stack.enter_context(postgres())
        s3 = stack.enter_context(seaweedfs(folder / "weed"))
        cluster = stack.enter_context(
            production(
                folder / "bench",
                server=server,
                s3=s3,
                fake=fake,
                names=("web-1", *WORKERS, "supervisor"),
                FETCH_ALLOW=web.allow,
                **SETTINGS,
            )
        )
        client = cluster.client("web-1", cluster.new_key())
        plain = run(cluster, client, urls, Killer(cluster, every=asked.every, most=0))
        found = run(
            cluster,
            client,
            urls,
            Killer(cluster, every=asked.every, most=asked.kills),
            evidence=True,
            reviewWhen=["unsupported", "failed"],
        )
        eventually(lambda: cluster.scratch() == [], 60)
        left, held = cluster.scratch(), cluster.balance()["held"]
        faults = faults_of(plain, found, receipts)
    codes = Counter((item["evidenceError"] or {}).get("code", "none") for item in found.items)
    price = 10 + asked.images
    print_report(
        f"{asked.images} images with evidence, {DISTINCT} different ones, {found.kills} kills of a worker",
        [
            ("from POST to the end without evidence, no kills", f"{plain.seconds:.0f} s", ""),
            ("from POST to the end with evidence", f"{found.seconds:.0f} s", ""),
            ("images that succeeded", f"{found.job['counts']['succeeded']}", f"{asked.images}"),
            *((name, str(count), "0") for name, count in faults.items()),
            ("images by the code of their evidence", json.dumps(codes), ""),
            ("images that need a review", f"{found.job['counts']['needsReview']}", f"{expected_reviews(receipts, asked.images)}"),
            ("credits charged, without and with evidence", f"{plain.charged}, {found.charged}", f"{price}, {price}"),
            ("objects left in scratch", str(len(left)), "0"),
            ("credits held", str(held), "0"),
        ],
    )


def expected_reviews(receipts: list[Receipt], images: int) -> int:
    """How many images have a planted value."""
    return sum(bool(receipts[number % DISTINCT].unsupported) for number in range(images))


if __name__ == "__main__":
    main()
