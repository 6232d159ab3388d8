"""Answers whose Content-Encoding says that the body is packed: pipeline/fetch/unpacking.py judges them by their bytes."""

from __future__ import annotations

import gzip

import pytest

from pipeline.ports import TotalTooLarge
from pipeline.types import MB, Fetched, ItemCode
from tests.fakes import loopback_web
from tests.fakes.loopback_web import BODY, answer, is_failure, one

serve, make_fetcher = loopback_web.serve, loopback_web.make_fetcher  # fixtures

JPEG = b"\xff\xd8\xff\xe0" + BODY


@pytest.mark.parametrize(
    "encoding", ["aws-chunked", "utf-8", "none", "binary", "Identity", "gzip", "br", "gzip, aws-chunked", ""]
)
def test_an_image_that_is_labelled_as_encoded_and_is_not_is_taken_as_it_is(serve, make_fetcher, encoding):
    server = serve({"/": answer(JPEG, "200 OK", f"Content-Encoding: {encoding}")})
    assert one(make_fetcher(), f"http://a.test:{server.port}/") == Fetched(index=0, data=JPEG)


@pytest.mark.parametrize("encoding", ["gzip", "X-GZIP", "identity, gzip", "aws-chunked, gzip", "aws-chunked"])
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_body_of_gzip_is_unpacked(serve, make_fetcher, encoding, pieces):
    packed = gzip.compress(JPEG[:1000]) + gzip.compress(JPEG[1000:])
    size = len(packed) // pieces + 1
    chunks = [packed[first : first + size] for first in range(0, len(packed), size)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: {encoding}\r\n\r\n".encode()
    server = serve({"/": head + body})
    assert one(make_fetcher(), f"http://a.test:{server.port}/") == Fetched(index=0, data=JPEG)


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "compress", "deflate, br", "identity, br"])
def test_a_body_that_is_packed_otherwise_is_refused(serve, make_fetcher, encoding):
    server = serve({"/": answer(bytes(range(40, 140)), "200 OK", f"Content-Encoding: {encoding}")})
    assert is_failure(one(make_fetcher(), f"http://a.test:{server.port}/"), ItemCode.FETCH_FAILED, "Content-Encoding")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (gzip.compress(JPEG)[:-20], "ends too soon"),
        (gzip.compress(JPEG)[:15], "ends too soon"),
        (gzip.compress(JPEG)[:12] + b"\xff" * 200, "damaged"),
    ],
    ids=["cut", "cut early", "damaged"],
)
def test_gzip_that_is_cut_or_damaged_is_refused(serve, make_fetcher, body, word):
    server = serve({"/": answer(body, "200 OK", "Content-Encoding: gzip")})
    assert is_failure(one(make_fetcher(), f"http://a.test:{server.port}/"), ItemCode.FETCH_FAILED, word)


def test_gzip_counts_by_what_is_in_it(serve, make_fetcher):
    server = serve({"/": answer(gzip.compress(bytes(MB)), "200 OK", "Content-Encoding: gzip")})
    url = f"http://a.test:{server.port}/"
    assert one(make_fetcher(max_bytes=MB), url, total=MB) == Fetched(index=0, data=bytes(MB))
    assert is_failure(one(make_fetcher(max_bytes=MB - 1), url), ItemCode.IMAGE_TOO_LARGE)
    with pytest.raises(TotalTooLarge):
        one(make_fetcher(), url, total=MB - 1)


def test_a_compressed_transfer_is_refused(serve, make_fetcher):
    body = gzip.compress(b"\0" * MB)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    server = serve({"/": head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)})
    assert is_failure(one(make_fetcher(), f"http://a.test:{server.port}/"), ItemCode.FETCH_FAILED)
