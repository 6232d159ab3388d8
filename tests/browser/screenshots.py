"""Writes pictures of the console's screens into docs/images/console: `make screenshots`.

The service runs with the fake Gemini, so the pictures show the same each time, except for dates.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
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


def write(service: Service) -> None:
    job = run_jobs(service)
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
