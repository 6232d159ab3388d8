"""The outcome table of gemini-contract.md for whole engines: when they are asked again, and which model then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from threading import Event

import pytest

from pipeline.engines.call_queue import CallQueue
from pipeline.engines.gemini import MOST_RAW_BYTES, GeminiEngine
from pipeline.engines.governed import PATIENCE_SECONDS, SPARE_PATIENCE_SECONDS, TRIES, GovernedEngine
from pipeline.engines.limiter import LocalLimiter
from pipeline.engines.shedding import shed
from pipeline.models import KNOWN, Model
from pipeline.ports import Cause, ModelFault, ModelRefused, ModelUnavailable
from pipeline.types import Answer, Call, Finish, Form, Picture, Tier
from tests.fakes.engine import FakeEngine
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.fakes.gemini_behaviours import (
    CUT_OFF,
    GARBAGE,
    RESET,
    always,
    daily_quota,
    failing,
    held,
    in_turn,
    rate_limited,
)

LITE, FLASH = KNOWN
MODELS = {name: Model(name=name, price_in=1.0, price_out=2.0) for name in ("fake-1", "fake-2", "fake-3")}


@dataclass
class Time:
    """A clock that goes on only while somebody pauses."""

    now: float = 1_000_000.0
    paused: list[float] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.now += seconds * 1000

    def wait(self, _told: threading.Event, seconds: float) -> float:
        self.pause(seconds)
        return seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def govern(time: Time) -> Callable[..., GovernedEngine]:
    def make(
        engine: object, models: dict[str, Model] | None = None, concurrency: int = 100, spare: Callable[[], bool] = lambda: False
    ) -> GovernedEngine:
        limiter = LocalLimiter(concurrency=concurrency, clock=lambda: time.now)
        return GovernedEngine(engine, limiter=limiter, models=models or MODELS, pause=time.pause, wait=time.wait, spare=spare)

    return make


def asked(model: str = "", *fallbacks: str, waited: bool = False) -> Call:
    picture = Picture(number=1, mime="image/png", data=b"img")
    pictures = (picture,)
    return Call(
        prompt="p",
        form=Form.TEXT,
        json_mode=False,
        pictures=pictures,
        timeout=30,
        model=model,
        fallback_models=fallbacks,
        waited=waited,
    )


def away(cause: Cause, seconds: float = 30, notice: str = "") -> ModelUnavailable:
    return ModelUnavailable("away", retry_after=seconds, notice=notice, cause=cause)


def of_models(**troubles: Exception) -> FakeEngine:
    """An engine some of whose models (dashes as underscores) always fail."""
    return FakeEngine(script=lambda call, _number: troubles.get(call.model.replace("-", "_")))


def models_asked(engine: FakeEngine) -> list[str]:
    return [call.model for call in engine.calls]


class TestGemini:
    @pytest.fixture
    def fake(self) -> Iterator[FakeGemini]:
        with FakeGemini() as server:
            yield server
            assert server.faults == server.refused == []
            assert not server.files.kept

    @pytest.fixture
    def engine(self, fake: FakeGemini, govern: Callable[..., GovernedEngine], time: Time) -> Iterator[GovernedEngine]:
        made = govern(GeminiEngine(api_key=fake.key, model=LITE, base_url=fake.base_url, pause=time.pause), dict(KNOWN))
        yield made
        made.close()

    def call(self, *, pad_to: int | None = None, timeout: float = 30) -> Call:
        picture = Picture(number=1, mime="image/png", data=numbered_picture(7, pad_to=pad_to))
        return replace(asked(), pictures=(picture,), timeout=timeout)

    @pytest.mark.parametrize("behaviour", [failing(502), failing(503), failing(504), RESET, GARBAGE, CUT_OFF])
    def test_an_overloaded_model_and_a_broken_connection_are_tried_again_at_once(self, fake, engine, behaviour):
        fake.script = in_turn(behaviour, behaviour)
        assert engine.ask(self.call()).finish is Finish.COMPLETE
        assert len(fake.calls) == 3

    def test_after_four_tries_the_thread_is_freed(self, fake, engine, time):
        fake.script = always(failing(503))
        with pytest.raises(ModelUnavailable) as raised:
            engine.ask(self.call())
        assert len(fake.calls) == TRIES
        assert raised.value.retry_after > 0
        assert max(time.paused) <= PATIENCE_SECONDS

    def test_an_answer_that_stays_unreadable_is_a_fault_of_this_call_and_not_asked_for_for_ever(self, fake, engine):
        fake.script = always(GARBAGE)
        with pytest.raises(ModelFault):
            engine.ask(self.call())
        assert len(fake.calls) == TRIES

    def test_a_model_that_hangs_is_given_up_after_the_call_s_time(self, fake, engine):
        release = Event()
        fake.script = always(held(release))
        with pytest.raises(ModelUnavailable):
            engine.ask(self.call(timeout=0.3))
        release.set()

    def test_a_429_is_not_tried_again_and_holds_the_next_call_too(self, fake, engine, time):
        fake.script = in_turn(rate_limited("47s"))
        for _ in range(2):
            with pytest.raises(ModelUnavailable) as raised:
                engine.ask(self.call())
            assert raised.value.retry_after == 47
        assert len(fake.calls) == 1
        time.now += 47_001
        assert engine.ask(self.call()).finish is Finish.COMPLETE

    def test_a_500_is_left_to_who_can_split_the_call(self, fake, engine):
        fake.script = always(failing(500))
        with pytest.raises(ModelFault):
            engine.ask(self.call())
        assert len(fake.calls) == 1

    def test_a_used_up_day_goes_on_with_the_fallback_and_its_model_is_not_asked_again_for_a_while(self, fake, engine):
        fake.script = lambda seen: daily_quota() if seen.model == LITE else None
        for _ in range(3):
            answer = engine.ask(replace(self.call(), model=LITE, fallback_models=(FLASH,)))
            assert FLASH in answer.model_version
        assert [seen.model for seen in fake.calls] == [LITE, FLASH, FLASH, FLASH]

    def test_a_wrong_key_is_said_by_the_first_call_and_the_next_ones_are_not_made(self, fake, engine):
        fake.script = always(failing(403))
        for _ in range(5):
            with pytest.raises(ModelUnavailable) as raised:
                engine.ask(self.call())
            assert "403" in raised.value.notice
        assert len(fake.calls) == 1

    def test_what_was_uploaded_is_deleted_each_time_it_is_tried(self, fake, engine):
        fake.script = in_turn(failing(503), failing(503))
        assert engine.ask(self.call(pad_to=MOST_RAW_BYTES + 1000)).finish is Finish.COMPLETE
        assert len(fake.files.uploaded) == 3
        assert not fake.files.kept


def test_an_answer_costs_what_its_own_model_s_prices_say(govern):
    models = {**MODELS, "fake-2": Model(name="fake-2", price_in=10.0, price_out=20.0)}
    engine = govern(of_models(fake_1=away(Cause.QUOTA)), models)
    answer = engine.ask(asked("fake-1", "fake-2"))
    assert (answer.input_tokens, answer.output_tokens, answer.nanodollars) == (10, 2, 140_000)


def test_an_answer_costs_what_holds_on_the_day_its_call_began():
    model = Model(name="fake-1", price_in=1.0, price_out=2.0, later_in={date(2027, 1, 1): 10.0}, later_out={})
    days = [date(2026, 12, 31), date(2027, 1, 1)]
    limiter = LocalLimiter(concurrency=1, clock=lambda: 0.0)
    engine = GovernedEngine(FakeEngine(), limiter=limiter, models={"fake-1": model}, today=lambda: days.pop(0))
    assert [engine.ask(asked()).nanodollars for _ in range(2)] == [14_000, 104_000]


def test_who_names_no_model_asks_the_engine_s_own(govern):
    inner = FakeEngine()
    govern(inner).ask(asked())
    assert models_asked(inner) == ["fake-1"]


def test_a_model_that_is_no_longer_allowed_gives_way_to_a_fallback_that_is(govern):
    inner = FakeEngine()
    govern(inner).ask(asked("gone", "fake-2"))
    assert models_asked(inner) == ["fake-2"]
    with pytest.raises(ModelRefused):
        govern(inner).ask(asked("gone"))


@pytest.mark.parametrize("cause", [Cause.QUOTA, Cause.MODEL, Cause.OVERLOADED])
def test_an_exhausted_model_is_followed_by_the_next_and_the_next(govern, cause):
    inner = of_models(fake_1=away(cause), fake_2=away(cause))
    assert govern(inner).ask(asked("fake-1", "fake-2", "fake-3")).model_version == "fake-3.0"


def test_a_model_that_asks_for_a_pause_of_a_minute_is_waited_for(govern):
    inner = of_models(fake_1=away(Cause.RATE, 47))
    with pytest.raises(ModelUnavailable):
        govern(inner).ask(asked("fake-1", "fake-2"))
    assert models_asked(inner) == ["fake-1"]


def test_with_a_bad_key_no_other_model_is_asked(govern):
    inner = of_models(fake_1=away(Cause.ACCOUNT, notice="Bad key."))
    with pytest.raises(ModelUnavailable) as raised:
        govern(inner).ask(asked("fake-1", "fake-2"))
    assert raised.value.notice == "Bad key."
    assert models_asked(inner) == ["fake-1"]


@pytest.mark.parametrize("cause", [Cause.ACCOUNT, Cause.ADDRESS, Cause.MODEL])
def test_while_somebody_waits_a_refusal_that_needs_a_person_is_confirmed_before_it_stops_the_calls(govern, time, cause):
    outcomes = iter([away(cause, notice="Bad."), None, away(cause, notice="Bad."), away(cause, notice="Bad.")])
    engine = govern(inner := FakeEngine(script=lambda _call, _number: next(outcomes, None)))
    assert engine.ask(asked(waited=True)).finish is Finish.COMPLETE
    with pytest.raises(ModelUnavailable, match="away"):
        engine.ask(asked(waited=True))
    assert len(inner.calls) == 4
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(asked(waited=True))
    assert (raised.value.cause, raised.value.notice, len(inner.calls)) == (cause, "Bad.", 4)


def test_a_server_that_is_not_there_is_asked_twice_and_then_now_and_then_until_it_answers(govern, time):
    inner = of_models(fake_1=away(Cause.AWAY, 5, "Not there."))
    engine = govern(inner)
    for _ in range(3):
        with pytest.raises(ModelUnavailable) as raised:
            engine.ask(asked("fake-1", "fake-2"))
        assert (raised.value.cause, raised.value.notice) == (Cause.AWAY, "Not there.")
    assert models_asked(inner) == ["fake-1", "fake-1"]
    time.now += 5_001
    assert engine.ask(asked("fake-2")).finish is Finish.COMPLETE
    assert engine.ask(asked("fake-2")).finish is Finish.COMPLETE


def test_a_gateway_that_answers_for_the_model_counts_as_away_only_when_every_try_gets_its_page(govern, time):
    page = lambda: away(Cause.OVERLOADED, 5, "A page.")  # noqa: E731
    outcomes = iter([*(page() for _ in range(TRIES - 1)), None, *(page() for _ in range(TRIES))])
    engine = govern(FakeEngine(script=lambda _call, _number: next(outcomes, None)))
    assert engine.ask(asked()).finish is Finish.COMPLETE
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(asked())
    assert raised.value.cause is Cause.AWAY


def test_when_all_are_exhausted_the_soonest_is_waited_for_and_the_notice_is_kept(govern):
    inner = of_models(fake_1=away(Cause.QUOTA, 600, "Used up."), fake_2=away(Cause.OVERLOADED, 15))
    with pytest.raises(ModelUnavailable) as raised:
        govern(inner).ask(asked("fake-1", "fake-2"))
    assert (raised.value.retry_after, raised.value.notice) == (15, "Used up.")


def test_a_wait_of_a_moment_is_waited_in_the_thread_and_a_longer_one_frees_it(govern, time):
    models = {"fake-1": Model(name="fake-1", rpm=60)}
    engine = govern(FakeEngine(), models)
    for _ in range(6):
        engine.ask(asked())
    assert 0 < max(time.paused) <= PATIENCE_SECONDS
    models["fake-1"] = Model(name="fake-1", rpm=6)
    engine = govern(FakeEngine(), models)
    engine.ask(asked())
    before = time.now
    with pytest.raises(ModelUnavailable) as raised:
        engine.ask(asked())
    assert raised.value.retry_after > PATIENCE_SECONDS
    assert time.now == before


def test_each_try_counts_against_the_limit_and_every_permit_is_given_back(govern, time):
    outcomes = iter([away(Cause.OVERLOADED), ModelFault("x"), ModelRefused("x"), RuntimeError("x")])
    engine = govern(FakeEngine(script=lambda _call, _number: next(outcomes, None)), concurrency=1)
    for error in (ModelFault, ModelRefused, RuntimeError):
        with pytest.raises(error):
            engine.ask(asked())
    assert engine.ask(asked()).finish is Finish.COMPLETE


def test_who_finds_no_place_looks_for_a_moment_and_then_frees_its_thread(govern, time):
    inner: FakeEngine

    def nested(call: Call, number: int) -> Answer | None:
        if number == 1:
            with pytest.raises(ModelUnavailable) as raised:
                engine.ask(asked())
            assert raised.value.cause is Cause.CROWDED
            assert raised.value.retry_after >= 1
        return None

    engine = govern(inner := FakeEngine(script=nested), concurrency=1)
    assert engine.ask(asked()).finish is Finish.COMPLETE
    assert len(inner.calls) == 1
    assert 0 < sum(time.paused) <= PATIENCE_SECONDS


@pytest.mark.parametrize(("idle_seconds", "waits"), [(1000, SPARE_PATIENCE_SECONDS), (5, 5), (0, PATIENCE_SECONDS)])
def test_who_finds_no_place_looks_for_longer_while_other_threads_have_nothing_to_do(govern, time, idle_seconds, waits):
    def nested(_call: Call, number: int) -> None:
        if number == 1:
            with pytest.raises(ModelUnavailable) as raised:
                engine.ask(asked())
            assert raised.value.retry_after >= 1

    began = time.now
    spare = lambda: time.now - began < 1000 * idle_seconds  # noqa: E731
    engine = govern(FakeEngine(script=nested), concurrency=1, spare=spare)
    assert engine.ask(asked()).finish is Finish.COMPLETE
    assert sum(time.paused) == pytest.approx(waits, abs=0.5)


def test_who_finds_no_place_does_not_look_for_one_beyond_the_end_of_its_call(govern, time):
    def nested(_call: Call, number: int) -> None:
        if number == 1:
            with pytest.raises(ModelUnavailable):
                engine.ask(replace(asked(), timeout=0))

    engine = govern(FakeEngine(script=nested), concurrency=1, spare=lambda: True)
    assert engine.ask(asked()).finish is Finish.COMPLETE
    assert sum(time.paused) <= PATIENCE_SECONDS


def test_who_finds_no_place_has_the_next_one_that_becomes_free():
    """Without a clock: nobody would wait for less than the seconds of a test."""
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def until_told(_call: Call, _number: int) -> None:
        begun.release()
        go_on.acquire()

    waits: list[float] = []

    def wait(told: threading.Event, seconds: float) -> float:
        waits.append(seconds)
        told.wait()
        return 0.0

    limiter = LocalLimiter(concurrency=2)
    engine = GovernedEngine(FakeEngine(script=until_told), limiter=limiter, models=MODELS, wait=wait)
    with ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(engine.ask, asked()) for _ in range(6)]
        for _ in range(6):
            begun.acquire()
            go_on.release()
        assert [answer.result().finish for answer in answers] == [Finish.COMPLETE] * 6
    assert waits


def test_who_looks_for_a_place_is_told_in_the_order_of_coming_and_first_whose_caller_waits():
    queue = CallQueue(lambda told, _seconds: float(told.is_set()))
    with ExitStack() as line:
        turns = [line.enter_context(queue.in_line("m", waited=waited)) for waited in (False, False, True, True)]
        other = line.enter_context(queue.in_line("another", waited=False))
        seen = []
        for _ in range(5):
            queue.leave("m")
            seen.append([turn.wait(1) for turn in turns].index(1) if any(turn.told.is_set() for turn in turns) else None)
        assert seen == [2, 2, 2, 2, 2], "it has not left the line: the place may have been another process's"
        queue.leave("m")
        queue.leave("m")
        assert [turn.wait(1) for turn in turns] == [0, 0, 1, 1]
        assert not other.wait(1)


def test_who_comes_waits_only_behind_those_who_found_no_place():
    queue = CallQueue(lambda told, _seconds: float(told.is_set()))
    with ExitStack() as line:
        first, second = (line.enter_context(queue.in_line("m", waited=False)) for _ in range(2))
        assert not first.is_behind
        assert not second.is_behind
        first.wait(1)
        assert line.enter_context(queue.in_line("m", waited=False)).is_behind
        assert not line.enter_context(queue.in_line("m", waited=True)).is_behind
        assert not line.enter_context(queue.in_line("another", waited=False)).is_behind


def test_who_is_told_of_a_place_after_it_found_one_tells_the_next():
    queue = CallQueue(lambda told, _seconds: float(told.is_set()))
    with queue.in_line("m", waited=False) as second:
        with queue.in_line("m", waited=True):
            queue.leave("m")
        assert second.wait(1)


def test_who_is_told_of_a_place_and_is_sent_away_all_the_same_tells_the_next():
    queue = CallQueue(lambda told, _seconds: float(told.is_set()))
    with queue.in_line("m", waited=False) as second:
        with queue.in_line("m", waited=True) as first:
            queue.leave("m")
            first.wait(1)
        assert second.wait(1)
        with queue.in_line("m", waited=True) as first:
            queue.leave("m")
            first.wait(1)
            first.found = True
        assert not second.wait(1)


def served(tier: Tier) -> Answer:
    return Answer(finish=Finish.COMPLETE, text="t", input_tokens=10, output_tokens=1, tier=tier)


@pytest.mark.parametrize(("tier", "price"), [(Tier.ECONOMY, 3_000), (Tier.STANDARD, 12_000)])
def test_an_economy_call_is_paid_for_by_the_tier_in_which_it_was_served(govern, tier, price):
    models = {"fake-1": Model(name="fake-1", price_in=1.0, price_out=2.0, flex=0.25)}
    engine = FakeEngine(script=lambda _call, _number: served(tier))
    answer = govern(engine, models).ask(replace(asked(), tier=Tier.ECONOMY))
    assert (answer.nanodollars, engine.calls[0].tier) == (price, Tier.ECONOMY)


def test_a_model_without_an_economy_tier_is_asked_in_the_standard_one(govern):
    models = {"fake-1": Model(name="fake-1", flex=0.5), "fake-2": Model(name="fake-2")}
    engine = of_models(fake_1=away(Cause.QUOTA))
    govern(engine, models).ask(replace(asked("", "fake-2"), tier=Tier.ECONOMY))
    assert [(call.model, call.tier) for call in engine.calls] == [("fake-1", Tier.ECONOMY), ("fake-2", Tier.STANDARD)]


def test_a_call_that_is_shed_is_not_made_again_in_its_thread(govern, time):
    engine = of_models(fake_1=shed("HTTP 503", status=503, retry_after=None))
    with pytest.raises(ModelUnavailable) as raised:
        govern(engine, {"fake-1": Model(name="fake-1", flex=0.5)}).ask(replace(asked(), tier=Tier.ECONOMY))
    assert raised.value.cause is Cause.SHED
    assert raised.value.retry_after > 0
    assert len(engine.calls) == 1
