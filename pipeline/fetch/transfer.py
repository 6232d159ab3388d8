"""Runs one request for an image's bytes at a time, and judges the answer while it streams in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pycurl

from pipeline.fetch import redirects
from pipeline.fetch.faults import Fault, failed, too_large, unconnected, unreachable
from pipeline.fetch.redirects import Redirect, redirect_to
from pipeline.fetch.unpacking import Unpacker
from pipeline.outbound.addresses import Allowed, Target
from pipeline.outbound.guard import GuardedCurl
from pipeline.types import ItemCode

# The proxies of content delivery networks answer 520 to 529 if the server behind them did not answer well.
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
_WASTE = 64 * 1024  # the most bytes of an error page that are read and dropped, so that its connection can be used again
# The most calls of the body callback for one image. A 20 MB image in packets of 1.4 KB takes 15,000 calls. In chunks of one byte
# it would take 20 million calls. No honest server does that, and it would burn this machine's CPU.
_MOST_PIECES = 65_536
_STATUS = re.compile(rb"HTTP/([0-9.]+) ([0-9]{3})")
# The first letters of the headers that are read. Most of a server's dozen other headers are skipped by their first letter.
_FIRST_LETTERS = frozenset((b"c", b"C", b"l", b"L", b"t", b"T"))


class Budget:
    """Counts the bytes that the images of one call may have together."""

    def __init__(self, total: int) -> None:
        self.left = total
        self.spent = False  #: whether the images have ever had too many bytes; it stays true once it is true

    def take(self, size: int) -> bool:
        self.left -= size
        self.spent = self.spent or self.left < 0
        return not self.spent

    def give_back(self, size: int) -> None:
        self.left += size


class Transfer:
    """A libcurl easy handle and the answer that it receives. It serves many requests, one thread at a time."""

    def __init__(self, allow: Sequence[Allowed], *, max_bytes: int, connect_timeout: float) -> None:
        self._guard = GuardedCurl(allow, connect_timeout=connect_timeout)
        self._max_bytes = max_bytes
        self._budget = Budget(0)
        self.curl = self._guard.curl
        self.curl.setopt(pycurl.HTTPHEADER, ["Accept: image/*, */*;q=0.1", "Accept-Encoding: identity"])
        self.curl.setopt(
            pycurl.BUFFERSIZE, 128 * 1024
        )  # bytes of one read; libcurl has one buffer of this size, and calls back for each 16 KB of it
        self.curl.setopt(pycurl.HEADERFUNCTION, self._take_header)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._take_body)
        self._clear()

    def _clear(self) -> None:
        self._pieces: list[bytes] = []  # the pieces of the image's body
        self._size = 0  # the bytes of these pieces
        self._wasted = 0  # the bytes of an error page
        self._status = 0
        self._keeps = self._chunked = False
        self._head_ended = False
        self._length = -1
        self._location = b""
        self._encoding = b""
        self._unpacker: Unpacker | None = None  # set if the body has a Content-Encoding
        self._fault: Fault | None = None

    def aim(self, target: Target, addresses: Sequence[str], budget: Budget) -> None:
        """Prepares a request to `addresses` for `target`. The bytes that are received count towards `budget`."""
        self._clear()
        self._url = target.url
        self._budget = budget
        self._guard.aim(target, addresses)

    def reached(self) -> bool:
        """Whether a connection to an allowed address was made for the present request."""
        return self._guard.connected()

    def keeps(self, code: int) -> bool:
        """Whether the answer's connection can take the next request: the server keeps it, and the end of the answer was read."""
        return code == pycurl.E_OK and self._keeps and (self._length >= 0 or self._chunked)

    def connect_seconds(self) -> float | None:
        """How many seconds the request's connection took to make. None: the request used a connection that was already open."""
        return self._guard.connect_seconds()

    def drop(self) -> None:
        """Drops the received bytes and gives them back to the budget."""
        self._budget.give_back(self._size)
        self._clear()

    def result(self, code: int) -> bytes | Redirect | Fault:
        """The result of the request. `code`: libcurl's code for it. If there is no image, the budget gets the bytes back."""
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
            code = pycurl.E_PARTIAL_FILE  # libcurl takes an answer whose headers are cut off for a whole one
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
            return failed("No secure connection to the image's server could be made: check its certificate.", reason)
        if code == pycurl.E_OPERATION_TIMEDOUT:
            detail = "The image's server took too long to connect."
            return Fault(code=ItemCode.FETCH_TIMEOUT, detail=detail, reason=reason, transient=True)
        return failed("The image's server did not answer in valid HTTP.", reason)

    def _answered(self) -> bytes | Redirect | Fault:
        if self._is_success():
            if self._unpacker is not None and (fault := self._keep_all(self._unpacker.end())) is not None:
                return fault
            if not self._size:
                return Fault(code=ItemCode.IMAGE_EMPTY, detail="The server sent no bytes for this image.", reason="empty")
            return b"".join(self._pieces)
        if self._status in redirects.STATUSES and self._location:
            return redirect_to(self._location, base=self._url)
        return failed(
            f"The server answered HTTP {self._status}.",
            f"status {self._status}",
            transient=self._status in _TRANSIENT_STATUSES,
            retry_after=float(self.curl.getinfo(pycurl.RETRY_AFTER)),
        )

    def _is_success(self) -> bool:
        return 200 <= self._status < 300

    def _take_header(self, line: bytes) -> int | None:
        """Called by libcurl with each header line. Returning 0 ends the transfer."""
        if self._head_ended:
            return None  # the line is a trailer, which follows the body
        if (status := _STATUS.match(line)) is not None:
            self._keeps, self._status = status[1] != b"1.0", int(status[2])
            self._length, self._chunked, self._location, self._encoding = -1, False, b"", b""
        elif line in (b"\r\n", b"\n"):
            self._head_ended = self._status >= 200  # after a 1xx status, the headers of the final answer follow
            if self._head_ended and self._is_success():
                self._fault = self._judge_head()
                return 0 if self._fault is not None else None
        elif line[:1] in _FIRST_LETTERS:
            name, _, value = line.partition(b":")
            self._take_field(name.lower().strip(), value.strip())
        return None

    def _take_field(self, name: bytes, value: bytes) -> None:
        match name:
            case b"content-length" if value.isdigit():
                self._length = int(value[:18])  # 18 digits are enough, because such a length is far over the limit
            case b"connection":
                self._keeps = self._keeps and b"close" not in value.lower()
            case b"transfer-encoding":
                self._chunked = b"chunked" in value.lower()
            case b"location":
                self._location = value
            case b"content-encoding":
                self._encoding += b"," + value.lower().replace(b"identity", b"")

    def _judge_head(self) -> Fault | None:
        if self._encoding.strip(b", "):
            self._unpacker = Unpacker(self._encoding)
        return too_large(self._max_bytes) if self._length > self._max_bytes else None

    def _take_body(self, piece: bytes) -> int | None:
        """Called by libcurl with each part of the body. Returning 0 ends the transfer."""
        if not self._is_success():
            self._wasted += len(piece)
            return 0 if self._wasted > _WASTE else None
        if self._unpacker is None:
            self._fault = self._keep(piece)
        else:
            self._fault = self._keep_all(self._unpacker.feed(piece))
        # If the budget is spent, the fetching thread ends the whole call with TotalTooLarge.
        return 0 if self._fault is not None or self._budget.spent else None

    def _keep_all(self, parts: Iterator[bytes]) -> Fault | None:
        try:
            for part in parts:
                fault = self._keep(part)
                if fault is not None or self._budget.spent:
                    return fault
        except ValueError as error:
            return failed(str(error), "content encoding")
        return None

    def _keep(self, part: bytes) -> Fault | None:
        """Adds the part to the image's bytes. Returns a fault if the image is over a limit."""
        self._pieces.append(part)
        self._size += len(part)
        self._budget.take(len(part))
        if self._size > self._max_bytes:
            return too_large(self._max_bytes)
        if len(self._pieces) > _MOST_PIECES:
            return failed("The server sent the image in pieces of a few bytes.", "pieces")
        return None
