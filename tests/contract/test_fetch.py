"""What every Fetch promises: the one in memory, and the real one against servers on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.ports import Fetch, TotalTooLarge
from pipeline.types import INPUT_FAULTS, MB, Failure, Fetched, ItemCode
from tests.fakes import loopback_web
from tests.fakes.images import FakeFetch
from tests.fakes.loopback_web import Server, answer
from tests.rows import at_once, eventually

serve, make_fetcher = loopback_web.serve, loopback_web.make_fetcher  # fixtures

LONG = 60.0  # seconds: a call that waits for its time to be over would show


class MemoryWeb:
    """The fake, and the URLs that it knows."""

    def __init__(self) -> None:
        self.fetch = FakeFetch()

    def page(self, name: str, data: bytes, *, beside: int = 0) -> str:
        url = f"http://pictures.test/{name}"
        self.fetch.pages[url] = data
        return url

    def missing(self, name: str) -> str:
        return f"http://pictures.test/{name}"

    def silent(self, name: str) -> str:
        url = f"http://pictures.test/{name}"
        self.fetch.silent.add(url)
        return url

    def held(self) -> int:
        return len(self.fetch.under_way)


@dataclass
class LoopbackWeb:
    """The real one, and a server on loopback that has its pages."""

    fetch: Fetch
    server: Server
    held_now: list[object] = field(default_factory=list)

    def page(self, name: str, data: bytes, *, beside: int = 0) -> str:
        """`beside`: it is answered once so many silent URLs are being asked for."""

        def answered(connection: Any) -> None:
            eventually(lambda: len(self.held_now) >= beside)
            connection.sendall(answer(data))

        self.server.paths[f"/{name}"] = answered
        return self.missing(name)

    def missing(self, name: str) -> str:
        return f"http://pictures.test:{self.server.port}/{name}"

    def silent(self, name: str) -> str:
        def wait_until_given_up(connection: Any) -> None:
            self.held_now.append(connection)
            try:
                connection.recv(1)
            finally:
                self.held_now.remove(connection)

        self.server.paths[f"/{name}"] = wait_until_given_up
        return self.missing(name)

    def held(self) -> int:
        """How many silent URLs are being asked for."""
        return len(self.held_now)


Web = MemoryWeb | LoopbackWeb


@pytest.fixture(params=["memory", "loopback"])
def web(request: pytest.FixtureRequest, serve: Callable[..., Server], make_fetcher: Callable[..., Fetch]) -> Web:
    if request.param == "memory":
        return MemoryWeb()
    return LoopbackWeb(make_fetcher(deadline=LONG), serve({"*": answer(b"", "404 Not Found")}))


def fetched(web: Web, *urls: str, total: int = 100 * MB, timeout: float = LONG) -> list[Fetched | Failure]:
    """What each URL gave, in the order of the URLs."""
    values = list(web.fetch(enumerate(urls), total=total, timeout=timeout))
    return sorted(values, key=lambda value: value.index)


def closable(values: Iterator[Fetched | Failure]) -> Any:
    return closing(values)  # type: ignore[type-var] - generators have close()


def test_each_index_and_url_gives_exactly_one_value_under_its_own_index(web):
    bodies = [bytes([number]) * (number + 1) for number in range(30)]
    urls = [(100 - number, web.page(f"{number}", body)) for number, body in enumerate(bodies)]
    values = list(web.fetch(iter(urls), total=MB, timeout=LONG))
    assert {value.index: value.data for value in values} == {100 - number: body for number, body in enumerate(bodies)}
    assert len(values) == len(bodies)


def test_no_urls_give_no_values(web):
    assert fetched(web) == []


def test_a_url_that_stands_twice_gives_a_value_each_time(web):
    url = web.page("twice", b"same")
    assert fetched(web, url, url) == [Fetched(index=0, data=b"same"), Fetched(index=1, data=b"same")]


def test_an_empty_body_is_a_failure_and_not_an_image(web):
    [value] = fetched(web, web.page("empty", b""))
    assert isinstance(value, Failure)
    assert value.code is ItemCode.IMAGE_EMPTY


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://pictures.test/a", ItemCode.URL_NOT_ALLOWED),
        ("http://me:secret@pictures.test/a", ItemCode.URL_NOT_ALLOWED),
        ("http://127.0.0.2/a", ItemCode.URL_NOT_ALLOWED),
        ("no url", ItemCode.URL_NOT_ALLOWED),
        ("", ItemCode.URL_NOT_ALLOWED),
        (None, ItemCode.FETCH_FAILED),
    ],
)
def test_what_cannot_be_fetched_is_a_failure_with_its_code_and_the_others_still_come(web, url, code):
    good = web.page("good", b"good")
    first, failed, last = fetched(web, good, web.missing("gone") if url is None else url, good)
    assert (first, last) == (Fetched(index=0, data=b"good"), Fetched(index=2, data=b"good"))
    assert isinstance(failed, Failure)
    assert (failed.index, failed.code) == (1, code)
    assert failed.code in INPUT_FAULTS
    assert failed.detail


def test_a_total_that_is_just_reached_is_not_exceeded(web):
    urls = [web.page(f"{number}", bytes(1000)) for number in range(3)]
    assert len(fetched(web, *urls, total=3000)) == 3
    with pytest.raises(TotalTooLarge):
        fetched(web, *urls, total=2999)


def test_what_brings_no_image_takes_nothing_from_the_total(web):
    values = fetched(web, web.missing("gone"), web.page("whole", bytes(1000)), total=1000)
    assert [type(value) for value in values] == [Failure, Fetched]


def test_a_total_that_is_exceeded_ends_the_call_without_waiting_for_the_others_and_lets_go_of_them(web):
    urls = [web.silent("first"), web.silent("second"), web.page("large", bytes(2000), beside=2), web.silent("third")]
    with pytest.raises(TotalTooLarge):
        fetched(web, *urls, total=1999)
    eventually(lambda: web.held() == 0)


def test_each_call_has_a_total_of_its_own(web):
    url = web.page("one", bytes(1000))
    for _ in range(3):
        assert fetched(web, url, total=1000) == [Fetched(index=0, data=bytes(1000))]


def test_what_has_not_come_in_the_time_for_the_whole_call_is_late_and_the_rest_is_there(web):
    urls = [web.silent("first"), web.page("good", b"good"), web.silent("second")]
    first, good, second = fetched(web, *urls, timeout=0.5)
    assert good == Fetched(index=1, data=b"good")
    for late in (first, second):
        assert isinstance(late, Failure)
        assert late.code is ItemCode.FETCH_TIMEOUT
    eventually(lambda: web.held() == 0)


def test_values_are_given_as_they_complete(web):
    urls = [web.silent("never"), web.page("good", b"good", beside=1)]
    with closable(web.fetch(enumerate(urls), total=MB, timeout=LONG)) as values:
        assert next(values) == Fetched(index=1, data=b"good")


def test_an_iterator_that_is_closed_lets_go_of_what_is_under_way_and_gives_no_more(web):
    urls = [web.silent("first"), web.silent("second"), web.page("good", b"good", beside=2)]
    values = web.fetch(enumerate(urls), total=MB, timeout=LONG)
    assert next(values) == Fetched(index=2, data=b"good")
    assert web.held() == 2
    values.close()
    eventually(lambda: web.held() == 0)
    assert list(values) == []
    assert fetched(web, web.page("next", b"next")) == [Fetched(index=0, data=b"next")]


def test_an_iterator_that_was_never_begun_can_be_closed(web):
    web.fetch(enumerate([web.silent("never")]), total=MB, timeout=LONG).close()
    assert web.held() == 0


def test_threads_that_fetch_at_once_get_each_their_own_values(web):
    def own(thread: int) -> list[Fetched | Failure]:
        return fetched(web, *(urls[thread][number] for number in range(20)))

    urls = [[web.page(f"{thread}-{number}", b"%d %d" % (thread, number)) for number in range(20)] for thread in range(4)]
    assert at_once(*(lambda thread=thread: own(thread) for thread in range(4))) == [
        [Fetched(index=number, data=b"%d %d" % (thread, number)) for number in range(20)] for thread in range(4)
    ]
