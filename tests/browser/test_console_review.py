"""The console's screens of a run: it is followed to its end, its records are reviewed beside their pictures, and exported."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from threading import Event
from typing import Any
from urllib.request import Request, urlopen

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from testbed import FakeGemini, Service, numbered_picture
from tests.browser.console import BROWSER_TESTS, PHONE
from tests.fakes.gemini_behaviours import held

pytestmark = BROWSER_TESTS

SCHEMA = {
    "type": "object",
    "properties": {
        "shop": {"type": "string"},
        "total": {"type": ["number", "null"], "maximum": 1000},
        "paid": {"type": "boolean"},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"price": {"type": "number"}}}},
    },
    "required": ["shop", "total"],
}
HURT = '<img src=x onerror="window.hurt=1">'


def send(service: Service, count: int, names: list[str] | None = None, **fields: Any) -> str:
    """Sends numbered pictures as files, and returns the job's id."""
    mark = uuid.uuid4().hex
    asked = {"prompt": "Read it.", "schema": SCHEMA, "keepInputsSeconds": 600, "imagesPerCall": 1, **fields}
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value if isinstance(value, str) else json.dumps(value)}'.encode()
        for name, value in asked.items()
        if value is not None
    ]
    for n, name in enumerate(names or [f"receipt-{n}.png" for n in range(count)]):
        quoted = name.replace('"', "%22")
        head = f'Content-Disposition: form-data; name="images"; filename="{quoted}"\r\nContent-Type: image/png\r\n\r\n'
        parts.append(head.encode() + numbered_picture(n))
    body = b"".join(b"--" + mark.encode() + b"\r\n" + part + b"\r\n" for part in parts) + f"--{mark}--\r\n".encode()
    status, _, job = service.send("POST", "/api/v1/jobs", body, {"Content-Type": f"multipart/form-data; boundary={mark}"})
    assert status == 202, job
    return str(job["id"])


@pytest.fixture(scope="module")
def ended(service: Service) -> str:
    """A run of three records that has ended, for tests that change nothing in it."""
    job = send(service, 3)
    assert service.follow(f"/api/v1/jobs/{job}")["status"] == "succeeded"
    return job


def records(service: Service, job: str, **options: Any) -> list[dict[str, Any]]:
    """The items of a job. `options`: of json.loads."""
    request = Request(f"{service.url}/api/v1/jobs/{job}/items", headers={"Authorization": f"Bearer {service.key}"})
    with urlopen(request, timeout=30) as answer:
        return list(json.loads(answer.read(), **options)["items"])


def reviewed(console, job: str) -> Page:
    console.go(f"review/{job}")
    expect(console.page.get_by_role("grid")).to_be_visible()
    return console.page


def test_a_run_is_followed_to_its_end_and_its_failures_are_retried(open_console, service: Service, fake: FakeGemini):
    go_on = Event()
    fake.script, fake.blocked = (lambda _call: held(go_on)), {2}
    job = send(service, 5)
    console = open_console(service)
    console.go(f"run/{job}")
    page = console.page
    expect(page.get_by_role("heading", level=1, name="The run works")).to_be_visible()
    go_on.set()
    expect(page.get_by_role("heading", level=1, name="The run has ended")).to_be_visible()
    expect(page.locator(".pic.good")).to_have_count(4)
    expect(page.get_by_text("safety_blocked")).to_be_visible()
    expect(page.get_by_text("Another model may take it")).to_be_visible()
    expect(page.get_by_role("row", name="Credits")).to_contain_text("at most 15")
    fake.script, fake.blocked = None, set()
    page.get_by_role("button", name="Retry 1 picture").click()
    expect(page.get_by_text("✓ 5 read")).to_be_visible()
    expect(page.get_by_role("heading", name="pictures failed")).to_have_count(0)
    page.reload()
    expect(page.get_by_text("5 of 5")).to_be_visible()
    page.get_by_role("link", name="Review the records").click()
    console.wait("review")


def test_a_retry_says_what_to_do_when_the_pictures_are_gone(open_console, service: Service, fake: FakeGemini):
    fake.blocked = {1}
    job = send(service, 2, keepInputsSeconds=None)
    service.follow(f"/api/v1/jobs/{job}")
    fake.blocked = set()
    console = open_console(service)
    console.go(f"run/{job}")
    console.page.get_by_role("button", name="Retry 1 picture").click()
    expect(console.page.get_by_role("dialog")).to_contain_text("did not keep these pictures")
    console.page.keyboard.press("Escape")
    console.go(f"review/{job}")
    expect(console.page.get_by_text("The picture is no longer kept.")).to_be_visible()


