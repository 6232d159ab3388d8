"""Keeps a request to a stranger's URL from reaching any address that pipeline/outbound/addresses.py does not allow.

This module looks names up and judges every record of the answer. libcurl gets the judged addresses and may look nothing up
itself. The address is judged again when a socket is made, and once more before each request is sent on it.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import lru_cache

import certifi
import pycurl

from pipeline.outbound.addresses import Allowed, Target, address_allowed
from pipeline.outbound.lookup_turns import NOBODY, Asker, Lookup, LookupTurns

Resolve = Callable[[str, int], Sequence[str]]  #: (host, port) -> every address that the name server answered; raises OSError

USER_AGENT = "extract-image/0.1"
_KEEP_SECONDS = 30.0  # how long an answer is kept, because the images of a chunk mostly share a host
_KEEP_FAILURE_SECONDS = 5.0  # how long a failed lookup is kept
_KEPT_NAMES = 4096  # the most names that are kept
# The most lookups at once. A lookup cannot be stopped, and the system's resolver waits for a dead name server. So each account, job
# and parent domain gets only a part of the places: see pipeline/outbound/lookup_turns.py.
_MOST_LOOKUPS = 512
#: How long the resolver of the GNU C library waits for an answer, and how often it asks a name server. It would wait 5 s, twice.
_RESOLVER = "timeout:2 attempts:2"

_log = logging.getLogger(__name__)


class NameRefused(Exception):
    """A name that has no address, or has one that may not be reached."""


def system_lookup(host: str, port: int) -> list[str]:
    """Every address that the system's resolver finds for `host`. Raises OSError."""
    try:
        answer = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"not a name: {error}") from error
    return list(dict.fromkeys(str(record[4][0]) for record in answer))


def shorten_lookups() -> None:
    """Makes the system's resolver give up sooner on a name server that does not answer. Call it before the first lookup.

    RES_OPTIONS of the environment, if it is set, stays as it is.
    """
    os.environ.setdefault("RES_OPTIONS", _RESOLVER)


