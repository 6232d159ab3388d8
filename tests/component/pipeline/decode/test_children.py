"""What decoder children survive, and what they never know: pictures that kill, hang and lie."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from PIL import Image

from pipeline.decode.pool import DecoderPool
from pipeline.decode.process import DecoderDied, DecoderNotStarted, DecoderProcess
from pipeline.decode.wire import REQUEST
from pipeline.ports import Decode
from pipeline.types import ItemCode, Prepared, Refused
from tests.fakes import picture_files
from tests.fakes.picture_files import encoded, photo

HOOKED = (sys.executable, "-m", "tests.fakes.hooked_decode_child")
UNSANDBOXED = (sys.executable, "-m", "tests.fakes.unsandboxed_decode_child")
#: A child whose decoders are killed with their picture: each one, or the first one only, which leaves a file.
KILLED = """
import os, pathlib, signal
from pipeline.decode import child, picture
once = pathlib.Path({once!r})
again = {always} or not once.exists()
once.touch()
child.main(lambda kind, data: os.kill(os.getpid(), signal.SIGKILL) if again else picture.decode(kind, data))
"""
GOOD = picture_files.native()["JPEG"]


@pytest.fixture
def hooked():
    """One child that does as pictures say, with little time."""
    with DecoderPool(1, seconds=1, command=HOOKED) as pool:
        yield pool


def prepared(decode: Decode, data: bytes) -> Prepared:
    [outcome] = decode([data])
    assert isinstance(outcome, Prepared), outcome
    return outcome


def refused(decode: Decode, data: bytes) -> Refused:
    [outcome] = decode([data])
    assert isinstance(outcome, Refused), outcome.source_format
    return outcome


def tell(decode: Decode) -> dict:
    return json.loads(refused(decode, GOOD + b"!tell").detail)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pid: int, within: int = 20) -> None:
    """Returns when the process is, which no child of ours need be."""
    for _ in range(100 * within):
        if not is_running(pid):
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{pid} runs on")


@pytest.mark.parametrize("end", [b"!crash", b"!exit", b"!lie", b"!large", b"!notes", b"!garbage"])
def test_a_picture_that_kills_its_decoder_is_named_and_the_next_succeeds(hooked, end):
    assert prepared(hooked, GOOD)
    outcome = refused(hooked, GOOD + end)
    assert outcome.code is ItemCode.IMAGE_CRASHED_DECODER
    assert "JPEG" in outcome.detail
    assert prepared(hooked, GOOD)


@pytest.mark.parametrize("end", [b"!crash", b"!exit", b"!lie", b"!garbage", b"!hang", b"!cpu"])
@pytest.mark.parametrize("at", [0, 3, 7])
def test_of_pictures_sent_together_only_the_one_that_kills_its_decoder_is_named(hooked, end, at):
    pictures = [GOOD + b"!print"] * 8
    pictures[at] = GOOD + end
    outcomes = list(hooked(pictures))
    spoilt = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Refused)]
    assert spoilt == [at]
    assert outcomes[at].code in {ItemCode.IMAGE_CRASHED_DECODER, ItemCode.IMAGE_TOO_COMPLEX}
    assert all(outcome.data == GOOD + b"!print" for number, outcome in enumerate(outcomes) if number != at)


def test_pictures_sent_together_are_answered_in_their_order_by_one_child(hooked):
    assert [json.loads(outcome.detail)["seen"] for outcome in hooked([GOOD + b"!tell"] * 40)] == list(range(1, 41))


def test_what_is_no_picture_gets_its_answer_between_others_without_a_decoder(hooked):
    outcomes = list(hooked([b"", GOOD, b"no picture", GOOD + b"!tell", b"%PDF-1.7"]))
    assert [isinstance(outcome, Refused) for outcome in outcomes] == [True, False, True, True, True]
    assert json.loads(outcomes[3].detail)["seen"] == 2
    assert list(hooked([])) == []


def test_large_pictures_sent_together_flow_both_ways():
    noise = Image.frombytes("RGB", (1500, 1500), os.urandom(1500 * 1500 * 3))
    data = encoded(noise, "TIFF")
    with DecoderPool(1) as pool:
        for outcome in pool([data] * 5):
            assert isinstance(outcome, Prepared)
            assert Image.open(io.BytesIO(outcome.data), formats=["PNG"]).tobytes() == noise.tobytes()


def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_picture_s(hooked):
    assert refused(hooked, GOOD + b"!twice").code is ItemCode.IMAGE_CORRUPT
    assert prepared(hooked, GOOD)
    assert len(list(hooked([GOOD, GOOD + b"!twice", GOOD]))) == 3
    assert prepared(hooked, GOOD)


def test_an_answer_nobody_asked_for_is_not_taken_even_if_it_comes_after_the_child_was_given_back():
    """The pool looks too, but before the child waits for its next picture."""
    child = DecoderProcess((*HOOKED, "20", str(10**9)))
    try:
        [outcome] = child.ask([("JPEG", GOOD + b"!twice")], seconds=20)
        assert isinstance(outcome, Refused)
        with pytest.raises(DecoderDied):
            list(child.ask([("JPEG", GOOD)], seconds=20))
    finally:
        child.end()


def test_another_caller_s_picture_comes_between_those_that_are_asked_about_one_by_one(hooked):
    def hostile():
        return [outcome.code for outcome in hooked([GOOD + b"!hang"] * 4)]

    with ThreadPoolExecutor(1) as thread:
        four = thread.submit(hostile)
        while hooked._idle:
            threading.Event().wait(0.001)
        assert prepared(hooked, GOOD)
        assert not four.done()
        assert four.result() == [ItemCode.IMAGE_TOO_COMPLEX] * 4


def test_a_caller_that_gives_up_spoils_nothing_for_the_next(hooked):
    outcomes = hooked([GOOD] * 5)
    assert isinstance(next(outcomes), Prepared)
    outcomes.close()
    assert tell(hooked)["seen"] == 1, "a new child: the other was in the midst of answers"


def test_a_caller_that_has_all_its_answers_leaves_the_child(hooked):
    outcomes = hooked([GOOD] * 3)
    for _ in range(3):
        next(outcomes)
    del outcomes
    assert tell(hooked)["seen"] == 4


@pytest.mark.parametrize("end", [b"!hang", b"!spin", b"!cpu"])
def test_a_picture_that_never_ends_is_cut_off_and_the_next_succeeds(hooked, end):
    outcome = refused(hooked, GOOD + end)
    assert outcome.code is ItemCode.IMAGE_TOO_COMPLEX
    assert "longer than 1 s" in outcome.detail
    assert prepared(hooked, GOOD)


def test_cpu_time_is_counted_for_each_picture_by_itself():
    with DecoderPool(1, seconds=3, command=HOOKED) as pool:
        first = tell(pool)
        assert first["cpu"] <= 3 + 2, "what the start took, rounded up, and 3 s more"
        busy = encoded(Image.effect_noise((3000, 3000), 80), "TIFF", compression="tiff_lzw")
        for _ in range(500):
            if tell(pool)["cpu"] > first["cpu"] + 3:
                break
            prepared(pool, busy)
        assert tell(pool)["pid"] == first["pid"]
        assert tell(pool)["cpu"] > first["cpu"] + 3


def test_a_child_that_was_killed_while_idle_accuses_nobody(hooked):
    os.kill(tell(hooked)["pid"], signal.SIGKILL)
    assert prepared(hooked, GOOD)


def test_a_decoder_that_was_killed_before_its_first_picture_accuses_nobody():
    with DecoderPool(1, pictures=1, command=HOOKED) as pool:
        assert prepared(pool, GOOD)
        keeper = psutil.Process(pool._idle[0].child._process.pid)
        [decoder] = keeper.children()
        decoder.kill()
        assert prepared(pool, GOOD)


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
def test_a_picture_whose_new_decoder_was_killed_gets_one_more(tmp_path, always):
    once = tmp_path / "killed"
    command = (sys.executable, "-c", KILLED.format(once=str(once), always=always))
    with DecoderPool(1, command=command) as pool:
        if always:
            assert refused(pool, GOOD).code is ItemCode.IMAGE_CRASHED_DECODER
        else:
            assert prepared(pool, GOOD)
    assert once.exists()


def test_a_picture_that_takes_its_time_and_then_kills_its_decoder_counts_with_that_time(hooked):
    began = time.monotonic()
    outcome = refused(hooked, GOOD + b"!later")
    assert outcome.code is ItemCode.IMAGE_CRASHED_DECODER
    assert 0.3 <= outcome.seconds <= time.monotonic() - began


def test_a_decoder_that_hangs_is_ended_when_it_is_late_even_if_what_keeps_it_was_killed():
    with DecoderPool(1, seconds=4, command=HOOKED) as pool:
        decoder = tell(pool)["pid"]
        pool._idle[0].child._process.kill()
        assert refused(pool, GOOD + b"!hang").code is ItemCode.IMAGE_TOO_COMPLEX
        gone(decoder, within=2)  # by itself it would end after 4 more


def test_what_other_pictures_did_to_a_child_accuses_nobody(hooked):
    assert prepared(hooked, GOOD)
    assert prepared(hooked, GOOD + b"!used")


def test_signals_to_the_whole_group_do_not_end_a_child(hooked):
    before = tell(hooked)["pid"]
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(before, stop)
    assert tell(hooked)["pid"] == before


def test_what_a_library_prints_does_not_get_between_answers(hooked):
    assert prepared(hooked, GOOD + b"!print").data == GOOD + b"!print"
    assert prepared(hooked, GOOD).data == GOOD


def test_a_child_knows_no_secret_and_can_write_no_file(hooked, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "secret")
    state = tell(hooked)
    assert "GEMINI_API_KEY" not in state["environment"]
    assert (state["AS"], state["FSIZE"], state["CORE"]) == (1_500_000_000, 0, 0)
    assert state["NOFILE"] <= 32


def test_a_decoder_is_replaced_after_so_many_pictures_and_by_the_same_child():
    with DecoderPool(1, pictures=3, command=HOOKED) as pool:
        states = [(tell(pool), pool._idle[0].child) for _ in range(7)]
    pids = [state["pid"] for state, _ in states]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert [state["seen"] for state, _ in states] == [1, 2, 3, 1, 2, 3, 1]
    assert len({child for _, child in states}) == 1
    assert not any(is_running(pid) for pid in pids)


def test_a_decoder_that_has_grown_is_replaced():
    with DecoderPool(1, resident=1_000_000, command=HOOKED) as pool:
        assert tell(pool)["pid"] != tell(pool)["pid"]


def test_what_a_replaced_decoder_left_running_can_answer_for_none_that_comes_after_it():
    with DecoderPool(1, pictures=1, command=UNSANDBOXED) as pool:  # in a sandbox a decoder can't start the process
        left = int(refused(pool, GOOD + b"!linger").detail)
        for _ in range(20):
            assert tell(pool)["seen"] == 1
        gone(left)


def test_a_child_and_its_decoder_end_with_their_parent(hooked):
    decoder = tell(hooked)["pid"]
    child = hooked._idle[0].child
    os.write(child._to, REQUEST.pack(b"JPEG", False, len(GOOD) + 5) + GOOD + b"!hang")
    child._control.close()  # as the kernel does when a parent is gone
    child._process.wait(timeout=20)
    assert not is_running(decoder)


def test_a_decoder_goes_on_without_the_child_that_keeps_it_until_it_is_to_be_replaced():
    with DecoderPool(1, pictures=3, command=HOOKED) as pool:
        decoder = tell(pool)["pid"]
        pool._idle[0].child._process.kill()
        pool._idle[0].child._process.wait()
        assert [tell(pool)["seen"] for _ in range(4)] == [2, 3, 1, 2]
        gone(decoder)


def test_a_decoder_that_hangs_ends_by_itself_when_nobody_is_left(hooked):
    decoder = tell(hooked)["pid"]
    child = hooked._idle[0].child
    child._process.kill()
    os.write(child._to, REQUEST.pack(b"JPEG", False, len(GOOD) + 5) + GOOD + b"!hang")
    gone(decoder)


def test_large_pictures_flow_both_ways():
    noise = Image.frombytes("RGB", (2600, 2600), os.urandom(2600 * 2600 * 3))
    data = encoded(noise, "TIFF")
    assert len(data) > 20_000_000
    with DecoderPool(1) as pool:
        shown = Image.open(io.BytesIO(prepared(pool, data).data), formats=["PNG"])
    assert shown.tobytes() == noise.tobytes()


def test_many_callers_share_few_children_and_each_gets_its_own_answer():
    pictures = [encoded(photo(20 + n, 30), "BMP" if n % 2 else "PNG") for n in range(8)]
    together = threading.Barrier(8)

    def caller(number, pool):
        together.wait()
        return [prepared(pool, pictures[number]).width for _ in range(25)]

    with DecoderPool(2) as pool, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(caller, range(8), [pool] * 8)) == [[20 + n] * 25 for n in range(8)]


def test_callers_are_served_in_the_order_they_came(hooked):
    """The child is held by hand, so that the order of arrival is certain."""
    seat = hooked._take()
    seen = {}
    callers = [threading.Thread(target=lambda n=number: seen.update({n: tell(hooked)["seen"]})) for number in range(5)]
    for number, caller in enumerate(callers):
        caller.start()
        while len(hooked._waiting) <= number:
            threading.Event().wait(0.001)
    hooked._give(seat)
    for caller in callers:
        caller.join()
    assert seen == {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}


def test_the_seconds_of_a_picture_are_its_own_not_those_it_waited_for_a_decoder(hooked):
    assert prepared(hooked, GOOD)
    seat = hooked._take()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(prepared, hooked, GOOD)
        while not hooked._waiting:
            threading.Event().wait(0.001)
        began = time.monotonic()
        threading.Event().wait(0.5)
        held = time.monotonic() - began
        hooked._give(seat)
        assert 0 < waiting.result().seconds < held


def test_a_closed_pool_takes_no_more_pictures_and_leaves_no_child():
    pool = DecoderPool(2, command=HOOKED)
    pid = tell(pool)["pid"]
    pool.close()
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="closed"):
        list(pool([GOOD]))


@pytest.mark.parametrize("command", [("/no/such/program",), (sys.executable, "-c", "raise SystemExit(7)")])
def test_a_decoder_that_does_not_start_is_no_fault_of_the_picture(command):
    with DecoderPool(1, command=command) as pool:
        for _ in range(2):
            with pytest.raises(DecoderNotStarted):
                list(pool([GOOD]))


def test_a_pool_of_no_children_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        DecoderPool(0)