def test_a_run_is_cancelled_and_deleted_after_a_question(open_console, service: Service, fake: FakeGemini):
    fake.latency = 20
    job = send(service, 2)
    console = open_console(service)
    console.go(f"run/{job}")
    page = console.page
    page.get_by_role("button", name="Cancel the run").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the run").click()
    expect(page.locator("main .badge").first).to_have_text("cancelled")
    fake.latency = 0.0
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    console.wait("jobs")
    assert service.send("GET", f"/api/v1/jobs/{job}")[0] == 404


def test_records_are_corrected_and_checked_by_the_keyboard_alone_and_exported_so(open_console, service: Service):
    job = send(service, 3)
    service.follow(f"/api/v1/jobs/{job}")
    console = open_console(service)
    page = reviewed(console, job)
    keys = page.keyboard
    for key in ("j", "ArrowRight", "ArrowRight", "Enter"):
        keys.press(key)
    expect(page.get_by_label("total", exact=True)).to_be_focused()
    keys.type("12,5")
    keys.press("Enter")
    expect(page.get_by_text("Corrected by")).to_be_visible()
    expect(page.get_by_role("row").nth(2)).to_contain_text("12.5")
    expect(page.locator('[data-n="1"] [data-column="2"]')).to_be_focused()
    keys.press("c")
    expect(page.get_by_text("1 of 3 checked")).to_be_visible()
    expect(page.locator('[data-n="2"] [data-column="2"]')).to_be_focused()
    keys.press("f")
    expect(page.get_by_label("Show")).to_be_focused()
    page.get_by_label("Show").select_option("corrected")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_label("Show").select_option("unchecked")
    expect(page.get_by_role("row")).to_have_count(3)
    page.get_by_label("Show").select_option("all")
    keys.press("Escape")
    keys.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("mark as checked")
    keys.press("Escape")
    corrected = records(service, job)[1]
    assert corrected["corrections"]["record"]["total"] == 12.5
    assert corrected["result"]["total"] == 1
    assert table(console, job)[1]["total"] == "12.5"
    console.page.get_by_label("As the model read them").check()
    assert downloaded(console, "CSV")[1]["total"] == "1"
    reviewed(console, job)
    page.get_by_role("row").nth(2).get_by_role("gridcell", name="12.5").click()
    page.get_by_role("button", name="Undo the correction of total").click()
    expect(page.get_by_text("Corrected by")).to_have_count(0)
    assert "record" not in records(service, job)[1]["corrections"]


def table(console, job: str) -> list[dict[str, str]]:
    console.go(f"export/{job}")
    return downloaded(console, "CSV")


def downloaded(console, form: str) -> list[dict[str, str]]:
    with console.page.expect_download() as waiting:
        console.page.get_by_role("button", name=f"Download {form}").click()
    return list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8-sig"))))


def test_a_wrong_value_is_refused_at_its_field_and_a_change_by_another_is_not_overwritten(open_console, service: Service):
    job = send(service, 1)
    service.follow(f"/api/v1/jobs/{job}")
    page = reviewed(open_console(service), job)
    total = page.get_by_label("total", exact=True)
    total.fill("many")
    total.press("Enter")
    expect(page.get_by_text("“many” is no number")).to_be_visible()
    expect(total).to_have_attribute("aria-invalid", "true")
    total.fill("2000")
    total.press("Enter")
    expect(page.get_by_text("does not fit the job's schema")).to_be_visible()
    body = json.dumps({"changes": {"/shop": "theirs"}}).encode()
    service.send("PATCH", f"/api/v1/jobs/{job}/items/0", body)
    total.fill("7")
    total.press("Enter")
    expect(page.get_by_text("Somebody else has changed this record")).to_be_visible()
    page.get_by_role("button", name="Load it anew").click()
    expect(page.get_by_label("shop", exact=True)).to_have_value("theirs")
    page.get_by_label("total", exact=True).fill("")
    page.get_by_label("total", exact=True).press("Enter")
    expect(page.get_by_label("total", exact=True)).to_have_attribute("placeholder", "nothing")
    page.get_by_role("button", name="Add an entry to lines").click()
    expect(page.get_by_role("button", name="Remove lines 2")).to_be_visible()
    record = records(service, job)[0]["corrections"]["record"]
    assert (record["shop"], record["total"], len(record["lines"])) == ("theirs", None, 2)