class Names:
    """Looks each name up once for all callers, in daemon threads. It is thread-safe. `places`: the most lookups at once."""

    def __init__(self, allow: Sequence[Allowed], *, resolve: Resolve = system_lookup, places: int = _MOST_LOOKUPS) -> None:
        self._allow = allow
        self._resolve = resolve
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], tuple[float, Lookup]] = {}
        self._turns = LookupTurns(places)

    def look_up(self, target: Target, asker: Asker = NOBODY) -> Future[tuple[str, ...]]:
        """A future of the addresses to connect to. All of them are allowed. If the lookup fails, its error is NameRefused.

        A single record that is not allowed makes the whole name refused. An answer is kept for 30 s, a failure for 5 s. `asker`: in
        whose turn the lookup starts. If you stop waiting for the future, call `give_up`.
        """
        host, port = target.host, target.port
        if target.literal:
            return _itself(host)
        now = time.monotonic()
        with self._lock:
            known = self._known.get((host, port))
            lookup = known[1] if known is not None and not _stale(known[1], now - known[0]) else None
            if lookup is None:
                lookup = Lookup(host, port)
                self._forget(now)
                self._known[host, port] = (now, lookup)
            lookup.waiters += 1
            if lookup.started_for is not None:
                return lookup
            self._turns.add(lookup, asker)
            starts = self._to_start()
        self._begin(starts)
        return lookup

    def give_up(self, future: Future[tuple[str, ...]]) -> None:
        """Ends a caller's wait for a future of `look_up`. If nobody waits for a lookup that has not started, it is dropped."""
        if not isinstance(future, Lookup):
            return
        with self._lock:
            future.waiters -= 1
            if future.waiters or future.started_for is not None:
                return
            self._turns.drop(future)
            known = self._known.get((future.host, future.port))
            if known is not None and known[1] is future:
                del self._known[future.host, future.port]

    def _to_start(self) -> list[Lookup]:
        """The lookups whose turn it is. Their places are taken."""
        starts: list[Lookup] = []
        while (lookup := self._turns.start_next()) is not None:
            starts.append(lookup)
        return starts

    def _begin(self, lookups: Sequence[Lookup]) -> None:
        for lookup in lookups:
            try:
                threading.Thread(target=self._work, args=(lookup,), name="lookup", daemon=True).start()
            except RuntimeError as error:  # the system has no thread or memory left, so this lookup fails; a later one may work
                with self._lock:
                    self._turns.ended(lookup)
                lookup.set_exception(NameRefused(f"lookup: {error}"))

    def _forget(self, now: float) -> None:
        """Makes room for one more name."""
        if len(self._known) >= _KEPT_NAMES:
            fresh = {key: value for key, value in self._known.items() if not _stale(value[1], now - value[0])}
            for key in list(fresh)[: max(0, len(fresh) - _KEPT_NAMES // 2)]:
                del fresh[key]  # the oldest names go first; a caller that still waits for one holds its future
            self._known = fresh

    def _work(self, lookup: Lookup) -> None:
        mine: Lookup | None = lookup
        while mine is not None:
            try:
                mine.set_result(self._judge(mine.host, mine.port))
            except NameRefused as error:
                mine.set_exception(error)
            except Exception as error:  # noqa: BLE001 - a lookup that breaks must not leave its callers waiting
                mine.set_exception(NameRefused(f"lookup: {error!r}"))
            with self._lock:
                self._turns.ended(mine)
                starts = self._to_start()
            mine = starts.pop(0) if starts else None
            self._begin(starts)

    def _judge(self, host: str, port: int) -> tuple[str, ...]:
        try:
            addresses = tuple(self._resolve(host, port))
        except OSError as error:
            raise NameRefused(f"no address: {error}") from error
        if not addresses:
            raise NameRefused("no address: the answer is empty")
        for address in addresses:
            if not address_allowed(address, port, self._allow):
                raise NameRefused(f"address not allowed: {address} port {port}")
        return addresses


@lru_cache(maxsize=_KEPT_NAMES)  # the images of a chunk mostly share a host
def _itself(address: str) -> Future[tuple[str, ...]]:
    future: Future[tuple[str, ...]] = Future()
    future.set_result((address,))
    return future


def _stale(future: Future[tuple[str, ...]], age: float) -> bool:
    if not future.done():
        return False
    return age > (_KEEP_SECONDS if future.exception() is None else _KEEP_FAILURE_SECONDS)


class _Given(socket.socket):
    """A socket for pycurl, which duplicates its descriptor and drops this object. Closing it in time avoids a ResourceWarning."""

    def __del__(self) -> None:
        if self.fileno() >= 0:  # otherwise the socket was never opened
            self.close()


class GuardedCurl:
    """A libcurl easy handle that speaks only http and https, and only to addresses that it is aimed at and that are allowed.

    Callers may set a body, a method or headers on `curl`. They must not set any option that this class sets.
    """

    def __init__(self, allow: Sequence[Allowed], *, connect_timeout: float) -> None:
        self._allow = allow
        self.refused = ""  #: the reason why an address was refused to the present request, for the log; "": none was
        self.stale = False  #: whether the server had closed the kept connection that the present request used
        self._asked = False
        self._opened = False
        self.curl = curl = pycurl.Curl()
        web = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
        curl.setopt(pycurl.PROTOCOLS, web)
        curl.setopt(pycurl.REDIR_PROTOCOLS, web)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)  # a redirect is a new URL, so the rules for text have to judge it first
        curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        curl.setopt(pycurl.PROXY, "")  # None would make libcurl read the proxy from the environment
        curl.setopt(pycurl.NOPROXY, "*")
        curl.setopt(pycurl.NOSIGNAL, 1)
        # HTTP/2 is not used, because it is no faster: 3,600 images/s against 4,000, measured over TLS with 1000 images of 33 KB.
        # Its advantage is one handshake for many requests. That needs PIPEWAIT, with which one silent answer of a host without
        # ALPN holds up all other requests to that host.
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        # The wheel's libcurl would look for Red Hat's certificates. This sets the system's own, which SSL_CERT_FILE may name. If
        # the system has none, it sets certifi's.
        curl.setopt(pycurl.CAINFO, ssl.get_default_verify_paths().cafile or certifi.where())
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(connect_timeout * 1000))
        curl.setopt(pycurl.USERAGENT, USER_AGENT)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        curl.setopt(pycurl.PREREQFUNCTION, self._before_request)
        curl.setopt(pycurl.RESOLVER_START_FUNCTION, _refuse_lookup)

    def aim(self, target: Target, addresses: Sequence[str]) -> None:
        """Sets the URL of the next request, and the only addresses to which it may connect."""
        self.refused = ""
        self.stale = self._asked = self._opened = False
        self.curl.setopt(pycurl.URL, target.url)
        host = _bracketed(target.host)
        # "+" makes the entry leave libcurl's cache after a minute. Otherwise the cache would grow for ever.
        self.curl.setopt(pycurl.RESOLVE, [f"+{host}:{target.port}:{','.join(map(_bracketed, addresses))}"])

    def connected(self) -> bool:
        """Whether the request has a TCP connection, new or kept. If it has one, the connection's address was allowed."""
        return self._asked or self.curl.getinfo(pycurl.CONNECT_TIME) > 0

    def connect_seconds(self) -> float | None:
        """How many seconds the present request's TCP connection took to make. None: the connection was already open."""
        if not self._opened:
            return None
        return max(0.0, float(self.curl.getinfo(pycurl.CONNECT_TIME) - self.curl.getinfo(pycurl.NAMELOOKUP_TIME)))

    def _open_socket(self, _purpose: int, address: pycurl.CurlSockAddr) -> socket.socket | int:
        if self._asked:
            # libcurl repeats a request by itself if a kept connection turns out to be closed. Here the caller repeats it instead,
            # because the caller has to know that a connection is being made and how long that takes.
            self.stale = True
            return pycurl.SOCKET_BAD
        place = address.addr
        if isinstance(place, bytes) or (len(place) == 4 and place[3]):
            return self._refuse(f"address not allowed: {place!r}")  # it is a Unix socket, or an IPv6 address with a zone
        ip, port = place[0], place[1]
        if not address_allowed(ip, port, self._allow):
            return self._refuse(f"address not allowed: {ip} port {port}")
        self._opened = True
        try:
            return _Given(address.family, address.socktype, address.protocol)
        except OSError as error:  # this machine has no IPv6, so the next address may work; or there is no descriptor left
            _log.info("no socket: %s", error)
            return pycurl.SOCKET_BAD

    def _refuse(self, reason: str) -> int:
        self.refused = reason
        return pycurl.SOCKET_BAD

    def _before_request(self, ip: str, _local_ip: str, port: int, _local_port: int) -> int:
        # libcurl calls this for every request, so it also judges kept connections, for which no socket is made.
        if not address_allowed(ip, port, self._allow):
            self.refused = f"address not allowed: {ip} port {port}"
            return pycurl.PREREQFUNC_ABORT
        self._asked = True
        return pycurl.PREREQFUNC_OK


def _refuse_lookup() -> int:
    """Called by libcurl before it looks a name up itself instead of using the addresses it was given. It must never do so."""
    _log.error("libcurl wanted to look a name up: refused")
    return 1


def _bracketed(host: str) -> str:
    return f"[{ipaddress.IPv6Address(host).compressed}]" if ":" in host else host
