"""Calls a webhook, behind the same guard as the fetching of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as LookupTimeout
from io import BytesIO

import pycurl

from pipeline.outbound.addresses import Allowed, address_allowed, read_url
from pipeline.outbound.guard import GuardedCurl, NameRefused, Names, Resolve, system_lookup
from pipeline.outbound.lookup_turns import Asker
from pipeline.outbound.webhook import WebhookResponse
from pipeline.turns import current_account, current_job

CONNECT_SECONDS = 5.0
CALL_SECONDS = 15.0
MOST_READ = 64 * 1024  #: bytes of an answer that are read; the rest is ignored, because only the status counts
MOST_SHOWN = 1000  #: bytes of an answer that the webhook's owner may see


class WebhookCaller:
    """Implements pipeline.ports.Deliver. Thread-safe. `allow`: private networks that may be reached too."""

    def __init__(self, allow: Sequence[Allowed] = (), *, seconds: float = CALL_SECONDS, resolve: Resolve = system_lookup) -> None:
        self._allow = tuple(allow)
        self._seconds = seconds
        self._names = Names(self._allow, resolve=resolve)

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> WebhookResponse:
        """Sends one POST. It follows no redirect and uses no proxy. A fault of the name or the receiver never raises."""
        target = read_url(url, self._allow)
        if isinstance(target, str):
            return WebhookResponse(status=None, error="url not allowed")
        lookup = self._names.look_up(target, Asker(current_account(), current_job()))
        try:
            addresses = lookup.result(timeout=CONNECT_SECONDS)
        except (NameRefused, LookupTimeout):
            self._names.give_up(lookup)
            return WebhookResponse(status=None, error="not reachable")  # no details, so that callers can't explore our networks
        guarded = GuardedCurl(self._allow, connect_timeout=CONNECT_SECONDS)
        guarded.aim(target, addresses)
        curl = guarded.curl
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.POSTFIELDSIZE_LARGE, len(body))
        curl.setopt(pycurl.READDATA, BytesIO(body))  # COPYPOSTFIELDS raises if the body has a zero byte
        curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in headers.items()] + ["Expect:"])
        curl.setopt(pycurl.TIMEOUT_MS, int(self._seconds * 1000))
        answer = _Beginning()
        curl.setopt(pycurl.WRITEFUNCTION, answer)
        try:
            curl.perform()
        except pycurl.error as error:
            code = int(error.args[0])
            if not _answered(guarded, code):
                return WebhookResponse(status=None, error=_reason(guarded, code))
        finally:
            status, retry_after = curl.getinfo(pycurl.RESPONSE_CODE), curl.getinfo(pycurl.RETRY_AFTER)
            curl.close()
        # The owner sees no answer of a private network, because it may be meant for those inside alone.
        public = all(address_allowed(address, target.port, ()) for address in addresses)
        return WebhookResponse(status=status, retry_after=float(retry_after), text=answer.text() if public else "")


class _Beginning:
    """Reads an answer and keeps its beginning. Stops the transfer at a limit."""

    def __init__(self) -> None:
        self._read = 0
        self._kept = b""

    def __call__(self, piece: bytes) -> int | None:
        self._read += len(piece)
        self._kept += piece[: MOST_SHOWN - len(self._kept)]
        return 0 if self._read > MOST_READ else None

    def text(self) -> str:
        """The beginning as text. A database takes no NUL, so one becomes the sign for what is no text."""
        return self._kept.decode(errors="replace").replace("\0", "\ufffd")


def _answered(guarded: GuardedCurl, code: int) -> bool:
    """Whether a status came, and the transfer was stopped only because the body was too long."""
    return code == pycurl.E_WRITE_ERROR and bool(guarded.curl.getinfo(pycurl.RESPONSE_CODE))


def _reason(guarded: GuardedCurl, code: int) -> str:
    if guarded.refused or not guarded.connected():
        return "not reachable"
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return "timed out"
    return pycurl.easy_strerror(code).lower()
