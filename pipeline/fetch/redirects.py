"""Judges redirects: which answers are one, where it leads, and whether it may be followed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, urljoin

from pipeline.fetch.faults import Fault, failed, unreachable
from pipeline.outbound.addresses import Allowed, Target, read_url

STATUSES = frozenset({301, 302, 303, 307, 308})  #: HTTP statuses of a redirect, if the answer has a Location header
MOST = 10  #: the most redirects of one image

_UNPRINTABLE = re.compile("[\x00-\x20\x7f]")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Redirect:
    """A server's answer that the image is at another URL."""

    url: str  #: the absolute URL; it is not trusted and has to be judged


def redirect_to(location: bytes, *, base: str) -> Redirect:
    """The redirect that a Location header means. `base`: the URL that was asked.

    Spaces and control characters are percent-encoded, as every client does. A location that is not UTF-8 is percent-encoded
    byte by byte.
    """
    try:
        url = _UNPRINTABLE.sub(lambda found: f"%{ord(found[0]):02X}", location.decode())
    except UnicodeDecodeError:
        url = quote_from_bytes(location, safe=_PRINTABLE)
    with contextlib.suppress(ValueError):  # the text is not a URL, so it is refused as it stands
        url = urljoin(base, url)
    return Redirect(url=url)


def judge(redirect: Redirect, *, number: int, allow: Sequence[Allowed]) -> Target | Fault:
    """The target to ask next, or why the redirect is not followed. `number`: this image's redirects so far, with this one."""
    target = read_url(redirect.url, allow)
    if isinstance(target, str):
        # The code is not url_not_allowed, because the caller's own URL is allowed. The text does not say which rule refused the
        # target, because that would tell the caller about the networks here.
        return unreachable(f"redirect: {target}")
    if number > MOST:
        return failed(f"The server redirected more than {MOST} times.", "redirects")
    return target


def after_redirect(detail: str, *, number: int) -> str:
    """The caller's text for a failure behind `number` redirects. It is the same for every target, so it tells nothing about it."""
    return f"After a redirect: {detail}" if 0 < number <= MOST else detail
