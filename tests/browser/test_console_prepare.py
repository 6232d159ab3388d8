"""The console's screens that prepare a run, in a real browser: pictures, fields, a try on three, and sending on the fake Gemini."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from testbed import FakeGemini, Service, numbered_picture
from tests.browser.console import BROWSER_TESTS, PHONE, Console

pytestmark = BROWSER_TESTS

HTML = "<img src=x onerror=alert(1)>.png"  #: a file name that would run a script if a screen took it for HTML
PASTE = """text => { const data = new DataTransfer(); data.setData("text/plain", text);
    document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true})); }"""
DROP = """([name, bytes]) => { const data = new DataTransfer(); data.items.add(new File([new Uint8Array(bytes)], name));
    for (const type of ["dragover", "drop"])
        document.querySelector(".drop").dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true})); }"""


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """What the tests of this module share."""

    service: Service
    fake: FakeGemini
    folder: Path  #: with 5 pictures, one of them in a folder within, and 3 files that are none


Open = Callable[..., Console]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, service: Service, fake: FakeGemini) -> House:
    folder = tmp_path_factory.mktemp("prepare") / "folder"
    (folder / "inner").mkdir(parents=True)
    for number in (1, 2, 10):
        (folder / f"receipt {number}.jpg").write_bytes(numbered_picture(number, format="JPEG", size=(320, 240)))
    (folder / HTML).write_bytes(numbered_picture(3))
    (folder / "inner" / "photo.png").write_bytes(numbered_picture(4))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"This is a text.")
    (folder / "letter.pdf").write_bytes(b"%PDF-1.7")
    return House(service=service, fake=fake, folder=folder)


def opened(open_console: Open, house: House, **options: object) -> Page:
    """The screen of pictures, with those of the folder."""
    page = open_console(house.service, **options).page
    page.locator("input[webkitdirectory]").set_input_files(house.folder)
    expect(page.get_by_text("8 pictures, 3 can't be used")).to_be_visible()
    return page


def with_template(page: Page, name: str) -> None:
    page.get_by_role("button", name="Next: fields").click()
    page.get_by_role("button", name=name, exact=True).click()


def schema_of(page: Page) -> dict[str, object]:
    return dict(json.loads(page.get_by_label("JSON Schema").last.input_value()))


def test_a_folder_is_read_with_a_template_and_every_picture_is_sent_once(open_console: Open, house: House):
    page = opened(open_console, house)
    names = page.locator(".shot .name").all_inner_texts()
    assert names.index("receipt 1.jpg") < names.index("receipt 2.jpg") < names.index("receipt 10.jpg")
    with_template(page, "Receipt")
    page.get_by_label("Name of the run").fill("Receipts <b>of May</b>")
    page.get_by_role("button", name="Read all 5").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("of your 100,000")).to_be_visible()
    dialog.get_by_role("button", name="Read 5 pictures for 15 credits").click()
    page.wait_for_url(re.compile(r"#/run/job_\w+$"))
    job = house.service.follow(f"/api/v1/jobs/{page.url.rpartition('/')[2]}")
    assert job["counts"] == {"total": 5, "succeeded": 5, "failed": 0}
    _, _, answer = house.service.send("GET", f"/api/v1/jobs/{job['id']}/items")
    assert {item["result"]["total"] for item in answer["items"]} == {1, 2, 3, 4, 10}
    assert house.fake.faults == []


def test_files_and_addresses_are_one_batch_and_a_broken_connection_makes_no_second_job(open_console: Open, house: House):
    page = opened(open_console, house)
    page.evaluate(PASTE, "https://pictures.example/a.jpg")
    keys: list[str] = []

    def lose_the_first_answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.abort()
        else:
            route.continue_()

    page.route("**/api/v1/jobs", lose_the_first_answer)
    page.get_by_role("button", name="Next: fields").click()
    page.get_by_role("button", name="Read all 6").click()
    expect(page.get_by_role("dialog").get_by_text("2, shown as one batch")).to_be_visible()
    page.get_by_role("button", name="Read 6 pictures for 26 credits").click()
    page.wait_for_url(re.compile(r"#/run/batch%3Abatch_\w+$"))
    assert len(keys) == 3
    assert keys[0] == keys[1] != keys[2]


def test_what_cannot_be_used_is_marked_before_anything_is_sent(open_console: Open, house: House):
    page = opened(open_console, house)
    page.get_by_label("Only those that can't be used").check()
    tiles = page.get_by_role("listitem").filter(has=page.locator(".off"))
    expect(tiles).to_have_count(3)
    for reason in ("The file is empty.", "This is text, not a picture.", "A PDF is no picture"):
        expect(page.get_by_text(reason)).to_be_visible()
    page.get_by_role("button", name="Remove what can't be used").click()
    expect(page.get_by_text("5 pictures.")).to_be_visible()
    expect(page.get_by_text(HTML)).to_be_visible()
    assert page.locator(".shot img").count() == 5


def test_addresses_are_pasted_and_a_picture_is_dropped(open_console: Open, house: House):
    page = open_console(house.service).page
    page.evaluate(PASTE, "https://pictures.example/a.jpg\nhttps://pictures.example/b.jpg")
    expect(page.get_by_text("2 pictures.")).to_be_visible()
    page.get_by_role("button", name="Paste URLs").click()
    page.get_by_label("Addresses of pictures, one a line").fill(
        "https://pictures.example/a.jpg\nftp://pictures.example/c.jpg\nno address"
    )
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("5 pictures, 2 can't be used, 1 perhaps there twice")).to_be_visible()
    page.evaluate(DROP, ["dropped.png", list(numbered_picture(9))])
    expect(page.get_by_text("6 pictures, 2 can't be used")).to_be_visible()
    expect(page.get_by_text("in 2 jobs, shown as one batch.")).to_be_visible()


def test_the_table_and_the_schema_are_kept_in_step(open_console: Open, house: House):
    page = opened(open_console, house)
    with_template(page, "Invoice")
    page.get_by_label("Name", exact=True).first.fill("number")
    page.get_by_label("number is required").uncheck()
    schema = schema_of(page)
    assert next(iter(schema["properties"])) == "number"
    assert "number" not in schema["required"]
    editor = page.get_by_label("JSON Schema").last
    editor.fill('{"type": "object", "properties": {"total": {"type": ["number", "null"], "minimum": 0}}}')
    expect(page.get_by_label("Type of total")).to_have_value("number")
    expect(page.get_by_text("Also in the JSON: minimum")).to_be_visible()
    page.get_by_label("Description of total").fill("What was paid")
    assert schema_of(page)["properties"] == {"total": {"type": ["number", "null"], "description": "What was paid", "minimum": 0}}
    editor.fill('{\n  "type": "object",\n  "properties": oops\n}')
    expect(page.get_by_text("Line 3:")).to_be_visible()
    expect(page.get_by_role("button", name="Next: try on three")).to_have_attribute("aria-disabled", "true")
    total = {"anyOf": [{"type": "number"}, {"type": "string"}]}
    editor.fill(json.dumps({"type": "object", "properties": {"total": total, "day": {"type": "string"}}}))
    expect(page.get_by_label("Type of total")).to_have_value("json")
    page.get_by_label("day is required").check()
    assert schema_of(page) == {"type": "object", "properties": {"total": total, "day": {"type": "string"}}, "required": ["day"]}
    expect(page.get_by_role("button", name="Next: try on three")).not_to_have_attribute("aria-disabled", "true")
    editor.fill('{"type": "array", "items": {"type": "string"}}')
    expect(page.get_by_text("Only the JSON can be edited.")).to_be_visible()


def test_every_template_can_be_shown_and_is_taken_by_the_service(open_console: Open, house: House):
    page = opened(open_console, house, size=PHONE)
    page.get_by_role("button", name="Next: fields").click()
    for name in ("Receipt", "Invoice", "Business card", "Product", "ID", "Table"):
        page.get_by_role("button", name=name, exact=True).click()
        if page.get_by_role("dialog").count():
            page.get_by_role("button", name="Replace").click()
        expect(page.get_by_text(f"of the template “{name}”")).to_be_visible()
        body = {"inputMethod": "url", "images": ["https://pictures.example/a.jpg"], "prompt": "x", "schema": schema_of(page)}
        status, _, answer = house.service.send("POST", "/api/v1/extract-image/estimate", json.dumps(body).encode())
        assert status == 200, answer
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_two_prompts_are_tried_side_by_side_and_stay_when_one_comes_back(open_console: Open, house: House):
    page = opened(open_console, house, dark=True)
    with_template(page, "Receipt")
    page.get_by_role("button", name="Next: try on three").click()
    page.get_by_role("button", name="Compare with another model or prompt").click()
    second = page.get_by_role("region", name="Column B")
    second.get_by_label("Prompt").fill("Read it in another way")
    second.get_by_label("Model").select_option("gemini-3.8-flash")
    for column in "AB":
        page.get_by_role("button", name=f"Run {column}").click()
        expect(page.get_by_role("button", name=f"Run {column} again")).to_be_visible()
    record = page.get_by_role("region", name=re.compile("Record of .*receipt 1.jpg"))
    expect(record.get_by_role("row").filter(has_text="total")).to_have_text(re.compile("total.*1.*1"))
    expect(second.get_by_text("13 credits")).to_be_visible()
    picture, beside = page.locator("article img").first.bounding_box(), record.first.bounding_box()
    assert picture
    assert beside
    assert picture["x"] + picture["width"] <= beside["x"], "the picture covers its record"
    assert {call.model for call in house.fake.calls} >= {"gemini-3.5-flash-lite", "gemini-3.8-flash"}
    page.get_by_role("link", name="Edit the fields").click()
    page.get_by_role("button", name="Remove total").click()
    page.get_by_role("navigation", name="Steps").get_by_role("link", name="Try").click()
    expect(page.get_by_text("changed since: run again")).to_have_count(2)
    expect(record.first).to_be_visible()


def test_a_run_is_prepared_and_sent_by_the_keyboard_alone(open_console: Open, house: House):
    page = opened(open_console, house)

    def reach(role: str, name: str) -> None:
        target = page.get_by_role(role, name=name, exact=True)
        for _ in range(60):
            if target.evaluate("element => element === document.activeElement"):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach the {role} {name}")

    page.locator("h1").click()
    reach("button", "Remove all")
    for key in ("Tab", "Tab", "ArrowRight"):  # the list, the first picture's button, the second's
        page.keyboard.press(key)
    page.keyboard.press("Delete")
    expect(page.get_by_text("7 pictures")).to_be_visible()
    page.locator("h1").click()
    reach("button", "Next: fields")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="What should be read?")).to_be_visible()
    reach("button", "ID")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Type of surname")).to_be_visible()
    page.locator("h1").click()
    reach("button", "Next: try on three")
    page.keyboard.press("Enter")
    reach("button", "Run")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Run again")).to_be_visible()
    page.locator("h1").click()
    reach("button", "Read all 5")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"#/run/job_\w+$"))
