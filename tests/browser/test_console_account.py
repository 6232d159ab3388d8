"""The console's screens of the account: signing in, keys, webhooks, usage, and health."""

from __future__ import annotations

import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from api.console.routes import ASSETS
from api.console.script_tokens import tokens
from api.console.short_names import short_names
from testbed import Service
from tests.browser.console import BROWSER_TESTS, PHONE

pytestmark = BROWSER_TESTS

SCREENS = ("jobs", "usage", "webhooks", "keys", "health")


def test_a_wrong_key_is_refused_in_words_and_the_right_one_signs_in(open_console, service: Service):
    page = open_console(service, key=None).page
    page.get_by_label("API key").fill("xim_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("does not know this key")
    page.get_by_label("API key").fill(service.key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("navigation", name="Main")).to_be_visible()
    expect(page.get_by_role("status").first).to_contain_text("Answered by")


@pytest.mark.parametrize("open_already", [False, True])
def test_the_link_signs_in_and_its_key_leaves_the_address(open_console, service: Service, open_already):
    console = open_console(service, key=None if open_already else "")
    page = console.page
    if open_already:
        expect(page.get_by_label("API key")).to_be_visible()
        console.sign_in()
    assert service.key not in page.url
    assert page.evaluate("Object.keys(localStorage).length") == 0
    assert page.evaluate("document.cookie") == ""


def test_a_key_is_made_shown_once_and_revoked_and_its_name_stays_text(open_console, service: Service):
    console = open_console(service)
    page, name = console.page, '<img src=x onerror="window.hurt=1">'
    console.go("keys")
    page.get_by_label("Name of the new key").fill(name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Copy the key now")).to_be_focused()
    made = page.locator("main .notice pre").inner_text()
    assert service.send("GET", "/api/v1/usage", headers={"Authorization": f"Bearer {made}"})[0] == 200
    expect(page.get_by_role("cell", name=name, exact=True)).to_be_visible()
    assert page.evaluate("window.hurt") is None
    console.go("jobs")
    console.go("keys")
    expect(page.get_by_text(made)).to_have_count(0)
    expect(page.get_by_role("row", name="this tab").get_by_role("button")).to_have_attribute("aria-disabled", "true")
    page.get_by_role("row", name=name).get_by_role("button").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("cell", name=name, exact=True)).to_have_count(0)
    assert service.send("GET", "/api/v1/usage", headers={"Authorization": f"Bearer {made}"})[0] == 401


def test_a_text_is_copied_also_where_the_browser_gives_no_clipboard_as_on_http_from_another_machine(
    open_console, service: Service
):
    console = open_console(service)
    page = console.page
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    console.go("health")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("The command is in the clipboard.")).to_be_visible()
    console.go("keys")
    page.get_by_label("Name of the new key").focus()
    page.keyboard.press("Control+V")
    expect(page.get_by_label("Name of the new key")).to_have_value("extract-image doctor")


def test_two_accounts_see_each_their_own(open_console, service: Service):
    other = json.loads(service.cli("keys", "create", "other", "--credits", "77", "--json"))["key"]
    console = open_console(service, key=other)
    console.go("keys")
    expect(console.page.get_by_role("row")).to_have_count(2)
    expect(console.page.get_by_text("serve --ready-key")).to_have_count(0)
    expect(console.page.get_by_text(__name__)).to_have_count(0)
    console.go("usage")
    expect(console.page.locator(".figure").first).to_have_text("77")


def test_the_chart_is_read_by_arrow_keys(open_console, service: Service):
    console = open_console(service)
    console.go("usage")
    expect(console.page.get_by_role("tab")).to_have_text(["Credits", "Money", "Jobs"])
    console.page.get_by_role("tab", name="Money").click()
    last = console.page.locator(".day").last
    last.focus()
    said = console.page.locator(".chart-said").inner_text()
    console.page.keyboard.press("ArrowLeft")
    expect(console.page.locator(".chart-said")).not_to_have_text(said)
    expect(console.page.locator(".day").nth(-2)).to_be_focused()


def test_health_says_what_to_do_about_a_part_that_is_away(open_console, service: Service):
    console = open_console(service)
    away = {
        "status": "not ready",
        "checks": {"database": "ok", "redis": "away"},
        "details": {"redis": "ConnectionError: <b>no</b>"},
    }
    console.page.route("**/readyz", lambda route: route.fulfill(status=503, json=away))
    console.go("health")
    expect(console.page.get_by_role("heading", name="Redis")).to_be_visible()
    expect(console.page.get_by_text("Check that the server of REDIS_URL runs")).to_be_visible()
    expect(console.page.get_by_text("ConnectionError: <b>no</b>")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious_on_any_screen(open_console, service: Service, dark):
    console = open_console(service, dark=dark)
    for screen in SCREENS:
        console.go(screen)
        found = Axe().run(console.page).response["violations"]
        assert [(screen, one["id"]) for one in found if one["impact"] in {"serious", "critical"}] == []


def test_no_screen_is_wider_than_a_phone(open_console, service: Service):
    console = open_console(service, size=PHONE)
    for screen in SCREENS:
        console.go(screen)
        assert console.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_the_keyboard_alone_reaches_a_screen(open_console, service: Service):
    page = open_console(service).page
    page.get_by_role("link", name="Keys").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Keys")).to_be_visible()
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Name of the new key")).to_be_focused()


def test_a_delivery_shows_what_was_sent_and_what_came_back_as_text_and_is_sent_again(open_console, service: Service):
    console = open_console(service)
    page, asked = console.page, []
    attempt = {"at": "2026-01-02T03:04:05Z", "status": 500, "error": None, "ms": 12, "response": "<script>window.hurt=1</script>"}
    row = {
        "id": "dlv_1",
        "job": "job_1",
        "round": 1,
        "event": "job.failed",
        "url": "https://a.example/<b>hook",
        "status": "dead",
        "attempts": [attempt],
        "createdAt": "2026-01-02T03:04:05Z",
        "nextAttemptAt": None,
    }
    page.route("**/api/v1/deliveries?*", lambda route: route.fulfill(json={"deliveries": [row], "nextCursor": None}))
    page.route("**/api/v1/deliveries/dlv_1", lambda route: route.fulfill(json={**row, "body": '{"type":"job.failed"}'}))

    def again(route):
        asked.append(route.request.method)
        route.fulfill(status=202, json=row)

    page.route("**/api/v1/deliveries/dlv_1/redeliver", again)
    console.go("webhooks")
    expect(page.get_by_text("https://a.example/<b>hook")).to_be_visible()
    page.get_by_role("link", name="job.failed").click()
    expect(page.get_by_text('"type": "job.failed"')).to_be_visible()
    expect(page.get_by_text("<script>window.hurt=1</script>")).to_be_visible()
    page.get_by_role("button", name="Redeliver").click()
    expect(page.get_by_text("It is sent again")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    assert asked == ["POST"]
    assert page.evaluate("window.hurt") is None
    serious = [one["id"] for one in Axe().run(page).response["violations"] if one["impact"] in {"serious", "critical"}]
    assert serious == []


def test_no_name_that_a_script_gets_shortened_is_one_of_the_browser(open_console, service: Service):
    shortened = {path.name: sorted(short_names(list(tokens(path.read_text())))) for path in ASSETS.glob("*.js")}
    page = open_console(service).page
    found = page.evaluate(
        "all => Object.entries(all).flatMap(([file, names]) => names.filter(name => Object.getOwnPropertyNames(window).includes(name)).map(name => `${file}: ${name}`))",
        shortened,
    )
    assert found == []
