"""The one thread that fetches for all calls: whom its faults reach, whose turn it is, and what it lets go of."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.fetch.batch import FetchBatch
from pipeline.fetch.loop import Loop
from pipeline.fetch.thread import FetchThread
from pipeline.outbound.addresses import Target
from pipeline.outbound.guard import NameRefused, Names
from pipeline.ports import TotalTooLarge
from pipeline.turns import working_for
from pipeline.types import MB, Fetched
from tests.fakes import loopback_web
from tests.fakes.loopback_web import ALLOW, BODY, answer, one, run

serve, make_fetcher = loopback_web.serve, loopback_web.make_fetcher  # fixtures


def test_a_request_that_cannot_be_made_ends_its_own_call_alone(serve, make_fetcher, monkeypatch):
    server = serve({"/slow": lambda _: server.gone.wait(), "*": answer()})
    fetcher = make_fetcher()
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(run, fetcher, f"http://a.test:{server.port}/1", f"http://a.test:{server.port}/slow", timeout=2.0)
        while server.asked("/slow") < 1:
            time.sleep(0.001)
        monkeypatch.setattr(Loop, "lend", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            one(fetcher, f"http://new.test:{server.port}/")
        with pytest.raises(ZeroDivisionError):
            run(fetcher, *[f"http://a.test:{server.port}/{n}" for n in range(3)])
        monkeypatch.undo()
        assert isinstance(one(fetcher, f"http://new.test:{server.port}/"), Fetched)
        assert isinstance(other.result(timeout=20)[0], Fetched)


def test_a_lookup_for_which_there_is_no_thread_fails_and_is_tried_again_later(serve, make_fetcher, monkeypatch):
    server = serve({"*": answer()})
    names = Names(ALLOW, resolve=lambda *_: ["127.0.0.1"])
    target = Target(url="http://a.test/", host="a.test", port=server.port, literal=False)
    monkeypatch.setattr(threading.Thread, "start", refuse_to_start)
    for _ in range(300):
        with pytest.raises(NameRefused, match="no more threads"):
            names.look_up(target).result(timeout=5)
    monkeypatch.undo()
    monkeypatch.setattr("pipeline.outbound.guard._KEEP_FAILURE_SECONDS", 0.0)
    assert names.look_up(target).result(timeout=20) == ("127.0.0.1",)


def refuse_to_start(_thread):
    raise RuntimeError("no more threads")


def test_what_a_call_has_brought_goes_with_it(serve, make_fetcher):
    server = serve({"*": answer(b"x" * 100_000)})
    fetcher = make_fetcher()
    gc.collect()
    before = sum(isinstance(held, FetchBatch) for held in gc.get_objects())
    for n in range(5):
        urls = [f"http://host{n}.test:{server.port}/{place}" for place in range(3)]
        run(fetcher, *urls)
        results = fetcher(list(enumerate(urls)), total=MB, timeout=3600.0)
        next(results)
        results.close()
        with pytest.raises(TotalTooLarge):
            run(fetcher, *urls, total=1000)
    one(fetcher, f"http://a.test:{server.port}/")
    assert sum(isinstance(held, FetchBatch) for held in gc.get_objects()) <= before + 1, "without a search for cycles"


@pytest.mark.parametrize("other", [("acc_b", "job_2"), ("acc_a", "job_2")], ids=["another account", "another job"])
def test_places_at_a_host_go_to_accounts_and_their_jobs_in_turn(serve, make_fetcher, other):
    both = threading.Event()

    def answer_when_all_are_there(connection):
        while not both.is_set() and len(fetcher._thread._batches) < 4:
            time.sleep(0.001)
        both.set()
        connection.sendall(answer())

    server = serve({"*": answer_when_all_are_there})
    fetcher = make_fetcher(per_host=4, parallel=4)

    def call(name, count, asker):
        with working_for(*asker):
            run(fetcher, *[f"http://a.test:{server.port}/{name}{n}" for n in range(count)])

    with ThreadPoolExecutor(3) as threads:
        large = [threads.submit(call, f"large{n}-", 70, ("acc_a", "job_1")) for n in range(3)]
        while len(server.requests) < 4:
            time.sleep(0.001)
        call("small", 4, other)
        for each in large:
            each.result(timeout=20)
    assert max(place for place, request in enumerate(server.requests) if "/small" in request) < 15


def test_an_account_that_fetches_much_from_a_fast_server_has_its_turn_at_a_slow_one(serve, make_fetcher):
    all_there = threading.Event()

    def slowly(connection):
        all_there.wait(20)
        time.sleep(0.005)
        connection.sendall(answer())

    fast, slow = serve({"*": answer()}), serve({"*": slowly})
    fetcher = make_fetcher(per_host=1, parallel=4)
    over = threading.Event()

    def call(asker, name, port, count):
        with working_for(*asker):
            run(fetcher, *[f"http://{name}.test:{port}/{asker[0]}{n}" for n in range(count)])

    def keep_busy():
        while not over.is_set():
            call(("acc_a", "job_1"), "fast", fast.port, 20)

    with ThreadPoolExecutor(3) as threads:
        busy = threads.submit(keep_busy)
        stranger = threads.submit(call, ("acc_b", "job_3"), "slow", slow.port, 60)
        while not fetcher._thread or len(fetcher._thread._batches) < 2:
            time.sleep(0.001)
        waits = threads.submit(call, ("acc_a", "job_2"), "slow", slow.port, 6)
        while len({each.asker for each in fetcher._thread._batches.copy()}) < 3:
            time.sleep(0.001)
        all_there.set()
        waits.result(timeout=20)
        over.set()
        stranger.result(timeout=20)
        busy.result(timeout=20)
    assert max(place for place, request in enumerate(slow.requests) if "/acc_a" in request) < 20


def test_the_calls_of_a_job_are_served_in_their_order(serve, make_fetcher):
    all_there = threading.Event()

    def answer_when_all_are_there(connection):
        all_there.wait(20)
        connection.sendall(answer())

    server = serve({"*": answer_when_all_are_there})
    fetcher = make_fetcher(per_host=4, parallel=4)

    def call(number):
        with working_for("acc_a", "job_1"):
            return run(fetcher, *[f"http://a.test:{server.port}/{number}-{n}" for n in range(20)])

    with ThreadPoolExecutor(3) as threads:
        calls = []
        for number in range(3):
            calls.append(threads.submit(call, number))
            while not fetcher._thread or len(fetcher._thread._batches) <= number:
                time.sleep(0.001)
        all_there.set()
        for each in calls:
            each.result(timeout=20)
    asked = [int(request.split("/")[1][0]) for request in server.requests]
    assert asked.index(2) > len(asked) - 1 - asked[::-1].index(0), (
        "the first call is asked for as a whole before the third begins"
    )


def test_a_fault_of_the_fetching_thread_reaches_every_caller_and_the_next_call_works(serve, make_fetcher, monkeypatch):
    server = serve({"/slow": lambda _: server.gone.wait(), "*": answer()})
    fetcher = make_fetcher()
    waiting = [fetcher([(0, f"http://a.test:{server.port}/slow")], total=MB, timeout=30.0) for _ in range(3)]
    with ThreadPoolExecutor(4) as threads:
        outcomes = [threads.submit(lambda results=results: list(results)) for results in waiting]
        while server.asked("/slow") < 3:
            time.sleep(0.001)
        monkeypatch.setattr(FetchThread, "_answered", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            one(fetcher, f"http://a.test:{server.port}/now")
        for outcome in outcomes:
            with pytest.raises(ZeroDivisionError):
                outcome.result(timeout=20)
    monkeypatch.undo()
    assert one(fetcher, f"http://a.test:{server.port}/now") == Fetched(index=0, data=BODY)


def test_a_thread_stays_no_longer_than_its_fetcher(serve, make_fetcher):
    server = serve({"*": answer()})
    fetcher = make_fetcher()
    before = {thread for thread in threading.enumerate() if thread.name == "fetch"}
    one(fetcher, f"http://a.test:{server.port}/")
    [mine] = {thread for thread in threading.enumerate() if thread.name == "fetch"} - before
    fetcher.close()
    mine.join(timeout=20)
    assert not mine.is_alive()