def test_numbers_keep_their_digits_when_another_value_is_corrected(open_console, service: Service):
    job = send(service, 1)
    service.follow(f"/api/v1/jobs/{job}")
    body = b'{"record": {"shop": "a", "total": 1.10, "paid": true, "lines": [{"price": 9007199254740993}, {"price": 2.50}]}}'
    service.send("PATCH", f"/api/v1/jobs/{job}/items/0", body)
    page = reviewed(open_console(service), job)
    expect(page.get_by_label("total", exact=True)).to_have_value("1.10")
    expect(page.get_by_label("price", exact=True).first).to_have_value("9007199254740993")
    page.get_by_label("shop", exact=True).fill("b")
    page.get_by_label("shop", exact=True).press("Enter")
    expect(page.get_by_role("gridcell", name="corrected: b")).to_be_visible()
    page.get_by_role("button", name="Remove lines 2").click()
    expect(page.get_by_role("button", name="Remove lines 2")).to_have_count(0)
    stored = records(service, job, parse_float=str)[0]["corrections"]["record"]
    assert (stored["shop"], stored["total"], stored["lines"]) == ("b", "1.10", [{"price": 9007199254740993}])


def test_another_account_s_run_is_as_if_it_were_not_there(open_console, service: Service, ended: str):
    other = json.loads(service.cli("keys", "create", "other", "--credits", "50", "--json"))["key"]
    console = open_console(service, key=other)
    for address in (f"run/{ended}", "run/batch%3Amissing", f"review/{ended}", f"export/{ended}", "export/job_missing"):
        console.go(address)
        expect(console.page.get_by_role("heading", level=1, name="There is no such run")).to_be_visible()


def test_html_in_prompts_names_and_records_stays_text(open_console, service: Service):
    job = send(service, 2, prompt=HURT, customIds=[HURT, "plain"], names=[f"{HURT}.png", "b.png"])
    service.follow(f"/api/v1/jobs/{job}")
    service.send("PATCH", f"/api/v1/jobs/{job}/items/0", json.dumps({"changes": {"/shop": HURT}}).encode())
    console = open_console(service)
    console.go(f"run/{job}")
    expect(console.page.get_by_role("link", name=HURT)).to_be_visible()
    page = reviewed(console, job)
    expect(page.get_by_role("heading", name=HURT)).to_be_visible()
    expect(page.get_by_label("shop", exact=True)).to_have_value(HURT)
    expect(page.get_by_role("gridcell", name=HURT).first).to_be_visible()
    console.go(f"export/{job}")
    expect(page.locator(".code pre")).to_contain_text(HURT)
    assert page.evaluate("window.hurt") is None


def test_a_value_with_evidence_is_shown_where_it_stands(open_console, service: Service, ended: str):
    console = open_console(service)

    def with_evidence(route):
        answer = route.fetch()
        body = answer.json()
        box = {"match": "exact", "text": "0", "boxes": [[0.5, 0.5, 0.6, 0.55]], "confidence": 0.9}
        body["items"][0]["evidence"] = {"/total": box}
        body["items"][1]["needsReview"] = True
        line = {"text": "Total 12.50", "box": [[1, 2], [9, 2], [9, 4], [1, 4]], "confidence": 0.9}
        body["items"][2]["result"] = {"text": "Total 12.50", "lines": [line]}
        route.fulfill(response=answer, json=body)

    console.page.route(re.compile(r"/items\?"), with_evidence)
    page = reviewed(console, ended)
    expect(page.get_by_label("Show")).to_have_value("review")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_label("Show").select_option("all")
    page.get_by_role("gridcell", name="receipt-0.png").click()
    level = page.locator(".viewer-level")
    expect(level).to_have_text(re.compile(r"\d+%"))
    whole = level.inner_text()
    page.get_by_role("gridcell", name="0", exact=True).first.click()
    expect(page.locator(".viewer-boxes span")).to_have_count(1)
    expect(level).not_to_have_text(whole)
    page.get_by_role("button", name="Fit").click()
    expect(level).to_have_text(whole)
    page.get_by_role("gridcell", name="Total 12.50").click()
    expect(page.get_by_label("confidence")).to_be_visible()
    expect(page.locator(".viewer-boxes span")).to_have_count(1)
    expect(page.get_by_label("box")).to_have_count(0)
    page.get_by_label("Show").select_option("review")
    expect(page.get_by_role("row")).to_have_count(2)


