"""The console's screens of the account: signing in, keys, webhooks, usage, and health."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from testbed import Service, serving
from tests.browser.console import BROWSER_TESTS

pytestmark = BROWSER_TESTS


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("console") / "data") as running:
        yield running


def test_a_wrong_key_is_refused_in_words_and_the_right_one_signs_in(open_console, service: Service):
    console = open_console(service, key=None)
    page = console.page
    page.get_by_label("API key").fill("xim_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("does not know this key")
    page.get_by_label("API key").fill(service.key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("navigation", name="Main")).to_be_visible()
    expect(page.get_by_role("status").first).to_contain_text("Answered by")


def test_the_link_signs_in_and_its_key_leaves_the_address(open_console, service: Service):
    console = open_console(service)
    assert service.key not in console.page.url
    assert console.page.evaluate("Object.keys(localStorage).length") == 0
    assert console.page.evaluate("document.cookie") == ""
