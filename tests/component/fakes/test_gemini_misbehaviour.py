"""The fake Gemini misbehaves as a test asks, in every way that Gemini does."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import httpx2
import pytest
from google import genai
from google.genai import errors

from tests.fakes.gemini import FakeGemini, Outcome, SeenCall
from tests.fakes.gemini_behaviours import (
    CUT_OFF,
    EMPTY_TEXT,
    GARBAGE,
    MALFORMED_JSON,
    NO_CANDIDATES,
    OUT_OF_ORDER,
    OUT_OF_TOKENS,
    RESET,
    Behaviour,
    always,
    blocked_answer,
    blocked_prompt,
    daily_quota,
    doubled_records,
    failing,
    held,
    in_turn,
    missing_records,
    rate_limited,
    slow,
    with_number,
    wrong_index,
)
from tests.fakes.gemini_client import ask, client_of, finish_of, packed, refusal


@pytest.fixture
def fake() -> Iterator[FakeGemini]:
    with FakeGemini() as running:
        yield running


@pytest.fixture
def client(fake: FakeGemini) -> Iterator[genai.Client]:
    with client_of(fake) as made:
        yield made


class TestMisbehaviour:
    @pytest.mark.parametrize("code", [400, 402, 403, 404, 500, 503, 504])
    def test_an_http_error_has_googles_body(self, fake: FakeGemini, client: genai.Client, code: int) -> None:
        fake.script = in_turn(failing(code))
        with pytest.raises(errors.APIError) as caught:
            ask(client, 1)
        assert (caught.value.code, caught.value.details["error"]["code"]) == (code, code)
        assert caught.value.status == caught.value.details["error"]["status"]
        assert ask(client, 1).text == "Image 1 shows 1."
        assert fake.outcomes() == [f"http {code}", Outcome.COMPLETE]
        assert (fake.sent[1], fake.seen[1]) == (2, 1)

    def test_a_502_is_the_front_ends_html(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = in_turn(failing(502))
        with pytest.raises(errors.ServerError) as caught:
            ask(client, 1)
        assert (caught.value.code, caught.value.status) == (502, "Bad Gateway")

    @pytest.mark.parametrize("wait", ["3s", None])
    def test_a_429_says_how_long_to_wait_or_does_not(self, fake: FakeGemini, client: genai.Client, wait: str | None) -> None:
        fake.script = in_turn(rate_limited(wait))
        with pytest.raises(errors.ClientError) as caught:
            ask(client, 1)
        details = caught.value.details["error"]["details"]
        assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
        assert [detail["retryDelay"] for detail in details if "retryDelay" in detail] == ([wait] if wait else [])
        assert "PerMinute" in details[0]["violations"][0]["quotaId"]

    def test_a_daily_quota_says_so(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = in_turn(daily_quota())
        with pytest.raises(errors.ClientError) as caught:
            ask(client, 1)
        assert "PerDay" in caught.value.details["error"]["details"][0]["violations"][0]["quotaId"]

    def test_a_connection_is_reset_after_reading(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = in_turn(RESET)
        with pytest.raises(httpx2.ReadError, match="reset"):
            ask(client, 1)
        assert fake.outcomes() == [Outcome.RESET]
        assert ask(client, 1).text == "Image 1 shows 1."

    def test_a_connection_is_reset_before_reading(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.resets_before_reading = 1
        with pytest.raises(httpx2.TransportError):  # of which kind depends on how much was written by then
            ask(client, 1)
        assert fake.calls == []
        assert ask(client, 1).text == "Image 1 shows 1."

    def test_a_body_that_is_no_json_comes_with_200(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = in_turn(GARBAGE)
        with pytest.raises(json.JSONDecodeError):
            ask(client, 1)
        assert fake.seen == Counter()

    def test_a_body_ends_halfway(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = in_turn(CUT_OFF)
        with pytest.raises(httpx2.RemoteProtocolError):
            ask(client, 1)
        assert (fake.outcomes(), fake.seen) == ([Outcome.CUT_OFF], Counter())

    def test_a_held_call_times_out_and_is_not_counted_as_answered(self, fake: FakeGemini) -> None:
        release = Event()
        fake.script = in_turn(held(release))
        with client_of(fake, timeout=0.2) as hasty, pytest.raises(httpx2.ReadTimeout):
            ask(hasty, 1)
        release.set()
        with client_of(fake) as patient:
            assert ask(patient, 1).text == "Image 1 shows 1."
        assert fake.wait_for(lambda: fake.calls[0].outcome == Outcome.CLIENT_GONE)
        assert fake.outcomes() == [Outcome.CLIENT_GONE, Outcome.COMPLETE]
        assert fake.seen == Counter([1])

    def test_closing_the_fake_ends_a_held_call(self) -> None:
        never = Event()
        with ThreadPoolExecutor(1) as pool, FakeGemini(script=always(held(never))) as fake, client_of(fake) as client:
            waiting = pool.submit(ask, client, 1)
            assert fake.wait_for(lambda: fake.in_flight == 1)
            fake.__exit__()
            assert waiting.exception(10) or waiting.result()  # its connection may end before or after the answer

    def test_a_delay_is_kept_and_goes_with_other_behaviour(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.blocked = {2}
        fake.script = in_turn(slow(0.05), replace(failing(503), delay=0.05), slow(0.05))
        ask(client, 1)
        with pytest.raises(errors.ServerError):
            ask(client, 1)
        assert finish_of(ask(client, 2)) == "SAFETY"
        assert all(call.ended - call.at >= 0.05 for call in fake.calls)

    def test_out_of_tokens_gives_half_the_text(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = in_turn(OUT_OF_TOKENS)
        answer = ask(client, 1, 2)
        assert (finish_of(answer), answer.text) == ("MAX_TOKENS", "Image 1 shows 1.")
        assert answer.usage_metadata
        assert answer.usage_metadata.candidates_token_count == 4
        assert (fake.outcomes(), fake.seen) == ([Outcome.TRUNCATED], Counter())

    def test_an_answer_longer_than_max_output_tokens_is_cut(self, client: genai.Client) -> None:
        answer = ask(client, 1, 2, max_output_tokens=5)
        assert (finish_of(answer), answer.text) == ("MAX_TOKENS", "Image 1 shows 1.\nIma")

    def test_thoughts_are_billed_and_spent_from_the_same_budget(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = always(Behaviour(thoughts=100))
        roomy, tight = ask(client, 1, max_output_tokens=200), ask(client, 1, max_output_tokens=100)
        assert roomy.usage_metadata
        assert (roomy.usage_metadata.thoughts_token_count, roomy.usage_metadata.candidates_token_count) == (100, 4)
        assert (finish_of(roomy), finish_of(tight), tight.text) == ("STOP", "MAX_TOKENS", None)

    @pytest.mark.parametrize("reason", ["SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "OTHER", "IMAGE_SAFETY"])
    def test_a_prompt_is_blocked_without_a_candidate(self, fake: FakeGemini, client: genai.Client, reason: str) -> None:
        fake.script = in_turn(blocked_prompt(reason))
        answer = ask(client, 1)
        assert answer.prompt_feedback
        assert answer.prompt_feedback.block_reason
        assert (answer.text, answer.candidates, answer.prompt_feedback.block_reason.value) == (None, None, reason)
        assert fake.outcomes() == [Outcome.BLOCKED]

    @pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "SPII", "BLOCKLIST", "IMAGE_SAFETY"])
    def test_an_answer_is_blocked_without_content(self, fake: FakeGemini, client: genai.Client, reason: str) -> None:
        fake.script = in_turn(blocked_answer(reason))
        answer = ask(client, 1)
        assert (finish_of(answer), answer.text) == (reason, None)
        assert fake.outcomes() == [Outcome.BLOCKED]

    def test_candidates_may_be_empty(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = in_turn(NO_CANDIDATES)
        assert not ask(client, 1).candidates

    def test_a_finished_answer_may_have_no_text(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = in_turn(EMPTY_TEXT)
        answer = ask(client, 1)
        assert (finish_of(answer), answer.text) == ("STOP", None)
        assert fake.seen == Counter()

    def test_json_may_be_malformed_though_finished(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = in_turn(MALFORMED_JSON)
        answer = ask(client, 1, form="records")
        assert finish_of(answer) == "STOP"
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer.text or "")
        assert (fake.outcomes(), fake.seen) == ([Outcome.SPOILED], Counter())

    @pytest.mark.parametrize(
        ("behaviour", "indexes", "answered"),
        [
            (missing_records(2), [1, 3], [11, 13]),
            (doubled_records(2), [1, 2, 3, 2], [11, 13]),
            (wrong_index(2, 9), [1, 9, 3], [11, 13]),
            (wrong_index(2, 3), [1, 3, 3], [11]),
            (OUT_OF_ORDER, [3, 2, 1], [11, 12, 13]),
        ],
        ids=["missing", "doubled", "unknown index", "index of another", "out of order"],
    )
    def test_records_may_be_wrong(
        self, fake: FakeGemini, client: genai.Client, behaviour: Behaviour, indexes: list[int], answered: list[int]
    ) -> None:
        fake.script = in_turn(behaviour)
        records = json.loads(ask(client, 11, 12, 13, form="records").text or "")
        assert [record["index"] for record in records] == indexes
        assert fake.seen == Counter(answered)
        assert (fake.outcomes() == [Outcome.COMPLETE]) == (len(answered) == 3)

    def test_a_script_that_fails_shows_as_a_fault(self, fake: FakeGemini, client: genai.Client) -> None:
        def broken(call: SeenCall) -> Behaviour | None:
            if call.order == 0:
                raise KeyError(call.model)
            return None

        fake.script = broken
        with pytest.raises(errors.ServerError):
            ask(client, 1)
        assert len(fake.faults) == 1
        assert (fake.in_flight, ask(client, 1).text) == (0, "Image 1 shows 1.")


class TestRulesByPicture:
    def test_a_call_with_a_blocked_picture_is_blocked_and_others_are_not(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.blocked = {7}
        assert finish_of(ask(client, 6, 7)) == "SAFETY"
        assert ask(client, 6, 8).text == "Image 1 shows 6.\nImage 2 shows 8."
        fake.block = blocked_prompt("PROHIBITED_CONTENT")
        assert ask(client, 7).prompt_feedback is not None
        assert fake.seen == Counter([6, 8])
        assert fake.sent == Counter([6, 7, 6, 8, 7])

    def test_a_call_with_an_unreadable_picture_cannot_be_processed(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.unreadable = {7}
        error = refusal(client, packed(6, 7))
        assert (error.code, (error.message or "").startswith("Unable to process input image")) == (400, True)
        assert fake.outcomes() == [Outcome.UNREADABLE]

    def test_a_call_with_more_pictures_than_fit_the_output_is_truncated(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.max_pictures_output = 2
        assert [finish_of(ask(client, *numbers)) for numbers in ((1, 2, 3), (1, 2))] == ["MAX_TOKENS", "STOP"]

    def test_a_picture_that_always_overflows_truncates_every_call(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.truncates = {3}
        assert [finish_of(ask(client, *numbers)) for numbers in ((1, 3), (3,), (1,))] == ["MAX_TOKENS", "MAX_TOKENS", "STOP"]

    def test_a_script_may_go_by_the_picture(self, fake: FakeGemini, client: genai.Client) -> None:
        fake.script = with_number({5}, failing(503))
        assert ask(client, 4).text == "Image 1 shows 4."
        with pytest.raises(errors.ServerError):
            ask(client, 4, 5)
