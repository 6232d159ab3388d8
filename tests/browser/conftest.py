"""Fixtures for the tests in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from testbed import FakeGemini, Service, serving
from tests.browser.console import ALONE, CHROMIUM, Console, new_console

# The tests of this folder share a browser and a service, because each takes seconds to start. They end with the folder's last test,
# because other tests in the same process can't run an event loop beside Playwright's.


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser. Each page gets a profile of its own."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=20_000)
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE)
        yield started
        started.close()


@pytest.fixture(scope="package")
def shared_fake() -> Iterator[FakeGemini]:
    with FakeGemini() as started:
        yield started


@pytest.fixture(scope="package")
def shared_service(tmp_path_factory: pytest.TempPathFactory, shared_fake: FakeGemini) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("browser") / "data"
    with serving(folder, GEMINI_API_KEY=shared_fake.key, GEMINI_BASE_URL=shared_fake.base_url) as running:
        yield running


@pytest.fixture(scope="module")
def fake(shared_fake: FakeGemini) -> FakeGemini:
    """The model of the service, which answers as it does at first."""
    shared_fake.script, shared_fake.blocked, shared_fake.latency = None, set(), 0.0
    return shared_fake


@pytest.fixture(scope="module")
def service(shared_service: Service, fake: FakeGemini, request: pytest.FixtureRequest) -> Service:
    """The service, with the key of an account of this module that has 100,000 credits. No other module sees its jobs."""
    made = json.loads(shared_service.cli("keys", "create", request.module.__name__, "--credits", "100000", "--json"))
    return Service(shared_service.folder, shared_service.process, shared_service.url, made["key"])


@pytest.fixture
def open_console(browser: Browser) -> Iterator[Callable[..., Console]]:
    """Opens a page of the console, signed in with the service's key. At the end of the test, each page is checked.

    Options: `key` (of another account; None: not signed in), `dark`, `size`.
    """
    opened: list[Console] = []

    def open_(service: Service, *, key: str | None = "", dark: bool = False, size: tuple[int, int] = (1280, 800)) -> Console:
        console = new_console(browser, service, dark=dark, size=size)
        opened.append(console)
        if key is None:
            console.page.goto(f"{service.url}/console")
        else:
            console.sign_in(key)
        return console

    yield open_
    for console in opened:
        console.context.close()
    for console in opened:
        console.check()