def test_the_review_opens_with_the_records_that_need_a_look_zoomed_to_the_doubtful_value(open_console, service: Service):
    job = send(service, 3)
    service.follow(f"/api/v1/jobs/{job}")
    console = open_console(service)

    def with_doubt(route):
        answer = route.fetch()
        body = answer.json()
        sure = {"match": "exact", "text": "picture 1", "boxes": [[0.1, 0.1, 0.4, 0.2]], "confidence": 0.98}
        doubt = {"match": "fuzzy", "text": "l", "boxes": [[0.5, 0.5, 0.6, 0.55]], "confidence": 0.9}
        found = {"evidence": {"/shop": sure, "/total": doubt}, "unsupported": [], "evidenceError": None, "needsReview": True}
        body["items"][1] |= found
        body["items"][2] |= {"evidence": {"/shop": sure}, "unsupported": ["/total"], "evidenceError": None, "needsReview": True}
        route.fulfill(response=answer, json=body)

    console.page.route(re.compile(r"/items\?"), with_doubt)
    page = reviewed(console, job)
    expect(page.get_by_label("Show")).to_have_value("review")
    expect(page.get_by_role("row")).to_have_count(3)
    expect(page.locator('[data-n="1"] [data-column="2"]')).to_have_attribute("tabindex", "0")
    expect(page.locator(".viewer-boxes span")).to_have_count(1)
    expect(page.get_by_text("The picture seems to have “l”.")).to_be_visible()
    page.keyboard.press("c")
    expect(page.get_by_text("Not seen in the picture.")).to_be_visible()
    expect(page.locator('[data-n="2"] [data-column="2"]')).to_be_focused()
    expect(page.locator(".viewer-boxes span")).to_have_count(0)
    page.keyboard.press("c")
    expect(page.get_by_text("No record fits.")).to_be_visible()


def test_the_code_of_a_run_can_be_pasted(open_console, service: Service, ended: str, tmp_path):
    console = open_console(service)
    console.go(f"export/{ended}")
    for n in range(3):
        (tmp_path / f"receipt-{n}.png").write_bytes(numbered_picture(n))
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    known = {"PATH": paths, "HOME": str(tmp_path), "EXTRACT_IMAGE_KEY": service.key}
    there = {"curl": shutil.which("curl"), "Python": importlib.util.find_spec("requests"), "extract-image run": True}
    for language in filter(there.get, there):
        console.page.get_by_role("tab", name=language).click()
        text = console.page.locator(".code pre").inner_text()
        assert service.key not in text
        shell = ["bash", "-euo", "pipefail", "-c", text.replace("your key", service.key)]
        command = [sys.executable, "-c", text] if language == "Python" else shell
        done = subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text(encoding="utf-8-sig"))))
        assert [row["total"] for row in rows] == ["0", "1", "2"]
        (tmp_path / "results.csv").unlink()


def test_axe_finds_nothing_serious_on_the_screens_of_a_run_in_the_light_and_in_the_dark(
    open_console, service: Service, ended: str
):
    console = open_console(service)
    for screen in ("run", "review", "export"):
        console.go(f"{screen}/{ended}")
        expect(console.page.locator("main h1")).to_be_visible()
        for look in ("light", "dark"):
            console.page.emulate_media(color_scheme=look)
            found = Axe().run(console.page).response["violations"]
            serious = [one for one in found if one["impact"] in {"serious", "critical"}]
            assert [(screen, look, one["id"], one["nodes"][0]["html"]) for one in serious] == []


def test_a_phone_shows_the_table_and_the_picture_as_two_views(open_console, service: Service, ended: str):
    console = open_console(service, size=PHONE)
    for screen in ("run", "export", "review"):
        console.go(f"{screen}/{ended}")
        assert console.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    page = console.page
    expect(page.get_by_label("shop", exact=True)).to_be_hidden()
    page.get_by_role("gridcell", name="receipt-1.png").click()
    expect(page.get_by_label("shop", exact=True)).to_be_visible()
    expect(page.get_by_role("grid")).to_be_hidden()
    page.get_by_role("tab", name="Table").click()
    expect(page.get_by_role("grid")).to_be_visible()
