"""What every Decode promises: the one in memory, and the pool of child processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
from PIL import Image

from pipeline.decode.pool import DecoderPool
from pipeline.ports import Decode
from pipeline.types import INPUT_FAULTS, ItemCode, Prepared, Refused
from tests.fakes.images import KILLER, fake_decode
from tests.fakes.picture_files import encoded
from tests.rows import at_once

#: Children that do as a picture's last bytes say.
HOOKED = (sys.executable, "-m", "tests.fakes.hooked_decode_child")


@dataclass
class Bench:
    """A decoder for one picture at a time, and different pictures that it can take as they are."""

    decode: Decode
    picture: Callable[[int], bytes]
    large: bytes  #: a picture whose outcome is not held back for those of others: the real decoder needs over 20 ms for it


def drawn(number: int) -> bytes:
    return encoded(Image.new("RGB", (number + 1, 9), "white"), "PNG")


@pytest.fixture(params=["memory", "pool"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield Bench(fake_decode, lambda number: f"img {number}".encode(), b"img large")
        return
    with DecoderPool(1, command=HOOKED) as pool:
        yield Bench(pool, drawn, encoded(Image.new("RGB", (4000, 4000)), "PNG"))


def as_came(outcome: Prepared | Refused) -> bytes:
    assert isinstance(outcome, Prepared), outcome
    return outcome.data


def test_each_picture_gives_one_outcome_in_the_order_of_the_pictures(bench):
    pictures = [bench.picture(number) for number in (3, 1, 4, 1, 5, 9, 2, 6)]
    assert list(map(as_came, bench.decode(pictures))) == pictures


def test_no_pictures_give_no_outcomes(bench):
    assert list(bench.decode([])) == []


def test_what_a_picture_is_said_to_be_can_be_sent_to_a_model(bench):
    [outcome] = bench.decode([bench.picture(7)])
    assert isinstance(outcome, Prepared)
    assert outcome.mime == "image/png"
    assert outcome.source_format == "PNG"
    assert min(outcome.width, outcome.height) >= 1
    assert outcome.seconds >= 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ItemCode.IMAGE_EMPTY),
        (b"no picture", ItemCode.UNSUPPORTED_FORMAT),
        (b"<html>not found</html>", ItemCode.UNSUPPORTED_FORMAT),
        (bytes(1000), ItemCode.UNSUPPORTED_FORMAT),
    ],
)
def test_what_is_no_picture_is_refused_in_its_place_and_raises_nothing(bench, data, code):
    good = bench.picture(1)
    first, refused, last = bench.decode([good, data, good])
    assert (as_came(first), as_came(last)) == (good, good)
    assert isinstance(refused, Refused)
    assert refused.code is code
    assert refused.code in INPUT_FAULTS
    assert refused.detail


def test_a_picture_that_kills_the_decoder_is_refused_in_its_place_and_the_others_are_decoded(bench):
    good = [bench.picture(number) for number in range(4)]
    outcomes = list(bench.decode([*good[:2], bench.picture(9) + KILLER, *good[2:], bench.picture(8) + KILLER]))
    refused = {place: outcome.code for place, outcome in enumerate(outcomes) if isinstance(outcome, Refused)}
    assert refused == dict.fromkeys((2, 5), ItemCode.IMAGE_CRASHED_DECODER)
    assert [as_came(outcome) for place, outcome in enumerate(outcomes) if place not in refused] == good
    assert list(map(as_came, bench.decode(good))) == good


def test_an_outcome_is_given_before_the_later_ones_are_known_and_who_closes_gives_the_decoder_back(bench):
    """The second picture would keep the real decoder busy for as long as it may."""
    with closing(bench.decode([bench.large, bench.picture(1) + b"!hang", bench.picture(2)])) as outcomes:
        assert as_came(next(outcomes)) == bench.large
    assert list(outcomes) == []
    assert as_came(*bench.decode([bench.picture(4)])) == bench.picture(4)


def test_outcomes_that_nobody_began_to_take_can_be_closed(bench):
    bench.decode([bench.picture(1), bench.picture(2)]).close()
    assert as_came(*bench.decode([bench.picture(3)])) == bench.picture(3)


def test_threads_that_decode_at_once_get_each_their_own_outcomes(bench):
    def own(thread: int) -> list[bytes]:
        return list(map(as_came, bench.decode(pictures[thread])))

    pictures = [[bench.picture(10 * thread + number) for number in range(10)] for thread in range(4)]
    assert at_once(*(lambda thread=thread: own(thread) for thread in range(4))) == pictures


def test_the_seconds_of_pictures_that_share_one_decoder_are_together_no_more_than_the_time_that_passed(bench):
    """They would be, if the wait for the decoder were counted."""
    pictures = [[bench.picture(number)] for number in range(16)]
    began = time.monotonic()
    outcomes = at_once(*(lambda each=each: list(bench.decode(each)) for each in pictures))
    passed = time.monotonic() - began
    assert sum(outcome.seconds for [outcome] in outcomes) <= passed
