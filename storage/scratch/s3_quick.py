"""Puts and gets of whole objects with libcurl, which takes a third of boto3's CPU time and works while other threads run Python.

For each request boto3 checks parameters, resolves the endpoint by rules, calls its hooks, signs in Python, and parses the answer by its model of
S3. Here an object's URL is put together from the endpoint, which only a server with its own S3_ENDPOINT_URL allows. libcurl signs and sends,
with the keys, clock and certificates of the boto3 client.

Only success and a missing object are handled here. After every other answer, the caller asks again with boto3. boto3 repeats requests and
knows all errors.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import IO, Any
from urllib.parse import quote, urlsplit

import pycurl
import structlog

from pipeline.types import MB
from storage.scratch.s3_clock import now_of

log = structlog.get_logger(__name__)

USER_AGENT = "extract-image"
PIECE = 1 * MB  #: bytes read at a time
#: SeaweedFS tries whether an object of an unknown type gets smaller when it is compressed, which takes time and is in vain for images.
CONTENT_TYPE = "image/x-pack"
MOST_MISSES = 3  #: after so many puts or gets in a row that only boto3 could make, a pause follows
PAUSE_SECONDS = 600.0
CONNECT_SECONDS, SILENT_SECONDS = 5, 60  #: boto3's, see storage/scratch/s3.py
_IDLE = 64  #: handles that are kept, each with its connection
_IDLE_TLS = 16  #: the same with TLS: each of these has read all certificates, which takes 0.6 MB
_BUFFER = 128_000  #: bytes of one read
_SMALL = 64_000  #: bytes; an error's body is read up to this size, so that its connection can be kept
_NO_REGION = "us-east-1"  #: what boto3 signs with if no region is set
_PLAIN_PATH = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._~-]*)*/*")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9._~-]+")  # libcurl writes other characters in percent form, which boto3 does not
_PLAIN_TOKEN = re.compile(r"[!-~]*")
_STATUS = re.compile(rb"HTTP/[0-9.]+ ([0-9]{3})")
_SUCCESS = SimpleNamespace(status_code=200)


def quick_requests(client: Any, *, bucket: str, clock: Callable[[], float] = time.monotonic) -> QuickRequests | None:
    """Quick requests to the endpoint of a boto3 client. `clock`: seconds that never go back.

    None if the endpoint has rules of its own, if a proxy is in between, or if the client has no keys or other parts.
    """
    from botocore.httpsession import get_cert_path
    from botocore.utils import get_environ_proxies

    url = client.meta.endpoint_url
    endpoint = urlsplit(url)
    amazon = (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    if amazon or endpoint.query or endpoint.fragment or "@" in endpoint.netloc or not _PLAIN_PATH.fullmatch(endpoint.path):
        return None
    if endpoint.scheme in get_environ_proxies(url):
        return None
    try:
        keys = client._request_signer._credentials  # noqa: SLF001 - tests notice if a new botocore has it elsewhere
        certificates = get_cert_path(client._endpoint.http_session._verify)  # noqa: SLF001
    except AttributeError:
        log.warning("no_quick_requests", of="S3", exc_info=True)
        return None
    if not (keys and certificates):
        return None
    region = client.meta.region_name
    return QuickRequests(
        objects=f"{url.rstrip('/')}/{quote(bucket)}/",
        signature=f"aws:amz:{_NO_REGION if region in {None, 'aws-global'} else region}:s3",
        keys=keys.get_frozen_credentials,
        date=lambda: f"{now_of(client):%Y%m%dT%H%M%SZ}",
        certificates=str(certificates),
        events=client.meta.events,
        clock=clock,
    )


@dataclass(kw_only=True)
class QuickRequests:
    """Thread-safe. Unless `put` and `get` return True, boto3 is to be asked. `put_missed` and `get_missed` tell that it then succeeded."""

    objects: str  #: the URL of the bucket, with a slash at its end
    signature: str  #: libcurl's name of the signature, with the region
    keys: Callable[[], Any]  #: gives botocore's frozen credentials
    date: Callable[[], str]  #: the time of a request, as S3 writes it
    certificates: str  #: path of the file with the certificates that are trusted
    events: Any  #: of the boto3 client
    clock: Callable[[], float]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _idle: list[pycurl.Curl] = field(default_factory=list)
    _misses: Counter[str] = field(default_factory=Counter)
    _pause_until: float = float("-inf")
    _reason: str = ""

    def put(self, name: str, data: bytes) -> bool | None:
        """Stores the object. Returns whether S3 has said that it did, and None if nothing was tried."""
        answer = _Answer()
        if not self._ask("PUT", name, answer, data):
            return None
        if answer.status != 200 or answer.text:  # a web server sends a page
            self._reason = answer.failure or f"status {answer.status}"
            return False
        self._succeeded("PUT", "PutObject")
        return True

    def get(self, name: str, into: IO[bytes]) -> bool | None:
        """Writes the object to `into`, which is empty. Returns whether it did, and None if nothing was tried.

        If not, `into` is empty again. Raises FileNotFoundError if there is no such object, and the error of `into` if it can't be written.
        """
        answer = _Answer(into)
        if not self._ask("GET", name, answer):
            return None
        if answer.status == 200:
            self._succeeded("GET", "GetObject")
            return True
        into.seek(0)
        into.truncate()
        if answer.error:
            raise answer.error
        if (
            answer.status == 404 and b"<Code>NoSuchKey</Code>" in answer.text
        ):  # no other 404: a proxy may send it while the server is down
            self._succeeded("GET", "GetObject")
            raise FileNotFoundError(name)
        self._reason = answer.failure or f"status {answer.status}"
        return False

    def put_missed(self) -> None:
        """boto3 has put what could not be put here. A server at which this happens again and again has ways of its own."""
        self._missed("PUT")

    def get_missed(self) -> None:
        """As `put_missed`, for a get."""
        self._missed("GET")

    def _missed(self, method: str) -> None:
        with self._lock:
            self._misses[method] += 1
            if self._misses[method] < MOST_MISSES:
                return
            self._misses.clear()
            self._pause_until = self.clock() + PAUSE_SECONDS
        log.info("quick_requests_paused", of="S3", seconds=PAUSE_SECONDS, reason=self._reason)

    def _ask(self, method: str, name: str, answer: _Answer, data: bytes | None = None) -> bool:
        """Makes the request, and returns whether it was made. Without a whole answer, the answer's status is 0."""
        if self.clock() < self._pause_until or not {".", ".."}.isdisjoint(name.split("/")):  # libcurl would follow the dots
            return False
        keys = self.keys()
        if not (_PLAIN_KEY.fullmatch(keys.access_key) and _PLAIN_TOKEN.fullmatch(keys.token or "")):
            return False
        headers = [
            f"X-Amz-Date: {self.date()}",
            f"x-amz-content-sha256: {hashlib.sha256(data or b'').hexdigest()}",
            *([f"x-amz-security-token: {keys.token}"] if keys.token else ()),
            *((f"Content-Type: {CONTENT_TYPE}", "Expect:") if data is not None else ()),
        ]
        with self._handle() as curl:
            try:
                self._set_up(curl)
                curl.setopt(pycurl.URL, self.objects + quote(name, safe="/~"))
                curl.setopt(pycurl.CUSTOMREQUEST, method)
                curl.setopt(pycurl.AWS_SIGV4, self.signature)
                curl.setopt(pycurl.USERNAME, keys.access_key)
                curl.setopt(pycurl.PASSWORD, keys.secret_key.encode())
                curl.setopt(pycurl.HTTPHEADER, headers)
                curl.setopt(pycurl.HEADERFUNCTION, answer.take_header)
                curl.setopt(pycurl.WRITEFUNCTION, answer.take_body)
                if data is not None:
                    curl.setopt(pycurl.POSTFIELDS, data)
                curl.perform()
                answer.failure = "" if answer.has_head else "half a head"  # libcurl takes it for a whole answer
            except pycurl.error as error:
                answer.failure = f"libcurl {error.args[0]}"
            except (TypeError, ValueError) as error:  # of a zero byte in a secret, for example; boto3 will say so
                answer.failure = type(error).__name__
        if answer.failure and not answer.cut:
            answer.status = 0
        return True

    def _set_up(self, curl: pycurl.Curl) -> None:
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PROXY, "")  # None would make libcurl read the proxy from the environment
        curl.setopt(pycurl.NOPROXY, "*")
        curl.setopt(pycurl.CAINFO, self.certificates.encode())
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT, CONNECT_SECONDS)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, 1)
        curl.setopt(pycurl.LOW_SPEED_TIME, SILENT_SECONDS)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER)
        curl.setopt(pycurl.USERAGENT, USER_AGENT)

    @contextmanager
    def _handle(self) -> Iterator[pycurl.Curl]:
        """A handle that no other thread uses. It keeps its connection for the next request."""
        with self._lock:
            curl = self._idle.pop() if self._idle else pycurl.Curl()
        try:
            yield curl
        finally:
            curl.reset()  # it must not hold the body and the keys
            with self._lock:
                if len(self._idle) < (_IDLE_TLS if self.objects.startswith("https") else _IDLE):
                    self._idle.append(curl)

    def _succeeded(self, method: str, operation: str) -> None:
        """Tells boto3, because each success gives its client some of its retries back. Without, they would be used up one day."""
        if self._misses[method]:
            with self._lock:
                self._misses[method] = 0
        with suppress(Exception):  # of a listener that wants to know more, as Amazon's own monitoring does
            self.events.emit(f"after-call.s3.{operation}", http_response=_SUCCESS, parsed={}, model=None, context={})


class _Answer:
    """Takes an answer. The body of a success goes to `into`, if there is one, and the beginning of every other body to `text`."""

    def __init__(self, into: IO[bytes] | None = None) -> None:
        self.status = 0
        self.has_head = False
        self.text = b""
        self.cut = False  #: the rest of an error's body was not read
        self.error: OSError | None = None  #: of `into`
        self.failure = ""  #: why there is no whole answer
        self._into = into

    def take_header(self, line: bytes) -> None:
        if (status := _STATUS.match(line)) is not None:
            self.status, self.has_head = int(status[1]), False
        elif line in (b"\r\n", b"\n"):
            self.has_head = True

    def take_body(self, data: bytes) -> int | None:
        """None: libcurl goes on. It would print the traceback of an error."""
        if self._into is None or self.status != 200:
            self.text += data
            self.cut = len(self.text) > _SMALL
            return 0 if self.cut else None
        try:
            self._into.write(data)
        except OSError as error:
            self.error = error
            return 0
        return None
