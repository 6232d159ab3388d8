"""Fixtures for the tests in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from testbed import Service
from tests.browser.console import ALONE, CHROMIUM, Console, new_console


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module. Each page gets a profile of its own."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=20_000)
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE)
        yield started
        started.close()


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
