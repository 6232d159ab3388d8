"""The console in a real browser, for all of its tests: a signed-in page, and what it must never do.

`conftest.py` makes `browser` and `open_console` of this:

    def test_something(open_console, service):
        console = open_console(service)
        console.go("jobs")
        expect(console.page.get_by_role("heading", level=1, name="Jobs")).to_be_visible()

Each test ends by looking that its pages broke no rule: see `Console.check`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, expect

from testbed import Service

CHROMIUM = Path("/usr/bin/chromium")

#: For `pytestmark`. The tests run one after the other, because each browser needs a core.
BROWSER_TESTS = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed: it is Debian's package `chromium`"),
]

#: The browser itself asks nobody for anything either.
ALONE = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: Tells of each violation of the page's policy through the console.
REPORT_VIOLATIONS = """document.addEventListener("securitypolicyviolation",
    event => console.log("violation", event.effectiveDirective, event.blockedURI, event.sourceFile, event.lineNumber))"""

DESKTOP, PHONE = (1280, 800), (390, 844)  #: width and height in CSS pixels


class Console:
    """A page of the console, and what it did since it was opened."""

    def __init__(self, context: BrowserContext, service: Service) -> None:
        self.context = context
        self.service = service
        self.hosts: set[str] = set()  #: that were asked for something
        self.faults: list[str] = []  #: what scripts threw or complained of, and assets that are missing
        self.violations: list[str] = []  #: of the page's policy: directive, what was stopped, where
        self.page: Page = context.new_page()
        self.page.add_init_script(REPORT_VIOLATIONS)
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("response", self._see)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._note)

    def sign_in(self, key: str = "") -> None:
        """Arrives by the link that `serve` prints. Without a key it is that of the service."""
        self.page.goto(f"{self.service.url}/console#key={key or self.service.key}")
        expect(self.page.get_by_role("navigation", name="Main")).to_be_visible()

    def go(self, screen: str) -> None:
        """Opens a screen by the part of the address after `#/`, such as "jobs" or "review/ID", and waits until it is drawn."""
        name = screen.partition("/")[0]
        self.page.evaluate("screen => { location.hash = `#/${screen}`; }", screen)
        self.wait(name)

    def wait(self, name: str) -> None:
        """Waits until the screen of this name is drawn."""
        expect(self.page.locator(f'main[data-screen="{name}"][aria-busy="false"]')).to_be_visible()

    def check(self) -> None:
        """Fails if the page's policy was broken, another host was asked, or a script failed."""
        assert self.violations == []
        assert self.hosts <= {urlsplit(self.service.url).netloc, ""}  # a blob: has no host
        assert not self.faults, self.faults

    def _see(self, response: Response) -> None:
        if response.status >= 400 and urlsplit(response.url).path.startswith("/console"):
            self.faults.append(f"{response.status} {response.url}")

    def _note(self, message: ConsoleMessage) -> None:
        if message.text.startswith("violation "):
            self.violations.append(message.text.removeprefix("violation "))
        # The browser writes each refusal of the API into the console as well. The screens show these.
        elif message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            self.faults.append(message.text)


def new_console(browser: Browser, service: Service, *, dark: bool = False, size: tuple[int, int] = DESKTOP) -> Console:
    """A page in a profile of its own, not yet signed in. `size`: width and height in CSS pixels."""
    width, height = size
    context = browser.new_context(
        color_scheme="dark" if dark else "light",
        viewport={"width": width, "height": height},
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
        permissions=["clipboard-read", "clipboard-write"],
        accept_downloads=True,
    )
    context.set_default_timeout(20_000)
    return Console(context, service)
