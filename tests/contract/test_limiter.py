"""Who may ask a model when: in one process, and shared through Redis. The clock is the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines.limiter import CROWDED_MS, SHEDS, LocalLimiter
from pipeline.models import Model
from pipeline.ports import Cause, Limiter, ModelUnavailable, Permit
from pipeline.types import Tier
from storage.redis.model_limits import RedisLimiter
from storage.redis.signals import connect

START = 1_790_000_000_000.0
SLOW = Model(name="slow", rpm=5)
FAST = Model(name="fast", rpm=600)
FREE = Model(name="free")
OTHER = Model(name="other")
ECONOMY_CALLS = 64
KEY_NOTICE = "The key is wrong."


@dataclass
class Bench:
    """Limiters of several processes that share their limits, or one; and the clock that all go by."""

    make: Callable[..., Any]
    now: float = START
    limiter: Limiter = field(init=False)

    def __post_init__(self) -> None:
        self.limiter = self.make()

    def pass_(self, seconds: float) -> None:
        self.now += seconds * 1000

    def enter(
        self,
        model: Model,
        *,
        tokens: int = 100,
        waited: bool = False,
        by: Limiter | None = None,
        tier: Tier = Tier.STANDARD,
        seconds: float = 60,
    ) -> Permit:
        return (by or self.limiter).enter(model, tokens=tokens, waited=waited, seconds=seconds, tier=tier)

    def sent_away(self, model: Model, **options: Any) -> ModelUnavailable:
        with pytest.raises(ModelUnavailable) as raised:
            self.enter(model, **options)
        return raised.value

    def leave(self, permit: Permit, trouble: ModelUnavailable | None = None, tokens: int | None = None) -> None:
        self.limiter.leave(permit, tokens=tokens, trouble=trouble)

    def call(self, model: Model, trouble: ModelUnavailable | None = None, **options: Any) -> None:
        self.leave(self.enter(model, **options), trouble)


ECONOMY, STANDARD = Tier.ECONOMY, Tier.STANDARD

KINDS = ["local", "fakeredis", "valkey"]


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "local":
        yield (
            made := Bench(
                lambda concurrency=100: LocalLimiter(concurrency=concurrency, economy=ECONOMY_CALLS, clock=lambda: made.now)
            )
        )
        return
    client = fakeredis.FakeRedis() if request.param == "fakeredis" else connect(request.getfixturevalue("redis_url"))
    client.flushall()
    yield (
        made := Bench(
            lambda concurrency=100: RedisLimiter(client, concurrency=concurrency, economy=ECONOMY_CALLS, clock=lambda: made.now)
        )
    )
    client.flushall()
    client.close()


def trouble(cause: Cause, seconds: float, notice: str = "") -> ModelUnavailable:
    return ModelUnavailable(str(cause), retry_after=seconds, notice=notice, cause=cause)


def test_a_model_without_limits_is_asked_at_once(bench):
    assert [bench.enter(FREE).delay for _ in range(50)] == [0.0] * 50


def test_who_asks_more_often_than_the_limit_is_sent_away_until_its_time(bench):
    bench.call(SLOW)
    away = bench.sent_away(SLOW)
    assert away.cause is Cause.BUSY
    assert 10 < away.retry_after < 12.5
    bench.pass_(away.retry_after)
    assert bench.enter(SLOW).delay == 0


def test_a_time_that_is_near_is_given_and_not_given_twice(bench):
    delays = [bench.enter(FAST).delay for _ in range(16)]
    assert delays == sorted(delays)
    late = [delay for delay in delays if delay]
    assert len(set(late)) == len(late) > 1
    assert max(delays) <= 1.0


def fill(bench: Bench) -> None:
    with suppress(ModelUnavailable):
        while True:
            bench.enter(FAST)


def test_those_sent_away_come_back_one_after_the_other(bench):
    fill(bench)
    waits = [bench.sent_away(FAST).retry_after for _ in range(20)]
    assert len(set(waits)) == 20
    assert waits == sorted(waits)


def test_however_many_are_sent_away_the_last_is_back_within_half_a_minute_of_its_turn(bench):
    bench.enter(SLOW)
    waits = [bench.sent_away(SLOW).retry_after for _ in range(50)]
    assert max(waits) < 12.5 + 30 + 12.5


def test_tokens_have_a_limit_of_their_own(bench):
    model = Model(name="tokens", tpm=1000)
    bench.call(model, tokens=400)
    assert bench.sent_away(model, tokens=400).retry_after > 20


def test_what_a_call_really_used_is_trued_up(bench):
    model = Model(name="tokens", tpm=1000)
    bench.leave(bench.enter(model, tokens=400), tokens=0)
    bench.leave(bench.enter(model, tokens=400), tokens=4)
    assert bench.enter(model, tokens=400).delay < 1


def test_a_call_of_more_tokens_than_a_minute_has_is_made_all_the_same(bench):
    model = Model(name="tokens", tpm=1000)
    bench.call(model, tokens=5000)
    assert bench.sent_away(model, tokens=5000).retry_after > 300


def test_who_waits_goes_before_others(bench):
    bench.call(SLOW)
    away = bench.sent_away(SLOW, waited=True)
    bench.pass_(away.retry_after)
    assert bench.sent_away(SLOW).cause is Cause.BUSY
    assert bench.enter(SLOW, waited=True).delay == 0


def test_who_waits_finds_a_place_where_others_are_sent_away(bench):
    fill(bench)
    assert bench.enter(FAST, waited=True).delay > 0.9


def test_a_429_holds_every_process_until_the_asked_time(bench):
    another = bench.make()
    bench.call(FREE, trouble(Cause.RATE, 47))
    processes = (bench.limiter,) if isinstance(another, LocalLimiter) else (bench.limiter, another)
    for limiter in processes:
        away = bench.sent_away(FREE, by=limiter)
        assert away.cause is Cause.RATE
        assert 47 <= away.retry_after < 48
    assert bench.enter(OTHER).delay == 0
    bench.pass_(47.1)
    assert bench.enter(FREE).delay == 0


def test_a_shorter_pause_does_not_end_a_longer_one(bench):
    first, second = bench.enter(FREE), bench.enter(FREE)
    bench.leave(first, trouble(Cause.RATE, 40))
    bench.leave(second, trouble(Cause.RATE, 1))
    assert bench.sent_away(FREE).retry_after == pytest.approx(40)


def open_at_once(bench: Bench, limiter: Limiter, model: Model = FREE) -> list[Permit]:
    permits = []
    with pytest.raises(ModelUnavailable) as away:  # noqa: PT012 - one of them
        while True:
            permits.append(bench.enter(model, by=limiter))
    assert (away.value.cause, away.value.retry_after) == (Cause.CROWDED, CROWDED_MS / 1000)
    return permits


def test_no_more_calls_are_made_at_once_than_the_setting_says(bench):
    bench.limiter = bench.make(concurrency=8)
    permits = open_at_once(bench, bench.limiter)
    assert len(permits) == 8
    bench.leave(permits[0])
    assert bench.enter(FREE)


def test_a_429_halves_the_calls_at_once_however_many_of_a_burst_say_it_and_successes_raise_them_again(bench):
    bench.limiter = bench.make(concurrency=8)
    for permit in open_at_once(bench, bench.limiter):
        bench.leave(permit, trouble(Cause.RATE, 5))
    bench.pass_(6)
    permits = open_at_once(bench, bench.limiter)
    assert len(permits) == 4
    for permit in permits:
        bench.leave(permit)
    permits = open_at_once(bench, bench.limiter)
    assert len(permits) in {4, 5}
    for permit in permits:
        bench.leave(permit)
    for _ in range(40):
        bench.call(FREE)
    assert len(open_at_once(bench, bench.limiter)) == 8


def test_calls_of_each_tier_take_no_place_from_the_other(bench):
    for tier, places, seconds in ((Tier.ECONOMY, ECONOMY_CALLS, 960), (Tier.STANDARD, 100, 60)):
        for _ in range(places):
            assert bench.enter(FREE, tier=tier, seconds=seconds).tier is tier
        assert bench.sent_away(FREE, tier=tier).cause is Cause.CROWDED
    bench.pass_(900)
    assert bench.enter(FREE)
    assert bench.sent_away(FREE, tier=Tier.ECONOMY).cause is Cause.CROWDED
    bench.pass_(70)
    assert bench.enter(FREE, tier=Tier.ECONOMY)


def test_both_tiers_count_towards_the_limit_and_economy_goes_last(bench):
    bench.call(FAST, tier=Tier.ECONOMY)
    fill(bench)
    assert bench.sent_away(FAST, tier=Tier.ECONOMY).cause is Cause.BUSY
    bench.pass_(1)  # a standard request of now gets a time that is near, and an economy request does not
    assert bench.sent_away(FAST, tier=Tier.ECONOMY).cause is Cause.BUSY
    assert bench.enter(FAST).delay > 0


def test_an_economy_request_goes_after_one_whose_caller_waits(bench):
    bench.call(SLOW)
    bench.pass_(bench.sent_away(SLOW, waited=True).retry_after)
    assert bench.sent_away(SLOW, tier=Tier.ECONOMY, waited=True).cause is Cause.BUSY
    assert bench.enter(SLOW, waited=True).delay == 0


def test_after_several_sheds_in_a_row_the_economy_lane_alone_is_paused_and_each_time_for_longer(bench):
    shed = trouble(Cause.SHED, 10)
    waits = []
    for _ in range(SHEDS - 1):
        bench.call(FREE, shed, tier=Tier.ECONOMY)
    for _ in range(6):
        bench.call(FREE, shed, tier=Tier.ECONOMY)
        away = bench.sent_away(FREE, tier=Tier.ECONOMY)
        assert away.cause is Cause.SHED
        assert bench.enter(FREE).delay == 0
        waits.append(away.retry_after)
        bench.pass_(away.retry_after + 0.1)
    assert [round(wait) for wait in waits] == [10, 20, 40, 80, 80, 80]


def test_a_look_at_a_pause_says_how_long_it_lasts_and_takes_no_place(bench):
    assert bench.limiter.paused(SLOW, Tier.ECONOMY) == 0
    for _ in range(SHEDS):
        bench.call(FREE, trouble(Cause.SHED, 10), tier=Tier.ECONOMY)
    bench.pass_(4)
    assert [round(bench.limiter.paused(FREE, tier)) for tier in Tier] == [0, 6]
    bench.call(OTHER, trouble(Cause.RATE, 30))
    assert [round(bench.limiter.paused(OTHER, tier)) for tier in Tier] == [30, 30]
    bench.pass_(31)
    assert [bench.limiter.paused(model, tier) for model in (FREE, OTHER) for tier in Tier] == [0] * 4
    assert bench.enter(SLOW).delay == 0, "the look has reserved nothing"


def test_an_answer_ends_the_pause_of_the_economy_lane(bench):
    under_way = bench.enter(FREE, tier=Tier.ECONOMY, seconds=960)
    for _ in range(SHEDS):
        bench.call(FREE, trouble(Cause.SHED, 10), tier=Tier.ECONOMY)
    assert bench.sent_away(FREE, tier=Tier.ECONOMY)
    bench.leave(under_way)
    bench.call(FREE, trouble(Cause.SHED, 10), tier=Tier.ECONOMY)
    assert bench.enter(FREE, tier=Tier.ECONOMY)


def test_a_limit_that_an_economy_call_meets_stops_no_standard_call(bench):
    bench.call(FREE, trouble(Cause.RATE, 30), tier=Tier.ECONOMY)
    bench.call(OTHER, trouble(Cause.QUOTA, 600, "used up"), tier=Tier.ECONOMY)
    for model in (FREE, OTHER):
        assert bench.sent_away(model, tier=Tier.ECONOMY)
        assert bench.enter(model)


def test_a_limit_that_a_standard_call_meets_stops_the_economy_calls_too(bench):
    bench.call(FREE, trouble(Cause.RATE, 30))
    bench.call(OTHER, trouble(Cause.QUOTA, 600, "used up"))
    for model in (FREE, OTHER):
        assert bench.sent_away(model, tier=Tier.ECONOMY)


def test_an_economy_call_that_is_answered_ends_what_stopped_its_model(bench):
    bench.call(FREE, trouble(Cause.QUOTA, 600, "used up"))
    bench.pass_(601)
    bench.call(FREE, tier=Tier.ECONOMY)
    assert bench.enter(FREE)


def test_a_single_call_is_always_possible(bench):
    bench.limiter = bench.make(concurrency=2)
    for _ in range(6):
        bench.call(FREE, trouble(Cause.RATE, 1))
        bench.pass_(1.1)
    assert len(open_at_once(bench, bench.limiter)) == 1


def test_a_call_whose_worker_died_counts_no_more_after_its_time(bench):
    bench.limiter = bench.make(concurrency=1)
    bench.enter(FREE)
    bench.pass_(30)
    assert bench.sent_away(FREE).cause is Cause.CROWDED
    bench.pass_(36)
    assert bench.enter(FREE)


def test_a_bad_key_stops_every_model_and_is_told_and_one_looks_now_and_then(bench):
    bench.call(FREE, trouble(Cause.ACCOUNT, 30, KEY_NOTICE))
    for model in (FREE, OTHER):
        away = bench.sent_away(model)
        assert (away.cause, away.notice) == (Cause.ACCOUNT, KEY_NOTICE)
        assert 29 < away.retry_after <= 30
    assert bench.limiter.notices([FREE, OTHER]) == {"": KEY_NOTICE}
    bench.pass_(30.5)
    probe = bench.enter(FREE)
    assert bench.sent_away(OTHER).notice == KEY_NOTICE
    bench.leave(probe, trouble(Cause.ACCOUNT, 30, KEY_NOTICE))
    assert bench.sent_away(FREE).cause is Cause.ACCOUNT


def test_a_call_that_succeeds_ends_it(bench):
    bench.call(FREE, trouble(Cause.ACCOUNT, 30, KEY_NOTICE))
    bench.pass_(30.5)
    bench.call(FREE)
    assert bench.limiter.notices([FREE, OTHER]) == {}
    assert bench.enter(OTHER)


def test_a_day_s_quota_stops_its_model_alone(bench):
    bench.call(FREE, trouble(Cause.QUOTA, 600, "Used up."))
    assert bench.sent_away(FREE).cause is Cause.QUOTA
    assert bench.enter(OTHER)
    assert bench.limiter.notices([FREE, OTHER]) == {FREE.name: "Used up."}


def test_when_who_looked_never_came_back_another_looks(bench):
    bench.call(FREE, trouble(Cause.QUOTA, 60, "Used up."))
    bench.pass_(61)
    bench.enter(FREE)
    bench.pass_(61)
    assert bench.enter(FREE)


def test_an_overloaded_model_stops_nobody(bench):
    bench.call(FREE, trouble(Cause.OVERLOADED, 15))
    assert bench.enter(FREE).delay == 0


@pytest.mark.parametrize("kind", ["local", "fakeredis"])
@settings(max_examples=25)
@given(rpm=st.integers(1, 150), gaps=st.lists(st.floats(0, 9), min_size=5, max_size=120), waited=st.randoms())
def test_in_no_minute_more_requests_start_than_the_limit_allows(kind, rpm, gaps, waited):
    if kind == "local":
        bench = Bench(lambda: LocalLimiter(concurrency=10_000, clock=lambda: bench.now))
    else:
        client = fakeredis.FakeRedis()
        bench = Bench(lambda: RedisLimiter(client, concurrency=10_000, clock=lambda: bench.now))
    starts = []
    for gap in gaps:
        bench.pass_(gap)
        for _ in range(4):
            try:
                permit = bench.enter(Model(name="m", rpm=rpm), waited=waited.random() < 0.3)
            except ModelUnavailable:
                break
            starts.append(bench.now + permit.delay * 1000)
    starts.sort()
    for place, start in enumerate(starts):
        assert sum(start <= other < start + 60_000 for other in starts[place:]) <= rpm


def test_without_redis_each_process_keeps_to_its_share():
    server = fakeredis.FakeServer()
    client = fakeredis.FakeRedis(server=server)
    limiters = [RedisLimiter(client, concurrency=10) for _ in range(2)]
    model = Model(name="m", rpm=12)

    def call(limiter: RedisLimiter) -> None:
        limiter.leave(limiter.enter(model, tokens=1, waited=True, seconds=1), tokens=None, trouble=None)

    call(limiters[0])
    for limiter in reversed(limiters):
        with pytest.raises(ModelUnavailable):
            call(limiter)
    server.connected = False
    for limiter in limiters:
        call(limiter)
        with pytest.raises(ModelUnavailable) as raised:
            call(limiter)
        assert 6 < raised.value.retry_after < 10.3  # of 12 a minute for two processes: 6, one in 10.25 s, less the burst
    server.connected = True
    limiters[0]._away_until = 0.0
    with pytest.raises(ModelUnavailable) as raised:
        call(limiters[0])
    assert raised.value.retry_after < 5.2


def test_redis_s_own_clock_is_used_where_no_other_is_given(redis_url):
    client = connect(redis_url)
    client.flushall()
    limiter = RedisLimiter(client, concurrency=10)
    limiter.enter(SLOW, tokens=1, waited=False, seconds=1)
    with pytest.raises(ModelUnavailable) as raised:
        limiter.enter(SLOW, tokens=1, waited=False, seconds=1)
    assert 5 < raised.value.retry_after <= 12.5
    client.flushall()
    client.close()


def stops(bench: Bench) -> list[tuple[str, Tier, Cause]]:
    return [(stop.model, stop.tier, stop.cause) for stop in bench.limiter.stops([FREE, OTHER])]


def test_where_every_model_may_be_asked_nothing_is_stopped(bench):
    assert stops(bench) == []
    bench.call(FREE)
    assert stops(bench) == []


def test_a_refused_key_stops_the_engine_until_a_call_is_answered(bench):
    bench.call(FREE, ModelUnavailable(KEY_NOTICE, retry_after=30, cause=Cause.ACCOUNT, notice=KEY_NOTICE))
    assert stops(bench) == [("", STANDARD, Cause.ACCOUNT)]
    bench.pass_(31)
    assert stops(bench) == [("", STANDARD, Cause.ACCOUNT)]
    bench.call(FREE)
    assert stops(bench) == []


def test_a_model_without_quota_is_stopped_and_the_others_are_not(bench):
    bench.call(FREE, ModelUnavailable("Used up.", retry_after=30, cause=Cause.QUOTA, notice="Used up."))
    assert stops(bench) == [(FREE.name, STANDARD, Cause.QUOTA)]


def test_a_model_that_was_asked_too_often_is_stopped_while_its_pause_lasts(bench):
    bench.call(OTHER, ModelUnavailable("429", retry_after=30, cause=Cause.RATE))
    assert stops(bench) == [(OTHER.name, STANDARD, Cause.RATE)]
    bench.pass_(31)
    assert stops(bench) == []


def test_a_tier_without_capacity_is_stopped_alone(bench):
    for _ in range(SHEDS):
        bench.call(FREE, ModelUnavailable("503", retry_after=30, cause=Cause.SHED), tier=ECONOMY)
    assert stops(bench) == [(FREE.name, ECONOMY, Cause.SHED)]
