"""The built documents in a real browser, without a network: they load nothing from elsewhere, the search works, and a phone shows them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.browser.console import BROWSER_TESTS, DESKTOP, PHONE
from tools.site.__main__ import build

pytestmark = BROWSER_TESTS


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the class above
        pass


class Reader:
    """A page with a size and a palette, and what it did since it was opened. What it asks of another host is stopped and noted."""

    def __init__(self, browser: Browser, url: str, *, size: tuple[int, int] = DESKTOP, dark: bool = False) -> None:
        self.url = url
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        self.faults: list[str] = []  #: requests that leave the server, answers that are errors, complaints of the console
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.route(lambda asked: not asked.startswith(f"{url}/"), self._stop)
        self.page.on(
            "response", lambda answer: self.faults.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
        )
        self.page.on("pageerror", lambda error: self.faults.append(f"{self.page.url}: {error}"))
        self.page.on("console", self._note)

    def _stop(self, route) -> None:
        self.faults.append(f"{self.page.url} asked for {route.request.url}")
        route.abort()

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(f"{self.page.url}: {message.text}")

    def open(self, name: str) -> Page:
        self.page.goto(f"{self.url}/{name}")
        return self.page


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site") / "site"
    assert build(target) == []
    return target


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def reader(browser: Browser, url: str):
    opened: list[Reader] = []

    def open_(**options) -> Reader:
        opened.append(Reader(browser, url, **options))
        return opened[-1]

    yield open_
    for one in opened:
        one.context.close()
        assert one.faults == []


@pytest.mark.parametrize("pages", ["*.html", "how-to/*.html", "reference/*.html", "explanation/*.html", "adr/*.html"])
def test_no_page_asks_another_host_or_is_wider_than_a_phone(pages, reader, site: Path):
    names = [path.relative_to(site).as_posix() for path in sorted(site.glob(pages))]
    if pages.startswith(
        "adr/"
    ):  # two stand for all: they are text alone, and tests/docs/test_site.py checks what each page loads
        names = names[-2:]
    assert names
    phone = reader(size=PHONE)
    too_wide = []
    for name in names:
        page = phone.open(name)
        expect(page.locator("article h1").first).to_be_visible()
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            too_wide.append(name)
    assert too_wide == []


def test_a_wide_table_scrolls_within_the_page_on_a_phone(reader):
    table = reader(size=PHONE).open("reference/settings.html").locator("table").first
    table.scroll_into_view_if_needed()
    scrolled = table.evaluate("""table => {
        let around = table;
        while (around && around.scrollWidth <= around.clientWidth) around = around.parentElement;
        around.scrollLeft = 100000;
        return [around.tagName, around.scrollLeft, table.querySelector("td:last-child").getBoundingClientRect().right, innerWidth];
    }""")
    assert scrolled[0] == "DIV"
    assert scrolled[1] > 0
    assert scrolled[2] <= scrolled[3]


def test_the_search_finds_a_word_and_leads_to_it(reader):
    page = reader().open("index.html")
    page.get_by_role("button", name="Search").click()
    page.get_by_placeholder("Search").fill("idempotency")
    found = page.locator("a", has_text="Idempotency-Key").filter(has_text="The HTTP API").first
    expect(found).to_be_visible()
    found.click()
    page.wait_for_url("**/reference/api.html**")
    expect(page.get_by_role("heading", level=1, name="The HTTP API")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True])
def test_pictures_and_diagrams_follow_the_palette(dark, reader):
    opened = reader(dark=dark)
    page = opened.open("how-to/console.html")
    shown = [picture.get_attribute("src") for picture in page.locator("article img").all() if picture.is_visible()]
    assert shown
    assert all(("-dark." if dark else "-light.") in source for source in shown)
    page = opened.open("architecture.html")
    expect(page.locator("pre.mermaid")).to_have_count(0)  # each is replaced when it is drawn
    drawn = page.locator("div.mermaid").all()
    assert len(drawn) == 3
    assert all(diagram.bounding_box()["height"] > 100 for diagram in drawn)
