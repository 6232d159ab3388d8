"""Decides which URLs and addresses a stranger may name. The rules work on text alone and use no network."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

import idna

from pipeline.outbound.mistaken import SENTENCES, kind_of

MAX_URL = 8000  #: the most characters of a URL; presigned URLs have thousands
FOR_BUCKETS = "For an object in a bucket, send a presigned URL."
#: Names the setting for image URLs. The check of a webhook's URL names the other one.
MAY_BE_ALLOWED = "Whoever runs this service can allow it with FETCH_ALLOW."
_PUBLIC_PORTS = frozenset({80, 443})
_DEFAULT_PORT = {"http": 80, "https": 443}

# The list has the IANA special-purpose registries, all multicast and reserved space, and the address on which Azure's hosts serve
# their guests. `ipaddress.is_global` cannot replace it, because it passes 224.0.0.1, 64:ff9b::/96, ::127.0.0.1 and fec0::/10.
_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Only IPv6 addresses from the space for global unicast are allowed, except the networks in it that are special or carry IPv4.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ENCODED = re.compile(r"[^!-~]+")  # characters that are percent-encoded in a path or query
_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:]*))(?::(?P<port>[0-9]{0,5}))?")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
# Every client reads a host whose last label is a number as an IPv4 address, which has a dozen spellings (WHATWG URL, "ends in a
# number"). Only the plain spelling is accepted. That refuses no real name, because no top-level domain is a number.
_NUMBER_LAST = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """A network that may be reached besides the public ones."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    port: int | None  #: None: every port
    #: Empty: every path. Else only URLs that have an address as their host, this path, and after it just the name of a file.
    path: str = ""

    def opens(self, rest: str) -> bool:
        """Whether a URL with this path and query may be asked for."""
        return not self.path or (rest.startswith(self.path) and _FILE.fullmatch(rest, len(self.path)) is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A URL whose text is allowed. The addresses of its name still have to be judged."""

    url: str  #: the URL as the client gets it: the host in lower case, an address in its shortest form, no fragment
    host: str  #: a name or a literal address, without brackets
    port: int  #: the URL's port, or the default port of its scheme
    literal: bool  #: whether `host` is an address; if so, the address has been judged already


def parse_allow(text: str) -> tuple[Allowed, ...]:
    """Reads a setting such as `127.0.0.1/32:*,10.1.0.0/16:8080,[fd00::/8]:443`. Blank text has no entries.

    An entry may end with a path, such as `127.0.0.1/32:8000/examples/`.

    Raises ValueError, whose text names the entry that cannot be read.
    """
    return tuple(_parse_entry(entry.strip()) for entry in text.split(",")) if text.strip() else ()


def _parse_entry(entry: str) -> Allowed:
    network_text, colon, port_text = entry.rpartition(":")
    if not colon or not network_text:
        raise ValueError(f"{entry!r} is not a network and a port: write it as 10.1.0.0/16:8080, [fd00::/8]:443 or 127.0.0.1/32:*")
    bracketed = network_text.startswith("[") and network_text.endswith("]")
    if ":" in network_text and not bracketed:
        raise ValueError(f"{entry!r} has an IPv6 network that needs brackets: write it as [fd00::/8]:443")
    try:
        network = ipaddress.ip_network(network_text[1:-1] if bracketed else network_text)
    except ValueError as error:
        raise ValueError(f"{entry!r} has no valid network: {error}") from None
    if bracketed != (network.version == 6):
        raise ValueError(f"{entry!r} has brackets around what is no IPv6 network")
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None and network.prefixlen >= 96:
        raise ValueError(f"{entry!r} is an IPv4-mapped network, which is never reached: write it as IPv4")
    port_text, slash, path = port_text.partition("/")
    path = slash + path
    if port_text == "*":
        return Allowed(network=network, port=None, path=path)
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 1 <= int(port_text) <= 65535:
        raise ValueError(f"{entry!r} has no valid port: it must be 1 to 65535, or * for all")
    return Allowed(network=network, port=int(port_text), path=path)


def address_allowed(ip: str, port: int, allow: Sequence[Allowed]) -> bool:
    """Whether a socket to this address may be opened. It may if the address is public and the port is 80 or 443, or if `allow`
    names both.

    A text that is no plain address is refused, whatever `allow` says: a name, an address with a zone such as fe80::1%eth0, or
    an IPv4-mapped address.
    """
    address = _plain_address(ip)
    if address is None:
        return False
    if port in _PUBLIC_PORTS and _is_public(address):
        return True
    return any(entry.port in (None, port) and address in entry.network for entry in allow)


@lru_cache(maxsize=4096)  # it is called for each connection and each request, mostly with the same few addresses
def _plain_address(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id is not None or address.ipv4_mapped is not None):
        return None
    return address


@lru_cache(maxsize=4096)
def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _REFUSED_V6)


def check_url(url: str, allow: Sequence[Allowed]) -> str | None:
    """The reason why the text of this URL is refused, as a sentence for the caller. None: the URL may be tried."""
    read = read_url(url, allow)
    return read if isinstance(read, str) else None


def read_url(url: str, allow: Sequence[Allowed]) -> Target | str:
    """The parts of the URL, or the reason why its text is refused, as a sentence for the caller.

    The grammar is narrower than RFC 3986 and than any client's, because a URL that two parsers could read in two ways must be
    refused. Spaces and characters beyond ASCII are accepted as browsers accept them: in a path or query they are percent-encoded
    as UTF-8, and a name is encoded by UTS 46. The rules judge the encoded name. If the host is a name, a port other than 80 and
    443 passes if `allow` opens it on any network, because the name's addresses are judged later.
    """
    if not url:
        return "This is an empty string, and no URL: send the image's http or https URL."
    kind = "" if url[:4].lower() == "http" else kind_of(url)
    if kind and kind != "url":
        return f"The URL must start with http:// or https://: {SENTENCES[kind]}."
    if len(url) > MAX_URL:
        return f"The URL is longer than {MAX_URL} characters."
    if _CONTROL.search(url) or url != url.strip():
        return "The URL has a control character, such as a line break, or a space around it: leave it out."
    if "\\" in url:
        return "The URL has a backslash: write / or %5C."
    parts = _URL.fullmatch(url.partition("#")[0])
    if parts is None:
        return f"The URL must start with http:// or https://. {FOR_BUCKETS}"
    scheme, authority, rest = parts[1].lower(), parts[2].lower(), parts[3]
    if "@" in authority:
        return "The URL must not hold a user name or a password."
    if not authority.isascii():
        name, colon, port = authority.partition(":")
        try:
            authority = idna.encode(name, uts46=True).decode() + colon + port
        except UnicodeError:  # IDNAError is a subclass of it
            return "The URL's host is not a valid name."
    rest = _ENCODED.sub(lambda found: quote(found[0], safe=""), rest)  # the encoding is UTF-8, as in every browser
    return _read_authority(scheme, authority, rest, allow)


def _read_authority(scheme: str, authority: str, rest: str, allow: Sequence[Allowed]) -> Target | str:
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        return "The URL's host or port is not valid."
    if not (parts["v6"] or parts["name"]):
        return "The URL has no host."
    host = _read_host(parts["v6"], parts["name"])
    if host is None:
        return "The URL's host is not a valid name, nor an address in its plain form."
    port = int(parts["port"]) if parts["port"] else _DEFAULT_PORT[scheme]
    literal = _plain_address(host) is not None
    if not 1 <= port <= 65535:
        return "The URL's port is not a number from 1 to 65535."
    if not literal and port not in _PUBLIC_PORTS and not any(entry.port in (None, port) and not entry.path for entry in allow):
        return f"The URL's port must be 80 or 443. {MAY_BE_ALLOWED}"
    if literal and not address_allowed(host, port, [entry for entry in allow if entry.opens(rest)]):
        return f"The URL's address is not a public one on port 80 or 443. {MAY_BE_ALLOWED}"
    written = f"[{host}]" if ":" in host else host
    if port != _DEFAULT_PORT[scheme]:
        written = f"{written}:{port}"
    return Target(url=f"{scheme}://{written}{rest}", host=host, port=port, literal=literal)


def _read_host(v6: str | None, name: str | None) -> str | None:
    """The host in its one accepted spelling. None: the text is not a host."""
    if v6 is not None:
        address = _plain_address(v6)
        return address.compressed if isinstance(address, ipaddress.IPv6Address) else None
    assert name is not None
    if _NUMBER_LAST.fullmatch(name):
        return name if _plain_address(name) is not None else None
    return name if len(name) <= 253 and _NAME.fullmatch(name) else None
