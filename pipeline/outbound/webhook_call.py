"""Calls a webhook, behind the guard that images are fetched behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as LookupTimeout
from io import BytesIO

import pycurl

from pipeline.outbound.addresses import Allowed, read_url
from pipeline.outbound.guard import GuardedCurl, NameRefused, Names, Resolve, system_lookup
from pipeline.outbound.webhook import WebhookResponse

CONNECT_SECONDS = 5.0
CALL_SECONDS = 15.0
MOST_READ = 64 * 1024  #: bytes of an answer: only its status counts


class WebhookCaller:
    """Implements pipeline.ports.Deliver. Thread-safe. `allow`: what may be reached beside public addresses."""

    def __init__(self, allow: Sequence[Allowed] = (), *, seconds: float = CALL_SECONDS, resolve: Resolve = system_lookup) -> None:
        self._allow = tuple(allow)
        self._seconds = seconds
        self._names = Names(self._allow, resolve=resolve)

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> WebhookResponse:
        """One POST. No redirect is followed, no proxy used. Never raises for what names and receivers do."""
        target = read_url(url, self._allow)
        if isinstance(target, str):
            return WebhookResponse(status=None, error="url not allowed")
        try:
            addresses = self._names.look_up(target).result(timeout=CONNECT_SECONDS)
        except (NameRefused, LookupTimeout):
            return WebhookResponse(status=None, error="not reachable")  # as for images: no more is told of the networks here
        guarded = GuardedCurl(self._allow, connect_timeout=CONNECT_SECONDS)
        guarded.aim(target, addresses)
        curl = guarded.curl
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.POSTFIELDSIZE_LARGE, len(body))
        curl.setopt(pycurl.READDATA, BytesIO(body))  # not COPYPOSTFIELDS: it raises for a body with a zero byte
        curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in headers.items()] + ["Expect:"])
        curl.setopt(pycurl.TIMEOUT_MS, int(self._seconds * 1000))
        curl.setopt(pycurl.WRITEFUNCTION, _Waste())
        try:
            curl.perform()
        except pycurl.error as error:
            code = int(error.args[0])
            if not _answered(guarded, code):
                return WebhookResponse(status=None, error=_reason(guarded, code))
        finally:
            status, retry_after = curl.getinfo(pycurl.RESPONSE_CODE), curl.getinfo(pycurl.RETRY_AFTER)
            curl.close()
        return WebhookResponse(status=status, retry_after=float(retry_after))


class _Waste:
    """Reads an answer away, up to a limit."""

    def __init__(self) -> None:
        self._read = 0

    def __call__(self, piece: bytes) -> int | None:
        self._read += len(piece)
        return 0 if self._read > MOST_READ else None


def _answered(guarded: GuardedCurl, code: int) -> bool:
    """Whether there was a status, and only the rest was not read."""
    return code == pycurl.E_WRITE_ERROR and bool(guarded.curl.getinfo(pycurl.RESPONSE_CODE))


def _reason(guarded: GuardedCurl, code: int) -> str:
    if guarded.refused or not guarded.connected():
        return "not reachable"
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return "timed out"
    return pycurl.easy_strerror(code).lower()
