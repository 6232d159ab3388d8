"""Says what is wrong when a model's server is not reached, or when something else answers in its place.

No picture can cause any of this, so the step waits and no image fails. Each notice says what happened, where, and how to mend it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from pipeline.ports import WAITS, Cause, ModelUnavailable

OVERLOAD_SECONDS = 15.0  #: the wait after a broken connection
AWAY_SECONDS = 5.0  #: the wait while the server is not there; short, because nothing is lost by looking
PERSON_SECONDS = 30.0  #: the wait while somebody has to correct a setting
CONNECT_SECONDS = 4.0  #: the longest wait for a connection; a server that needs longer is not there

_PAGE = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
#: Statuses that a web page may come with although the model's server sent it: the key, a size, a rate, its own crash.
_OWN_PAGES = frozenset({401, 402, 408, 413, 429, 500})
_WRONG_ADDRESS = frozenset({405, 407, 410, 421, 426})


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """The server of a model, and the setting that holds its address."""

    url: str  #: its address, with no key in it
    setting: str  #: OPENAI_BASE_URL, for example

    @property
    def where(self) -> str:
        """Host and port, and the proxy of the environment if one is between."""
        via = self.proxy
        return f"{urlsplit(self.url).netloc}{f' (through the proxy {via})' if via else ''}"

    @property
    def proxy(self) -> str:
        """Host and port of the proxy that the environment names for this address. Empty if there is none."""
        parts = urlsplit(self.url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        if not proxy or is_loopback(self.url) or proxy_bypass(parts.netloc):
            return ""
        return urlsplit(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]

    @property
    def around(self) -> str:
        """How to do without the proxy, as the end of a notice."""
        return f", or add {urlsplit(self.url).hostname} to NO_PROXY to ask it directly" if self.proxy else ""


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine. Then the environment's proxy can't help."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def mounts(url: str) -> dict[str, None]:
    """For `httpx2.Client`: asks a loopback address without the environment's proxy. Other addresses follow HTTP_PROXY and NO_PROXY."""
    host = urlsplit(url).hostname or ""
    return {f"all://{f'[{host}]' if ':' in host else host}": None} if is_loopback(url) else {}


def time_limits(seconds: float) -> httpx2.Timeout:
    """The time limits of a request that may take `seconds`."""
    return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))


def interrupted(error: httpx2.HTTPError, server: Server) -> ModelUnavailable:
    """What a failure of the transport means. After a connection was there, another try will probably succeed."""
    name = type(error).__name__
    text = f"{name} while asking the model"
    if not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError | httpx2.UnsupportedProtocol):
        return ModelUnavailable(text, retry_after=OVERLOAD_SECONDS)
    said = " ".join(str(error).split())[:200]
    if "SSL" in said or "CERTIFICATE" in said.upper():
        todo = "Look at its certificate (SSL_CERT_FILE names your own authority), and whether it speaks https."
        return _notice(Cause.ADDRESS, f"no secure connection to {server.where}: {said}", f"{todo} See {server.setting}.", None)
    what = f"the model's server does not answer at {server.where}: {said or name}"
    todo = f"Start it, or correct {server.setting}{server.around}."
    return _notice(Cause.AWAY, what, todo, None, text=f"{text}: {said}")


def elsewhere(response: httpx2.Response, body: bytes, server: Server) -> ModelUnavailable | None:
    """The exception to raise if the answer does not come from the model's API. None if it may come from there.

    Redirects are not followed, because the next host would get the key.
    """
    status = response.status_code
    page = bool(_PAGE.match(body[:2000])) or response.headers.get("Content-Type", "").lower().startswith("text/html")
    if 300 <= status < 400:
        leads = _without_query(response.headers.get("Location", ""))
        what = f"{server.where} answers HTTP {status}, which leads {f'to {leads}' if leads else 'elsewhere'}"
        return _notice(Cause.ADDRESS, what, f"Set {server.setting} to the address of the model's API itself.", status)
    if status == 407:
        what = f"the proxy before {urlsplit(server.url).netloc} asks for a password (HTTP 407)"
        return _notice(Cause.ADDRESS, what, f"Correct HTTP_PROXY or HTTPS_PROXY{server.around}.", status)
    if (status in {502, 503, 504} and page) or 520 <= status <= 530:
        what = f"something before the model's server answers in its place at {server.where} (HTTP {status})"
        todo = f"Look whether the server runs, and at {server.setting}{server.around}."
        # Gateways send such a page for a moment too. Only if every try of a call gets one, the server counts as not there.
        return _notice(Cause.OVERLOADED, what, todo, status)
    if status in _WRONG_ADDRESS or (page and (status == 200 or 400 <= status < 500) and status not in _OWN_PAGES):
        what = f"{server.where} answers {'with a web page' if page else 'that there is no such method'} (HTTP {status})"
        todo = f"Correct {server.setting}: it must be the address of the model's API{server.around}."
        return _notice(Cause.ADDRESS, what, todo, status)
    return None


def _without_query(location: str) -> str:
    """The address without what may be secret in it. Empty if it is none."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else parts.path
    return place[:200]


def _notice(cause: Cause, what: str, todo: str, status: int | None, *, text: str = "") -> ModelUnavailable:
    seconds = PERSON_SECONDS if cause.needs_person else AWAY_SECONDS
    notice = f"The model can't be asked: {what}. {todo}{WAITS}"
    return ModelUnavailable(text or what, retry_after=seconds, notice=notice, cause=cause, status=status)
