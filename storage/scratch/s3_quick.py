"""Puts and gets of whole objects with few steps of boto3's.

For each request boto3 checks parameters, resolves the endpoint by rules, calls its hooks, and parses the answer by its model of S3. That
takes more of a small request's time than signing and sending. Here an object's URL is put together from the endpoint, which only
a server with its own S3_ENDPOINT_URL allows. botocore's signer and its session of HTTP do the rest, with the client's credentials, clock,
certificates, proxies and connections.

Only success and a missing object are handled here. After every other answer, the caller asks again with boto3. boto3 repeats requests and
knows all errors.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import IO, Any
from urllib.parse import quote, urlsplit

import structlog

from pipeline.types import MB

log = structlog.get_logger(__name__)

USER_AGENT = "extract-image"
PIECE = 1 * MB  #: bytes read at a time
#: SeaweedFS tries whether an object of an unknown type gets smaller when it is compressed, which takes time and is in vain for images.
CONTENT_TYPE = "image/x-pack"
MOST_MISSES = 3  #: after so many requests in a row that only boto3 could make, a pause follows
PAUSE_SECONDS = 600.0
_SMALL = 64_000  #: bytes; an answer without the object is read up to this size, so that its connection can be kept
_PLAIN_PATH = re.compile(r"(/+[A-Za-z0-9_-][A-Za-z0-9._~-]*)*/*")


def quick_requests(client: Any, *, bucket: str) -> QuickRequests | None:
    """Quick requests with the parts of a boto3 client. None if its endpoint has rules of its own, or the client other parts."""
    endpoint = urlsplit(client.meta.endpoint_url)
    amazon = (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    if amazon or endpoint.query or not _PLAIN_PATH.fullmatch(endpoint.path):
        return None
    try:
        return QuickRequests(client, bucket=bucket)
    except AttributeError:
        log.warning("no_quick_requests", of="S3", exc_info=True)
        return None


class QuickRequests:
    """Thread-safe. `put` and `get` return False if boto3 is to be asked; `missed` tells that boto3 then succeeded."""

    def __init__(self, client: Any, *, bucket: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that never go back."""
        self._objects = f"{client.meta.endpoint_url.rstrip('/')}/{quote(bucket)}/"
        self._events = client.meta.events
        self._signer = client._request_signer  # noqa: SLF001 - tests notice if a new botocore has it elsewhere
        self._session = client._endpoint.http_session  # noqa: SLF001
        self._clock = clock
        self._lock = threading.Lock()
        self._misses = 0
        self._pause_until = float("-inf")

    def put(self, name: str, data: bytes) -> bool:
        """Stores the object. Returns whether S3 has said that it did."""
        answer = self._send("PUT", name, data)
        if answer is None or answer.status_code != 200 or answer.content:  # a web server sends a page
            return False
        self._succeeded("PutObject", answer)
        return True

    def get(self, name: str, into: IO[bytes]) -> bool:
        """Writes the object to `into`. Returns whether it did; if not, nothing was written.

        Raises FileNotFoundError if there is no such object, and an error of botocore or urllib3 if the answer breaks off.
        """
        from botocore.response import StreamingBody

        answer = self._send("GET", name)
        if answer is None:
            return False
        length = answer.headers.get("content-length")
        with closing(StreamingBody(answer.raw, length)) as body:  # it checks the length
            if answer.status_code == 200:
                shutil.copyfileobj(body, into, PIECE)
            elif not (length or "").isdigit() or int(length) > _SMALL:
                return False
            elif answer.status_code == 404 and b"<Code>NoSuchKey</Code>" in body.read():
                raise FileNotFoundError(name)
            else:
                body.read()
                return False
        self._succeeded("GetObject", answer)
        return True

    def missed(self) -> None:
        """boto3 has succeeded in what could not be done here. A server at which this happens again and again has ways of its own."""
        with self._lock:
            now = self._clock()
            self._misses += now >= self._pause_until  # in a pause nothing is tried
            if self._misses < MOST_MISSES:
                return
            self._misses = 0
            self._pause_until = now + PAUSE_SECONDS
        log.info("quick_requests_paused", of="S3", seconds=PAUSE_SECONDS)

    def _send(self, method: str, name: str, data: bytes | None = None) -> Any:
        """The answer of S3, None if there is none."""
        if self._clock() < self._pause_until:
            return None
        from botocore import exceptions as of
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(
            method=method,
            url=self._objects + quote(name, safe="/~"),
            headers={"User-Agent": USER_AGENT, **({} if data is None else {"Content-Type": CONTENT_TYPE})},
            data=data,
            stream_output=data is None,
        )
        self._signer.sign("GetObject" if data is None else "PutObject", request)
        try:
            return self._session.send(request.prepare())
        except (of.ConnectionError, of.HTTPClientError):
            return None

    def _succeeded(self, operation: str, answer: Any) -> None:
        """Tells boto3, because each success gives its client some of its retries back. Without, they would be used up one day."""
        if self._misses:
            with self._lock:
                self._misses = 0
        with suppress(Exception):  # of a listener that wants to know more, as Amazon's own monitoring does
            self._events.emit(f"after-call.s3.{operation}", http_response=answer, parsed={}, model=None, context={})
