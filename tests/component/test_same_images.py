"""Images of a request that are the same: the work is done once, and each has a record of its own."""

from __future__ import annotations

import errno
import io
import json
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.decode.once import SharedDecodes
from pipeline.decode.pool import DecoderPool
from pipeline.fetch.once import SharedFetches
from pipeline.packed import PackReader
from pipeline.stage import stage, staged_in
from pipeline.types import MB, Failure, Fetched, ItemCode, Prepared, Refused
from tests.fakes.images import FakeFetch, fake_decode
from tests.fakes.picture_files import encoded
from tests.harness import b64


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as executor:
        yield executor


def fresh():
    """A process that has decoded nothing yet."""
    return {"shared": SharedDecodes(), "job": "job"}


class Counting:
    """fake_decode, and what it was given."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def __call__(self, pictures: Sequence[bytes]) -> Generator[Prepared | Refused]:
        self.seen += pictures
        yield from fake_decode(pictures)


def staged(bodies: list[bytes], decode, executor):
    out = io.BytesIO()
    chunk = stage(
        (Fetched(index=n, data=data) for n, data in enumerate(bodies)), decode=decode, out=out, executor=executor, **fresh()
    )
    return chunk, PackReader(out)


@given(bodies=st.lists(st.sampled_from([b"img a", b"img b", b"img c", b"no picture", b""]), max_size=30))
def test_same_bytes_are_decoded_and_stored_once_and_each_image_has_its_own_record(bodies):
    decode = Counting()
    with ThreadPoolExecutor(4) as executor:
        chunk, pack = staged(bodies, decode, executor)
    assert sorted(decode.seen) == sorted(set(bodies) - {b""})
    assert chunk.stored == sum(len(body) for body in set(bodies) if body.startswith(b"img"))
    assert {image.index: pack.read(image.index) for image in chunk.staged} == {
        n: body for n, body in enumerate(bodies) if body.startswith(b"img")
    }
    assert staged_in(pack) == chunk.staged
    assert [failure.index for failure in chunk.failures] == [n for n, body in enumerate(bodies) if not body.startswith(b"img")]
    assert chunk.received == {n: len(body) for n, body in enumerate(bodies)}


def test_an_image_that_is_being_decoded_is_not_decoded_again_meanwhile(threads):
    started, go_on, calls = threading.Event(), threading.Event(), []

    def slowly(pictures: Sequence[bytes]) -> Generator[Prepared | Refused]:
        for data in pictures:
            calls.append(data)
            started.set()
            assert go_on.wait(20)
            yield from fake_decode([data])

    def received():
        yield Fetched(index=0, data=b"img")
        assert started.wait(20)
        for index in range(1, 20):
            yield Fetched(index=index, data=b"img")
        go_on.set()

    chunk = stage(received(), decode=slowly, out=io.BytesIO(), executor=threads, **fresh())
    assert [image.index for image in chunk.staged] == list(range(20))
    assert len(calls) == 1


def test_a_decoder_that_does_not_start_fails_the_step_and_not_the_images(threads):
    def broken(_data: bytes) -> Prepared | Refused:
        raise RuntimeError("no decoder")

    with pytest.raises(RuntimeError, match="no decoder"):
        staged([b"img"] * 5, broken, threads)


def test_the_same_url_is_fetched_once_and_fails_once_for_each():
    fetch = FakeFetch()
    fetch.pages["https://a.example/"] = b"img"
    urls = {4: "https://a.example/", 5: "https://none.example/", 6: "https://a.example/", 7: "https://none.example/"}
    got = SharedFetches().fetch_once(fetch, urls, scope="job", elsewhere=(), total=1000, timeout=1.0)
    values = {value.index: value for value in got}
    assert fetch.fetched == ["https://a.example/", "https://none.example/"]
    assert (values[4], values[6]) == (Fetched(index=4, data=b"img"), Fetched(index=6, data=b"img"))
    assert [isinstance(values[n], Failure) and values[n].code for n in (5, 7)] == [ItemCode.FETCH_FAILED] * 2


A, B = "https://a.example/", "https://b.example/"


def fetch_chunk(shared: SharedFetches, fetch, first: int, urls: list[str], scope: str = "job", timeout: float = 20.0):
    numbered = dict(enumerate(urls, start=first))
    return list(shared.fetch_once(fetch, numbered, scope=scope, elsewhere={A, B}, total=10**9, timeout=timeout))


def test_chunks_that_are_staged_at_once_fetch_a_common_url_once():
    shared, fetch = SharedFetches(), FakeFetch()
    fetch.pages = {A: b"img a", **{f"https://p.example/{n}": b"img" for n in range(40)}}

    def chunk(number: int):
        return fetch_chunk(shared, fetch, 10 * number, [f"https://p.example/{number}", A, B, A])

    with ThreadPoolExecutor(8) as executor:
        for number, values in enumerate(executor.map(chunk, range(40))):
            found = {value.index - 10 * number: value for value in values}
            assert sorted(found) == [0, 1, 2, 3]
            assert found[1].data == found[3].data == b"img a"
            assert found[2].code is ItemCode.FETCH_FAILED
    assert (fetch.fetched.count(A), fetch.fetched.count(B)) == (1, 1)


def test_another_round_of_a_job_fetches_anew():
    shared, fetch = SharedFetches(), FakeFetch()
    for scope in ("job, round 1", "job, round 2", "other job"):
        fetch_chunk(shared, fetch, 0, [A], scope)
    assert fetch.fetched == [A] * 3


def test_a_chunk_that_gives_up_leaves_its_urls_to_those_that_wait_for_them():
    shared, fetch = SharedFetches(), FakeFetch()
    fetch.pages[A] = b"img a"
    begun, give_up = threading.Event(), threading.Event()

    def never_done(urls, *, total, timeout):
        begun.set()
        assert give_up.wait(20)
        raise RuntimeError("the step has ended")
        yield

    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(fetch_chunk, shared, never_done, 0, [A])
        assert begun.wait(20)
        second = executor.submit(fetch_chunk, shared, fetch, 10, [A])
        give_up.set()
        assert second.result(20) == [Fetched(index=10, data=b"img a")]
        assert isinstance(first.exception(20), RuntimeError)


def test_a_chunk_whose_time_is_over_waits_for_no_other():
    shared, fetch = SharedFetches(), FakeFetch()
    fetch.pages[A] = b"img a"
    begun, end = threading.Event(), threading.Event()

    def slow(urls, *, total, timeout):
        begun.set()
        assert end.wait(20)
        yield from fetch(urls, total=total, timeout=timeout)

    with ThreadPoolExecutor(1) as executor:
        first = executor.submit(fetch_chunk, shared, slow, 0, [A])
        assert begun.wait(20)
        assert fetch_chunk(shared, fetch, 10, [A], timeout=0.05) == [Fetched(index=10, data=b"img a")]
        end.set()
        assert first.result(20) == [Fetched(index=0, data=b"img a")]


def test_what_is_kept_for_others_has_a_limit():
    shared, fetch = SharedFetches(), FakeFetch()
    urls = [f"https://p.example/{n}" for n in range(10)]
    fetch.pages = {url: b"img" + bytes(5_000_000) for url in urls}
    for first in (0, 10):
        numbered = dict(enumerate(urls, start=first))
        assert len(list(shared.fetch_once(fetch, numbered, scope="job", elsewhere=urls, total=10**9, timeout=1.0))) == 10
    assert len(fetch.fetched) == 14, "six of five megabytes each were still there"
    assert shared._kept <= 32 * 1024 * 1024


def test_a_url_that_stands_in_every_chunk_of_a_job_is_fetched_once(make_harness):
    harness = make_harness(workers_count=4, MERGED_PER_CALL="2")
    images = [harness.page("https://p.example/logo", b"img logo"), *harness.urls(4), "https://p.example/logo"]
    answer = harness.post({"inputMethod": "url", "images": images * 3, "prompt": "p"})
    assert answer.json["imageCount"] == 18
    assert sorted(set(harness.fetch.fetched)) == sorted(harness.fetch.fetched)


@pytest.mark.parametrize("method", ["url", "base64"])
def test_each_of_the_same_images_has_its_answer_and_is_paid_for(harness, method):
    images = [harness.page("https://p.example/", b"img same")] * 3 if method == "url" else [b64(b"img same")] * 3
    answer = harness.post({"inputMethod": method, "images": images, "prompt": "p", "granularity": "perImage"})
    assert [record["index"] for record in json.loads(answer.json["results"])] == [0, 1, 2]
    assert answer.json["creditUsage"] == 13
    assert harness.fetch.fetched == (["https://p.example/"] if method == "url" else [])


def test_images_that_are_the_same_count_each_towards_the_size_of_all(make_harness):
    harness = make_harness(workers_count=2)
    big = b"img" + bytes(20 * 1024 * 1024 - 3)
    harness.page("https://p.example/", big)
    answer = harness.post({"inputMethod": "url", "images": ["https://p.example/"] * 6, "prompt": "p"})
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "total_too_large")


class Full(io.BytesIO):
    """A disk with no room."""

    def write(self, _body) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_fails_the_chunk_and_keeps_no_decoder(threads):
    pictures = [encoded(Image.new("RGB", (n + 1, 9)), "PNG") for n in range(60)]
    with DecoderPool(2) as pool:
        received = (Fetched(index=n, data=data) for n, data in enumerate(pictures))
        with pytest.raises(OSError, match="No space left") as full:
            stage(received, decode=pool, out=Full(), executor=threads, **fresh())
        assert [outcome.width for outcome in pool(pictures)] == [n + 1 for n in range(60)]
        del full


def test_who_brings_images_waits_while_many_wait_to_be_decoded_and_all_are(threads):
    brought, decoded, most = [], [], []

    def decode(pictures: Sequence[bytes]) -> Generator[Prepared | Refused]:
        for data in pictures:
            most.append(len(brought) - len(decoded))
            decoded.append(data)
            yield Prepared(data=b"", mime="image/png", width=1, height=1, source_format="PNG")

    def received():
        for index in range(40):
            brought.append(index)
            yield Fetched(index=index, data=bytes([index]) * 5 * MB)

    chunk = stage(received(), decode=decode, out=io.BytesIO(), executor=threads, **fresh())
    assert len(chunk.staged) == len(decoded) == 40
    assert max(most) <= 14, "32 MB that wait, and one in each of the four threads"


def test_who_brings_images_is_told_when_no_thread_will_decode_them():
    held = threading.Event()
    executor = ThreadPoolExecutor(1)
    executor.submit(held.wait)

    def received():
        yield Fetched(index=0, data=b"img" * 20 * MB)
        executor.shutdown(wait=False, cancel_futures=True)
        yield Fetched(index=1, data=b"img")

    with pytest.raises((CancelledError, RuntimeError)):
        stage(received(), decode=fake_decode, out=io.BytesIO(), executor=executor, **fresh())
    held.set()


@given(chunks=st.lists(st.lists(st.sampled_from([b"img a", b"img b", b"no picture", b"bmp c"]), max_size=6), max_size=6))
def test_what_a_chunk_has_decoded_is_not_decoded_again_for_the_job_s_others(chunks):
    decode = Counting()
    shared = SharedDecodes()

    def converting(pictures: Sequence[bytes]) -> Generator[Prepared | Refused]:
        for data, outcome in zip(pictures, decode([data.replace(b"bmp", b"img") for data in pictures]), strict=True):
            yield replace(outcome, data=b"png of " + data) if data.startswith(b"bmp") else outcome

    with ThreadPoolExecutor(4) as executor:
        for number, bodies in enumerate(chunks):
            out = io.BytesIO()
            received = (Fetched(index=n, data=data) for n, data in enumerate(bodies))
            chunk = stage(received, decode=converting, out=out, executor=executor, shared=shared, job="job")
            pack = PackReader(out)
            for image in chunk.staged:
                body = bodies[image.index]
                assert pack.read(image.index) == (b"png of " + body if body.startswith(b"bmp") else body), number
            assert [failure.index for failure in chunk.failures] == [n for n, body in enumerate(bodies) if body == b"no picture"]
        refused = sum(b"no picture" in bodies for bodies in chunks)  # tried again in each chunk
        taken = len({body for bodies in chunks for body in bodies} - {b"no picture"})
        assert len(decode.seen) == taken + refused
        other = [body for bodies in chunks for body in bodies]
        received = (Fetched(index=n, data=data) for n, data in enumerate(other))
        stage(received, decode=converting, out=io.BytesIO(), executor=executor, shared=shared, job="another job")
        assert len(decode.seen) == 2 * taken + refused + (b"no picture" in other)


def test_what_was_decoded_long_ago_is_forgotten_before_it_fills_the_memory():
    shared = SharedDecodes()
    png = Prepared(data=b"x" * MB, mime="image/png", width=1, height=1, source_format="BMP")
    for number in range(40):
        shared.keep("job", str(number), b"bmp", png)
    assert shared.find("job", "39", b"bmp") == png
    assert sum(shared.find("job", str(number), b"bmp") is not None for number in range(40)) == 16
    native = replace(png, data=b"jpeg")
    for number in range(20_000):
        shared.keep("job", f"n{number}", native.data, native)
    assert shared.find("job", "n19999", b"jpeg") == native
    assert shared.find("job", "n1", b"jpeg") is None


def test_what_urls_a_job_repeats_is_read_once_and_no_url_is_kept():
    shared = SharedFetches()
    reads = []

    def read(job: int) -> list[str]:
        reads.append(job)
        return [f"https://p.example/{job}", "https://p.example/all"]

    for _ in range(3):
        for job in range(50):
            repeated = shared.repeated(job, partial(read, job))
            assert f"https://p.example/{job}" in repeated
            assert f"https://p.example/{job + 1}" not in repeated
    assert reads == list(range(50))
    for job in range(1000):
        shared.repeated(job, partial(read, job))
    assert len(shared._repeated) <= 100
    assert not any(isinstance(kept, str) for known in shared._repeated.values() for kept in known._hashes)


def test_what_a_job_repeats_is_known_while_another_s_is_being_read():
    shared = SharedFetches()
    shared.repeated("known", lambda: ["https://p.example/a"])
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> list[str]:
        begun.set()
        go_on.wait()
        return []

    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(shared.repeated, "other", slow)
        begun.wait()
        assert "https://p.example/a" in shared.repeated("known", list)
        go_on.set()
        other.result()


def test_a_read_that_fails_is_tried_again():
    shared = SharedFetches()

    def fail() -> list[str]:
        raise OSError

    with pytest.raises(OSError):
        shared.repeated("job", fail)
    assert "a" in shared.repeated("job", lambda: ["a"])
