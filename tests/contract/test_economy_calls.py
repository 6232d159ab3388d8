"""What the engines whose vendors have a tier `economy` promise about its calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from pipeline.engines.gemini import GeminiEngine
from pipeline.engines.openai import OpenAiEngine
from pipeline.ports import Cause, Engine, ModelUnavailable
from pipeline.types import Call, Form, Picture, Tier
from tests.fakes.flex import FlexServer
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.fakes.openai import FakeOpenAI


@dataclass
class Vendor:
    engine: Engine
    server: FakeGemini | FakeOpenAI
    usual: str  #: what the server is told where a call is not to wait for capacity


@pytest.fixture(params=["gemini", "openai"])
def vendor(request: pytest.FixtureRequest) -> Iterator[Vendor]:
    if request.param == "gemini":
        with (
            FakeGemini() as server,
            closing(GeminiEngine(api_key=server.key, model="gemini-3.5-flash-lite", base_url=server.base_url)) as engine,
        ):
            yield Vendor(engine, server, usual="standard")
    else:
        with (
            FakeOpenAI() as other,
            closing(OpenAiEngine(base_url=other.base_url, api_key=other.key, model="vision:7b", reencode=_unused)) as local,
        ):
            yield Vendor(local, other, usual="auto")


def _unused(_data: bytes) -> None:
    raise AssertionError("a PNG goes as it is")


def call(number: int, tier: Tier) -> Call:
    picture = Picture(number=1, mime="image/png", data=numbered_picture(number))
    return Call(prompt="Which number?", form=Form.TEXT, json_mode=False, pictures=(picture,), timeout=20.0, tier=tier)


def test_it_is_sent_as_flex_and_its_answer_says_how_it_was_served(vendor):
    answers = [vendor.engine.ask(call(7, Tier.STANDARD)), vendor.engine.ask(call(8, Tier.ECONOMY))]
    vendor.server.flex.standard = 1.0
    answers.append(vendor.engine.ask(call(9, Tier.ECONOMY)))
    assert [sent.tier for sent in vendor.server.calls] == [vendor.usual, "flex", "flex"]
    assert [answer.tier for answer in answers] == [Tier.STANDARD, Tier.ECONOMY, Tier.STANDARD]


@pytest.mark.parametrize("seed", range(4))
def test_one_that_is_shed_is_neither_an_overload_nor_a_limit(vendor, seed):
    vendor.server.flex = FlexServer(seed=seed, shed=1.0, seconds=(0, 0))
    with pytest.raises(ModelUnavailable) as raised:
        vendor.engine.ask(call(7, Tier.ECONOMY))
    assert (raised.value.cause, raised.value.notice) == (Cause.SHED, "")
    assert raised.value.status in {429, 503}
    assert len(vendor.server.calls) == 1
