"""Puts and gets of whole objects with obstore, which takes a third of boto3's CPU time and works while other threads run Python.

For each request boto3 checks parameters, resolves the endpoint by rules, calls its hooks, signs in Python, and parses the answer by its model of
S3. obstore does it in Rust. Only success and a missing object are handled here. After every other answer, the caller asks again with boto3.
boto3 repeats requests and knows all errors, the other clocks of servers, and certificates that only it was told of.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from types import SimpleNamespace
from typing import IO, Any
from urllib.parse import urlsplit

import structlog

from pipeline.types import MB

log = structlog.get_logger(__name__)

USER_AGENT = "extract-image"
PIECE = 1 * MB  #: bytes read at a time
#: SeaweedFS tries whether an object of an unknown type gets smaller when it is compressed, which takes time and is in vain for images.
CONTENT_TYPE = "image/x-pack"
MOST_MISSES = 3  #: after so many requests in a row that only boto3 could make, a pause follows
PAUSE_SECONDS = 600.0
KEY_SECONDS = 60.0  #: how long a key is used before boto3 is asked for it again; boto3 renews keys that end 10 minutes before
_ENDS_EARLY = 300.0  #: seconds before its end in which obstore does not use a key any more
_NO_REGION = "us-east-1"  #: what boto3 signs with if no region is set
_PLAIN_PATH = re.compile(r"(/+[A-Za-z0-9_-][A-Za-z0-9._~-]*)*/*")


def quick_requests(client: Any, *, bucket: str, clock: Callable[[], float] = time.monotonic) -> QuickRequests | None:
    """Quick requests to the endpoint of a boto3 client, with its keys. `clock`: seconds that never go back.

    None if the endpoint has rules of its own, or the client no keys or other parts.
    """
    endpoint = urlsplit(client.meta.endpoint_url)
    amazon = (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    if amazon or endpoint.query or not _PLAIN_PATH.fullmatch(endpoint.path):
        return None
    try:
        keys = client._request_signer._credentials  # noqa: SLF001 - tests notice if a new botocore has it elsewhere
    except AttributeError:
        log.warning("no_quick_requests", of="S3", exc_info=True)
        return None
    return QuickRequests(partial(_store, client, keys, bucket), client.meta.events, clock) if keys else None


class QuickRequests:
    """Thread-safe. `put` and `get` return False if boto3 is to be asked; `missed` tells that boto3 then succeeded.

    obstore has threads of its own, which a forked process lacks. So a process that forks must not have used it before.
    """

    def __init__(self, connect: Callable[[], Any], events: Any, clock: Callable[[], float]) -> None:
        """`connect`: makes obstore's store of the bucket, which takes 10 MB. `events`: of the boto3 client."""
        self._connect = connect
        self._events = events
        self._clock = clock
        self._lock = threading.Lock()
        self._misses = 0
        self._pause_until = float("-inf")

    @cached_property
    def _store(self) -> Any:
        return self._connect()

    def put(self, name: str, data: bytes) -> bool:
        """Stores the object. Returns whether S3 has said that it did. obstore asks for an ETag, which the page of a web server lacks."""
        sent = {"attributes": {"Content-Type": CONTENT_TYPE}, "use_multipart": False}
        return self._failure("PutObject", lambda: self._store.put(name, data, **sent)) is None

    def get(self, name: str, into: IO[bytes]) -> bool:
        """Writes the object to `into`, which is empty. Returns whether it did; if not, nothing was written.

        Raises FileNotFoundError if there is no such object.
        """

        def get() -> None:
            answer = self._store.get(name)
            if answer.meta["e_tag"] is None:
                raise ValueError("no S3 has sent this")
            for piece in answer.stream(min_chunk_size=PIECE):
                into.write(piece)

        failure = self._failure("GetObject", get)
        if failure:
            into.seek(0)
            into.truncate()
        if isinstance(failure, FileNotFoundError) and "<Code>NoSuchKey</Code>" in str(failure):
            # No other 404 says so: a proxy may send one while the server is down.
            raise FileNotFoundError(name)
        return failure is None

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

    def _failure(self, operation: str, request: Callable[[], object]) -> Exception | None:
        """Makes the request, except in a pause. Returns what went wrong."""
        from obstore.exceptions import BaseError

        if self._clock() < self._pause_until:
            return BaseError("nothing is tried now")
        try:
            request()
        except (BaseError, FileNotFoundError, ValueError) as error:  # ValueError: also a name that obstore can't ask for
            return error
        if self._misses:
            with self._lock:
                self._misses = 0
        with suppress(Exception):  # of a listener that wants to know more, as Amazon's own monitoring does
            # Each success gives boto3's client some of its retries back. Without, they would be used up one day.
            self._events.emit(f"after-call.s3.{operation}", http_response=_SUCCESS, parsed={}, model=None, context={})
        return None


_SUCCESS = SimpleNamespace(status_code=200)


def _store(client: Any, keys: Any, bucket: str) -> Any:
    """The bucket, with the endpoint and region of the boto3 client and with its keys.

    obstore also reads AWS_ variables that are not ours. What is given here goes before them.
    """
    from obstore.store import S3Store

    endpoint, region = client.meta.endpoint_url, client.meta.region_name
    return S3Store(
        bucket,
        endpoint=endpoint,
        aws_endpoint_url_s3=endpoint,
        region=_NO_REGION if region in {None, "aws-global"} else region,
        credential_provider=partial(_current, keys),
        virtual_hosted_style_request=False,
        skip_signature=False,
        unsigned_payload=False,
        request_payer=False,
        client_options={
            "allow_http": True,
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=60),
            "timeout": timedelta(hours=1),  # of a whole object; a server that is silent meets the one before
            "user_agent": USER_AGENT,
        },
        retry_config={"max_retries": 0},
    )


def _current(keys: Any) -> Any:
    """What the client signs with now. obstore asks again after KEY_SECONDS."""
    now = keys.get_frozen_credentials()
    expires = datetime.now(UTC) + timedelta(seconds=KEY_SECONDS + _ENDS_EARLY)
    return {"access_key_id": now.access_key, "secret_access_key": now.secret_key, "token": now.token, "expires_at": expires}
