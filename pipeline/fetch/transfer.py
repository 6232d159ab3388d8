"""One request at a time for an image's bytes: what came back, judged as it streams in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, urljoin

import pycurl

from pipeline.fetch.unpacking import Unpacker
from pipeline.outbound.addresses import Allowed, Target
from pipeline.outbound.guard import GuardedCurl
from pipeline.types import MB, ItemCode

# One text for all that fails before a connection to an allowed address is made: names, addresses, refused, blocked. More
# words would make the service a scanner of the networks it stands in.
UNREACHABLE = "The image's server could not be reached. Check that the URL is right and that anyone on the internet can open it."

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# 520 to 529 are what the proxies of content delivery networks say of a server behind them that did not answer well.
_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504, *range(520, 530)})
_NO_CONNECTION = frozenset({pycurl.E_COULDNT_CONNECT, pycurl.E_OPERATION_TIMEDOUT})
_BROKEN_OFF = frozenset({pycurl.E_PARTIAL_FILE, pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR})
_TLS = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_SSL_PEER_CERTIFICATE,
        pycurl.E_SSL_CACERT,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
_BROKE_OFF = "The image's server broke off before the image was complete."
_WASTE = 64 * 1024  # bytes of an error page that are read away, so that its connection can be used again
# Calls of the body callback for one image's bytes. A 20 MB image in packets of 1.4 KB takes 15,000; one in chunks of a byte each
# would take 20 million, which is no image but a way to burn this machine's CPU.
_MOST_PIECES = 65_536
_STATUS = re.compile(rb"HTTP/[0-9.]+ ([0-9]{3})")
_FIRST_LETTERS = frozenset((b"c", b"C", b"l", b"L"))  # of the headers that are read: a server sends a dozen others
_UNPRINTABLE = re.compile("[\x00-\x20\x7f]")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Why a request brought no image."""

    code: ItemCode
    detail: str  #: for the caller
    reason: str  #: for the log
    transient: bool = False  #: whether asking again may help
    unconnected: bool = False  #: whether it is because the server took no connection
    broken: bool = False  #: whether it is because the server ended the connection
    stale: bool = False  #: whether that connection was an older one, kept for this request: this was no try
    retry_after: float = 0.0  #: seconds the server asked for; 0: it did not


@dataclass(frozen=True, kw_only=True, slots=True)
class Redirect:
    """The server says to ask elsewhere."""

    url: str  #: absolute, and not to be trusted


class Budget:
    """The bytes that the images of one call may have together."""

    def __init__(self, total: int) -> None:
        self.left = total
        self.spent = False  #: once true, stays so

    def take(self, size: int) -> bool:
        self.left -= size
        self.spent = self.spent or self.left < 0
        return not self.spent

    def give_back(self, size: int) -> None:
        self.left += size


def unreachable(reason: str) -> Fault:
    return Fault(code=ItemCode.FETCH_FAILED, detail=UNREACHABLE, reason=reason)


def unconnected(reason: str) -> Fault:
    """To the caller it is `unreachable`; but the server may take the next connection."""
    return Fault(code=ItemCode.FETCH_FAILED, detail=UNREACHABLE, reason=reason, transient=True, unconnected=True)


def timed_out(seconds: float) -> Fault:
    detail = f"The image's server did not deliver it within {seconds:g} seconds."
    return Fault(code=ItemCode.FETCH_TIMEOUT, detail=detail, reason="deadline")


def too_many_redirects(most: int) -> Fault:
    return _failed(f"The server redirected more than {most} times.", "redirects")


def after_redirect(detail: str) -> str:
    """What the caller is told of a failure at another URL than theirs: the same for all, and so no more of the networks here."""
    return f"After a redirect: {detail}"


def _too_large(max_bytes: int) -> Fault:
    detail = f"The image is larger than {max_bytes / MB:g} MB ({max_bytes} bytes)."
    return Fault(code=ItemCode.IMAGE_TOO_LARGE, detail=detail, reason="size")


def _failed(detail: str, reason: str, *, transient: bool = False, retry_after: float = 0.0) -> Fault:
    return Fault(code=ItemCode.FETCH_FAILED, detail=detail, reason=reason, transient=transient, retry_after=retry_after)


