"""Gemini, asked in another manner after faults. test_odd_servers.py has the same for servers that differ from OpenAI's own."""

from __future__ import annotations

from contextlib import closing

import pytest

from pipeline.engines.gemini import GeminiEngine
from pipeline.ports import ModelFault
from pipeline.types import Call, Finish, Form, Picture
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.fakes.gemini_behaviours import GARBAGE, RESET, failing


@pytest.mark.parametrize("passing", [failing(503), GARBAGE, RESET], ids=["503", "garbage", "reset"])
def test_an_answer_in_another_manner_is_kept_whatever_the_usual_one_meets_then(passing):
    answers = iter([failing(500), failing(500), None, passing])
    picture = Picture(number=1, mime="image/png", data=numbered_picture(7))
    call = Call(prompt="p", form=Form.RECORDS, json_mode=False, pictures=(picture,), timeout=20.0)
    with (
        FakeGemini(script=lambda _call: next(answers, None)) as fake,
        closing(GeminiEngine(api_key=fake.key, model="gemini-3.5-flash-lite", base_url=fake.base_url)) as engine,
    ):
        with pytest.raises(ModelFault):
            engine.ask(call)
        assert engine.ask(call).finish is Finish.COMPLETE
        assert len(fake.calls) == 4
        assert engine.ask(call).finish is Finish.COMPLETE
        assert len(fake.calls) == 5
