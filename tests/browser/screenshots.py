"""Writes pictures of the console's screens into docs/images/console: `make screenshots`.

The service runs with the fake Gemini, so the pictures show the same each time, except for dates. What it would have after a month, the
charges of each day and two webhooks, is written into its database.
"""

from __future__ import annotations

import base64
import io
import json
import random
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from testbed import ROOT, FakeGemini, Service, numbered_picture, serving
from tests.browser.console import ALONE, CHROMIUM, DESKTOP, PHONE, new_console

FOLDER = ROOT / "docs" / "images" / "console"
LOOKS = {"light": (False, DESKTOP), "dark": (True, DESKTOP), "phone": (False, PHONE)}
#: Screens that show one job, and are named with its id.
OF_A_JOB = ("run", "review", "export")
SCREENS = ("new", "fields", "try", *OF_A_JOB, "jobs", "usage", "webhooks", "keys", "health")
JOBS = (("Receipts of May", 8), ("Delivery notes, Hull", 3), ("Business cards", 5))


def run_jobs(service: Service) -> str:
    """Sends jobs and waits until they have ended. Returns the id of the newest."""
    job = ""
    for name, count in JOBS:
        pictures = [base64.b64encode(numbered_picture(number)).decode() for number in range(count)]
        body = {
            "inputMethod": "base64",
            "images": pictures,
            "prompt": f"{name}: what does it say?",
            "name": name,
            "metadata": {"name": name},
            "schema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
            "keepInputsSeconds": 3600,
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
            for screen in here:
                console.go(f"{screen}/{job}" if screen in OF_A_JOB else screen)
                drawn = Image.open(io.BytesIO(console.page.screenshot()))
                drawn.convert("RGB").save(FOLDER / f"{screen}-{look}.webp", quality=82, method=6)
            console.context.close()
        browser.close()


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        FakeGemini(blocked={2}) as fake,
        serving(Path(folder) / "data", ENGINE="gemini", GEMINI_API_KEY=fake.key, GEMINI_BASE_URL=fake.base_url) as service,
    ):
        write(service)


if __name__ == "__main__":
    main()