class Transfer:
    """An easy handle and what the server answers on it; used again and again, by one thread at a time."""

    def __init__(self, allow: Sequence[Allowed], *, max_bytes: int, connect_timeout: float) -> None:
        self._guard = GuardedCurl(allow, connect_timeout=connect_timeout)
        self._max_bytes = max_bytes
        self._budget = Budget(0)
        self.curl = self._guard.curl
        self.curl.setopt(pycurl.HTTPHEADER, ["Accept: image/*, */*;q=0.1", "Accept-Encoding: identity"])
        self.curl.setopt(
            pycurl.BUFFERSIZE, 128 * 1024
        )  # bytes a read; libcurl has one such buffer, and calls back for each 16 KB
        self.curl.setopt(pycurl.HEADERFUNCTION, self._take_header)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._take_body)
        self._clear()

    def _clear(self) -> None:
        self._pieces: list[bytes] = []  # of the body
        self._size = 0  # bytes of it
        self._wasted = 0
        self._status = 0
        self._head_ended = False
        self._length = -1
        self._location = b""
        self._encoding = b""
        self._unpacker: Unpacker | None = None  # of a body with a Content-Encoding
        self._fault: Fault | None = None

    def aim(self, target: Target, addresses: Sequence[str], budget: Budget) -> None:
        """Makes it ready to ask `addresses` for `target`; bytes received are taken from `budget`."""
        self._clear()
        self._url = target.url
        self._budget = budget
        self._guard.aim(target, addresses)

    def reached(self) -> bool:
        """Whether a connection to an allowed address was made for the present request."""
        return self._guard.connected()

    def connect_seconds(self) -> float | None:
        """How long its connection took to make; None if it was there before."""
        return self._guard.connect_seconds()

    def drop(self) -> None:
        """Forgets what was received and gives its bytes back to the budget."""
        self._budget.give_back(self._size)
        self._clear()

    def result(self, code: int) -> bytes | Redirect | Fault:
        """What the request came to, `code` being libcurl's for it. The bytes of what is no image are given back."""
        outcome = self._outcome(code)
        if isinstance(outcome, bytes):
            self._clear()
        else:
            self.drop()
        return outcome

    def _outcome(self, code: int) -> bytes | Redirect | Fault:
        if self._fault is not None:
            return self._fault
        error_page_cut = code == pycurl.E_WRITE_ERROR and self._head_ended and not self._is_success()
        if code == pycurl.E_OK and not self._head_ended:
            code = pycurl.E_PARTIAL_FILE  # libcurl takes headers without an end for a whole answer
        if code == pycurl.E_OK or error_page_cut:
            return self._answered()
        if self._guard.stale:
            return Fault(code=ItemCode.FETCH_FAILED, detail=_BROKE_OFF, reason="stale", transient=True, broken=True, stale=True)
        reason = self._guard.refused or f"curl {code}: {pycurl.easy_strerror(code)}"
        if self._guard.refused or not self._guard.connected():
            return unconnected(reason) if code in _NO_CONNECTION and not self._guard.refused else unreachable(reason)
        if code in _BROKEN_OFF:
            return Fault(code=ItemCode.FETCH_FAILED, detail=_BROKE_OFF, reason=reason, transient=True, broken=True)
        if code in _TLS:
            return _failed("No secure connection to the image's server could be made: check its certificate.", reason)
        if code == pycurl.E_OPERATION_TIMEDOUT:
            detail = "The image's server took too long to connect."
            return Fault(code=ItemCode.FETCH_TIMEOUT, detail=detail, reason=reason, transient=True)
        return _failed("The image's server did not answer in valid HTTP.", reason)

    def _answered(self) -> bytes | Redirect | Fault:
        if self._is_success():
            if self._unpacker is not None and (fault := self._keep_all(self._unpacker.end())) is not None:
                return fault
            if not self._size:
                return Fault(code=ItemCode.IMAGE_EMPTY, detail="The server sent no bytes for this image.", reason="empty")
            return b"".join(self._pieces)
        if self._status in _REDIRECTS and self._location:
            return self._redirect()
        return _failed(
            f"The server answered HTTP {self._status}.",
            f"status {self._status}",
            transient=self._status in _TRANSIENT_STATUSES,
            retry_after=float(self.curl.getinfo(pycurl.RETRY_AFTER)),
        )

    def _redirect(self) -> Redirect:
        # Spaces and control characters are percent-encoded, as every client does; all else is judged as it stands. What is no
        # UTF-8 is percent-encoded byte by byte.
        try:
            location = _UNPRINTABLE.sub(lambda found: f"%{ord(found[0]):02X}", self._location.decode())
        except UnicodeDecodeError:
            location = quote_from_bytes(self._location, safe=_PRINTABLE)
        with contextlib.suppress(ValueError):  # then it is no URL, and is refused as what it is
            location = urljoin(self._url, location)
        return Redirect(url=location)

    def _is_success(self) -> bool:
        return 200 <= self._status < 300

    def _take_header(self, line: bytes) -> int | None:
        """Called with each header line; 0 ends the transfer."""
        if self._head_ended:
            return None  # a trailer, behind the body
        if (status := _STATUS.match(line)) is not None:
            self._status = int(status[1])
            self._length, self._location, self._encoding = -1, b"", b""
        elif line in (b"\r\n", b"\n"):
            self._head_ended = self._status >= 200  # else more lines follow, of the final answer
            if self._head_ended and self._is_success():
                self._fault = self._judge_head()
                return 0 if self._fault is not None else None
        elif line[:1] in _FIRST_LETTERS:
            name, _, value = line.partition(b":")
            value = value.strip()
            match name.lower().strip():
                case b"content-length" if value.isdigit():
                    self._length = int(value[:18])  # so many digits are far too many already
                case b"location":
                    self._location = value
                case b"content-encoding":
                    self._encoding += b"," + value.lower().replace(b"identity", b"")
        return None

    def _judge_head(self) -> Fault | None:
        if self._encoding.strip(b", "):
            self._unpacker = Unpacker(self._encoding)
        return _too_large(self._max_bytes) if self._length > self._max_bytes else None

    def _take_body(self, piece: bytes) -> int | None:
        """Called with each part of the body; 0 ends the transfer."""
        if not self._is_success():
            self._wasted += len(piece)
            return 0 if self._wasted > _WASTE else None
        if self._unpacker is None:
            self._fault = self._keep(piece)
        else:
            self._fault = self._keep_all(self._unpacker.feed(piece))
        return 0 if self._fault is not None or self._budget.spent else None  # spent: the call ends with TotalTooLarge

    def _keep_all(self, parts: Iterator[bytes]) -> Fault | None:
        try:
            for part in parts:
                fault = self._keep(part)
                if fault is not None or self._budget.spent:
                    return fault
        except ValueError as error:
            return _failed(str(error), "content encoding")
        return None

    def _keep(self, part: bytes) -> Fault | None:
        """Adds to the image's bytes, within the limits."""
        self._pieces.append(part)
        self._size += len(part)
        self._budget.take(len(part))
        if self._size > self._max_bytes:
            return _too_large(self._max_bytes)
        if len(self._pieces) > _MOST_PIECES:
            return _failed("The server sent the image in pieces of a few bytes.", "pieces")
        return None
