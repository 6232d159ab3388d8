"""Writes pictures of the console's screens into docs/images/console: `make screenshots`.

The service runs with the fake Gemini, so the pictures show the same each time, except for dates. Its newest job reads papers of
`examples/`, and the fake answers with what stands in them. What it would have after a month, the
charges of each day and two webhooks, is written into its database.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from pipeline.decode.pool import DecoderPool
from pipeline.types import Prepared
from testbed import ROOT, Behaviour, FakeGemini, SeenCall, Service, numbered_picture, serving
from tests.browser.console import ALONE, CHROMIUM, DESKTOP, PHONE, Console, new_console

FOLDER = ROOT / "docs" / "images" / "console"
LOOKS = {"light": (False, DESKTOP), "dark": (True, DESKTOP), "phone": (False, PHONE)}
#: Screens that show one job, and are named with its id.
OF_A_JOB = ("run", "review", "export")
SCREENS = ("new", "fields", "try", *OF_A_JOB, "jobs", "usage", "webhooks", "keys", "health")
JOBS = (("Receipts of May", 8), ("Delivery notes, Hull", 3), ("Business cards", 5))
FIELDS = ("sender", "kind", "number", "date", "total", "currency")
#: What stands in a paper of `examples/`, for each of FIELDS. The model refuses a paper without a record.
PAPERS: dict[str, tuple[Any, ...] | None] = {
    "01-till-receipt.png": ("Marlow & Finch", "receipt", "7F2K-90417", "2026-03-14", 27.66, "GBP"),
    "02-crumpled-receipt.jpg": ("Gasthaus Kupferhirsch", "receipt", "20418", "2026-02-07", 91.10, "EUR"),
    "03-invoice.tiff": ("Lindqvist Optik GmbH", "invoice", "RE-2026-01873", "2026-02-18", 3204.55, "EUR"),
    "06-sideways-menu.jpg": ("Salon de thé Églantine", "menu", None, None, 12.50, "EUR"),
    "07-business-card.heic": ("Brandt & Okoye", "business card", None, None, None, None),
    "08-catalogue-page.webp": ("Lumen & Loft", "catalogue", None, "2026-11-30", None, "EUR"),
    "09-ferry-banner.gif": None,
    "11-shipping-label.png": ("Bramble & Thread Ltd", "label", "SM 4826 0091 7355 FR", None, 184.00, "GBP"),
}
PAPER_SCHEMA = {
    "type": "object",
    "properties": {
        name: {"type": ["number", "null"] if name == "total" else "string" if name in ("sender", "kind") else ["string", "null"]}
        for name in FIELDS
    },
    "required": ["sender", "kind"],
}


def reader() -> Callable[[SeenCall], Behaviour | None]:
    """A script for the fake, which reads PAPERS."""
    known: dict[str, tuple[Any, ...] | None] = {}
    with DecoderPool(1) as decode:
        for name, record in PAPERS.items():
            [paper] = decode([(ROOT / "examples" / name).read_bytes()])
            assert isinstance(paper, Prepared)
            known[hashlib.sha256(paper.data).hexdigest()] = record

    def script(call: SeenCall) -> Behaviour | None:
        papers = dict(zip(call.labels, map(known.get, call.sha256s), strict=True))
        if any(sha not in known for sha in call.sha256s):
            return None
        if not all(papers.values()):
            return Behaviour(finish="SAFETY")
        read = [{"index": label, **dict(zip(FIELDS, values or (), strict=True))} for label, values in papers.items()]
        return Behaviour(records=lambda _records: read)

    return script


def run_jobs(service: Service) -> str:
    """Sends jobs and waits until they have ended. Returns the id of the newest."""
    job = ""
    text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    papers = [(ROOT / "examples" / name).read_bytes() for name in PAPERS]
    jobs = [(name, [numbered_picture(number) for number in range(count)], [], text) for name, count in JOBS]
    for name, pictures, ids, schema in [*jobs, ("Papers of March", papers, list(PAPERS), PAPER_SCHEMA)]:
        body = {
            "inputMethod": "base64",
            "images": [base64.b64encode(picture).decode() for picture in pictures],
            "prompt": f"{name}: what does it say?",
            "name": name,
            "metadata": {"name": name},
            "schema": schema,
            "keepInputsSeconds": 3600,
            "imagesPerCall": 1,
            **({"customIds": ids} if ids else {}),
        }
        status, _, made = service.send("POST", "/api/v1/jobs", json.dumps(body).encode())
        assert status == 202, made
        job = made["id"]
        service.follow(f"/api/v1/jobs/{job}")
    return job


def age(database: Path, job: str) -> None:
    """Writes a month of charges into the ledger, and two deliveries of webhooks about the job."""
    now, day = int(time.time() * 1000), 86_400_000
    chance = random.Random(7)
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        [account] = connection.execute("SELECT account FROM jobs WHERE id = ?", [job]).fetchone()
        for back in range(1, 30):
            weekend = time.gmtime((now - back * day) / 1000).tm_wday > 4
            pictures = chance.randrange(0, 40) if weekend else chance.randrange(120, 700)
            row = (-back, account, f"job_{back}", pictures, pictures * 310_000, now - back * day)
            if pictures:
                connection.execute(
                    "INSERT INTO ledger (id, account, job, round, kind, amount, money, created_at) VALUES (?, ?, ?, 1, 'charge', ?, ?, ?)",
                    row,
                )
        for at, (state, status, said) in enumerate((("delivered", 204, ""), ("dead", 500, "the stock system is being updated"))):
            made = now - (at + 1) * 3_700_000
            attempt = {"at": made, "status": status, "error": "", "ms": 84 + 900 * at, "text": said}
            body = json.dumps({"type": "job.succeeded", "data": {"id": job, "status": "succeeded"}})
            connection.execute(
                "INSERT INTO deliveries (id, job, round, account, url, event, body, state, attempts, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    f"dlv_{at}",
                    job,
                    at + 1,
                    account,
                    "https://till.example/hooks/receipts",
                    "job.succeeded",
                    body,
                    state,
                    json.dumps([attempt] * (1 + 4 * at)),
                    made,
                ),
            )


def prepare(console: Console) -> None:
    """Chooses the papers and their fields, and tries these on three papers: what the screens new, fields and try show."""
    page = console.page
    page.locator("input[type=file]").first.set_input_files([ROOT / "examples" / name for name in PAPERS])
    expect(page.locator(".shot img[src]")).to_have_count(len(PAPERS))
    page.get_by_role("button", name="Next: fields").click()
    page.get_by_label("JSON Schema").last.fill(json.dumps(PAPER_SCHEMA))
    page.get_by_role("button", name="Next: try on three").click()
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("The records are there.")).to_be_attached()


def settle(console: Console, screen: str) -> None:
    """Waits until the pictures of a screen are there."""
    if screen == "review":
        console.page.get_by_role("row").nth(1).get_by_role("gridcell").nth(1).click()
        expect(console.page.locator(".viewer-level")).to_have_text(re.compile(r"\d+%"))
    if screen == "run":
        expect(console.page.locator(".pic img[src]")).to_have_count(len(PAPERS))
    console.page.wait_for_function("[...document.images].every(image => !image.src || image.naturalWidth)")


def write(service: Service) -> None:
    job = run_jobs(service)
    age(service.folder / "extract-image.db", job)
    FOLDER.mkdir(parents=True, exist_ok=True)
    here = [screen for screen in SCREENS if (ROOT / "api" / "console" / "assets" / f"{screen}.js").exists()]
    with sync_playwright() as playwright:
        expect.set_options(timeout=60_000)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE)
        for look, (dark, size) in LOOKS.items():
            console = new_console(browser, service, dark=dark, size=size)
            console.sign_in()
            prepare(console)
            for screen in here:
                console.go(f"{screen}/{job}" if screen in OF_A_JOB else screen)
                settle(console, screen)
                drawn = Image.open(io.BytesIO(console.page.screenshot()))
                drawn.convert("RGB").save(FOLDER / f"{screen}-{look}.webp", quality=82, method=6)
            console.context.close()
        browser.close()


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        FakeGemini(blocked={2}, script=reader()) as fake,
        serving(Path(folder) / "data", ENGINE="gemini", GEMINI_API_KEY=fake.key, GEMINI_BASE_URL=fake.base_url) as service,
    ):
        write(service)


if __name__ == "__main__":
    main()
