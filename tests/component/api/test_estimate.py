"""What a request would cost, and what it then does cost: the model is the fake Gemini, behind the real SDK."""

from __future__ import annotations

import json

import pytest

from tests.fakes.gemini import FakeGemini
from tests.gemini_house import RECORD, gemini_house, numbered_urls, picture
from tests.harness import URL, b64

ESTIMATE = f"{URL}/estimate"


def estimate(house, body, key=None):
    headers = {"Authorization": f"Bearer {key or house.key}", "Content-Type": "application/json"}
    return house.client.post(ESTIMATE, data=json.dumps(body), headers=headers)


@pytest.mark.parametrize(
    ("count", "fields"),
    [
        (1, {}),
        (130, {}),
        (130, {"jsonMode": True, "detail": "low"}),
        (130, {"schema": RECORD}),
        (45, {"granularity": "perImage", "imagesPerCall": 7}),
        (130, {"merge": "synthesize", "imagesPerCall": 2}),
        (60, {"merge": "synthesize", "schema": RECORD}),
    ],
    ids=str,
)
def test_a_request_costs_what_was_estimated(tmp_path, count, fields):
    with FakeGemini() as fake, gemini_house(tmp_path, fake) as house:
        body = {"inputMethod": "url", "images": numbered_urls(house, count), "prompt": "Which number?", **fields}
        reckoned = estimate(house, body).json
        assert fake.calls == []
        answer = house.post(body)
        assert answer.status_code == 200, answer.json
        assert reckoned["images"] == answer.json["imageCount"] == sum(fake.sent.values())
        assert reckoned["modelCalls"] == pytest.approx(len(fake.calls), rel=0.1)
        assert reckoned["credits"] == answer.json["creditUsage"]


def test_images_by_value_are_packed_by_their_bytes(tmp_path):
    with FakeGemini() as fake, gemini_house(tmp_path, fake) as house:
        body = {"inputMethod": "base64", "images": [b64(picture(n, pad_to=3_000_000)) for n in range(13)], "prompt": "p"}
        reckoned = estimate(house, body).json
        house.post(body)
        assert reckoned["modelCalls"] == len(fake.calls) == 4


def test_tokens_and_money_are_reckoned_by_the_model_s_prices_and_the_detail(tmp_path):
    with FakeGemini() as fake, gemini_house(tmp_path, fake) as house:
        body = {"inputMethod": "url", "images": ["https://a.example/"] * 40, "prompt": "p", "granularity": "perImage"}
        high = estimate(house, body).json
        low = estimate(house, {**body, "detail": "low"}).json
    assert high["inputTokens"] == pytest.approx(40 * 1120, rel=0.1)
    assert low["inputTokens"] == pytest.approx(40 * 280, rel=0.2)
    assert high["money"] == pytest.approx((high["inputTokens"] * 0.30 + high["outputTokens"] * 2.50) / 1e6, abs=1e-6)


def test_an_estimate_keeps_and_charges_nothing_and_needs_no_credits(harness):
    _, key = harness.new_key(0)
    answer = estimate(harness, {"inputMethod": "base64", "images": [b64(b"img")] * 3, "prompt": "p"}, key=key)
    assert answer.status_code == 200
    assert list(answer.json) == ["images", "modelCalls", "inputTokens", "outputTokens", "credits", "money", "moneyByTier"]
    assert (answer.json["images"], answer.json["modelCalls"], answer.json["credits"]) == (3, 1, 13)
    assert harness.count_rows("jobs") == harness.count_rows("steps") == 0
    assert harness.scratch.objects == {}
    assert harness.engine.calls == []


@pytest.mark.parametrize(
    ("fields", "code"), [({"images": []}, "invalid_image_count"), ({"schema": {"type": "x"}}, "invalid_schema")], ids=str
)
def test_what_would_be_refused_is_refused_here_too(harness, fields, code):
    answer = estimate(harness, {"inputMethod": "url", "images": ["https://a.example/"], "prompt": "p", **fields})
    assert (answer.status_code, answer.json["code"]) == (400, code)


def test_an_estimate_needs_a_key(harness):
    assert estimate(harness, {}, key="none").status_code == 401
