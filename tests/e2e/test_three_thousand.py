"""The large job, on the embedded parts, through the real SDK to the fake Gemini."""

from __future__ import annotations

import base64
import re

import pytest

from testbed import pictures, serving
from tests.fakes.gemini import FakeGemini, numbered_picture

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("large")]


@pytest.fixture(scope="module")
def web():
    with pictures() as server:
        yield server


@pytest.fixture(scope="module")
def shared_fake():
    with FakeGemini() as server:
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory, shared_fake, web):
    settings = {"GEMINI_API_KEY": shared_fake.key, "GEMINI_BASE_URL": shared_fake.base_url, "FETCH_ALLOW": web.allow}
    with serving(tmp_path_factory.mktemp("large") / "data", **settings) as running:
        yield running


@pytest.fixture
def fake(shared_fake):
    """The model, which has seen nothing yet. At the end of the test it has seen no fault."""
    shared_fake.seen.clear()
    yield shared_fake
    assert shared_fake.faults == shared_fake.refused == []


def test_three_thousand_urls_are_each_seen_once_in_order_charged_once_and_leave_nothing(service, fake, web):
    urls = [web.page(f"{n}.jpg", numbered_picture(n, format="JPEG", pad_to=30_000)) for n in range(3000)]
    before = service.balance()
    status, _, answer = service.extract({"inputMethod": "url", "images": urls, "prompt": "Which number?"})
    assert status == 200, answer
    assert list(answer) == ["results", "prompt", "imageCount", "creditUsage"]
    assert (answer["imageCount"], answer["creditUsage"]) == (3000, 3010)
    said = re.findall(r"^Image (\d+) shows (\d+)\.$", answer["results"], re.MULTILINE)
    assert said == [(str(n + 1), str(n)) for n in range(3000)]
    headings = re.findall(r"^Images (\d+) to (\d+)$", answer["results"], re.MULTILINE)
    assert headings == [(str(first + 1), str(first + 50)) for first in range(0, 3000, 50)]
    assert set(fake.seen.values()) == {1}
    assert len(fake.seen) == 3000
    assert set(web.asked.values()) == {1}
    service.wait_for(lambda: not service.scratch())
    charged = before["charged"] + 3010
    assert service.balance() == {"available": before["available"] - 3010, "held": 0, "charged": charged}


def test_three_thousand_base64_images_in_one_body_are_answered_as_a_job(service, fake):
    images = [base64.b64encode(numbered_picture(n, format="JPEG", pad_to=33_000)).decode() for n in range(3000)]
    status, headers, job = service.extract(
        {"inputMethod": "base64", "images": images, "prompt": "p", "jsonMode": "true"}, {"Prefer": "respond-async"}
    )
    assert status == 202
    assert service.follow(headers["location"])["counts"] == {"total": 3000, "succeeded": 3000, "failed": 0}
    _, _, answer = service.send("GET", job["links"]["results"])
    assert answer["creditUsage"] == 3010
    assert set(fake.seen.values()) == {1}
    assert len(fake.seen) == 3000
    service.wait_for(lambda: not service.scratch())


def test_three_thousand_and_one_images_are_refused(service):
    charged = service.balance()["charged"]
    status, headers, answer = service.extract({"inputMethod": "url", "images": ["http://a.example/"] * 3001, "prompt": "p"})
    assert (status, headers["x-error-code"]) == (400, "invalid_image_count")
    assert "3000" in answer["error"]
    assert service.balance()["charged"] == charged
