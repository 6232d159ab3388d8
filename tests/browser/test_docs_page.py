"""/docs in a real browser: it is drawn, it asks no other host for anything, and requests can be sent from it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from testbed import Service
from tests.browser.console import BROWSER_TESTS, REPORT_VIOLATIONS

pytestmark = BROWSER_TESTS

#: Scalar asks once whether the page may compile code at run time. It may not, and Scalar goes on without.
ALLOWED_VIOLATIONS = {("script-src", "eval")}


class Seen:
    """What a page did since it was opened."""

    def __init__(self, page: Page) -> None:
        self.hosts: set[str] = set()  #: that were asked for something
        self.faults: list[str] = []  #: what the console and the page's scripts complained of
        self.violations: set[tuple[str, str]] = set()  #: of the policy: directive and what was stopped
        page.add_init_script(REPORT_VIOLATIONS)
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.text.startswith("violation "):
            _, directive, stopped, *_ = message.text.split(" ")
            self.violations.add((directive, stopped))
        elif message.type in {"error", "warning"}:
            self.faults.append(message.text)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def test_the_page_shows_every_operation_and_asks_no_other_host(service: Service, page: Page):
    _, _, described = service.send("GET", "/openapi.json")
    seen = Seen(page)
    page.goto(f"{service.url}/docs")
    expect(page.get_by_role("heading", level=1, name=described["info"]["title"])).to_be_visible()
    contents = page.get_by_role("complementary")
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            [tag] = operation["tags"]
            if (closed := contents.get_by_role("button", name=f"Open Group - {tag}")).count():
                closed.click()
            link = contents.locator(f'a[href="#tag/{tag.lower()}/{method.upper()}{path}"]')
            expect(link).to_contain_text(operation["summary"])
    link.click()
    expect(page.get_by_role("heading", level=3, name=operation["summary"])).to_be_visible()
    assert seen.hosts == {urlsplit(service.url).netloc}
    assert seen.faults == []
    assert seen.violations <= ALLOWED_VIOLATIONS


def test_a_request_is_sent_from_the_page_with_a_key_that_is_not_kept(service: Service, page: Page):
    seen = Seen(page)
    page.goto(f"{service.url}/docs#tag/account/GET/api/v1/usage")
    page.get_by_role("button", name="Test Request (get /api/v1/usage)").click()
    client = page.get_by_role("dialog")
    client.get_by_placeholder("Token").fill(service.key)
    client.get_by_role("button", name="Send").first.click()
    expect(client.get_by_text("200 OK")).to_be_visible()
    expect(client.get_by_text('"balance"')).to_be_visible()
    assert service.key not in page.evaluate("JSON.stringify(localStorage)")
    assert seen.hosts == {urlsplit(service.url).netloc}
    assert seen.faults == []
    assert seen.violations <= ALLOWED_VIOLATIONS
