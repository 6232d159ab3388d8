"""Recognizes what stands where a URL or a base64 text should be, so that an error can say how to mend it. Pure."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["url", "data", "file", "base64", ""]

LOOKED_AT = 4096  #: characters; more would only cost time
_SHORTEST_BASE64 = 40  #: characters; shorter texts may be words
_EXTENSIONS = "png|jpe?g|jfif|webp|gif|tiff?|bmp|hei[cf]|avif|jxl|jp2|ico|svg|psd|pdf"
#: A path with an extension. A text such as `host.example/a.png` may be a URL without its scheme, and is left alone.
_FILE = re.compile(
    rf"(?:file:.*|(?:[a-z]:[\\/]|\\\\).*|(?:/|\./|\.\./|~/)(?!/).*\.(?:{_EXTENSIONS})|(?![^/\\]*\.[^/\\]*/)[^:?#]*\.(?:{_EXTENSIONS}))",
    re.IGNORECASE,
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\r\n]+={0,2}\s*")
#: How the base64 of PNG, JPEG, GIF, WebP and PDF begins.
_BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "JVBERi0")

#: What each kind is, in words that complete "it is …", and how to send it.
SENTENCES: dict[str, str] = {
    "url": 'it is a URL. Send "inputMethod": "url" with URLs',
    "data": 'it is a data: URL. Send "inputMethod": "base64" with data: URLs or bare base64',
    "file": "it is the name of a file, and this service cannot read the files of your machine. "
    'Send the bytes of the file as base64, with "inputMethod": "base64", or as a file of a multipart/form-data request',
    "base64": 'it looks like base64. Send "inputMethod": "base64" with base64',
}


def kind_of(text: str) -> Kind:
    """What the text is: an http or https URL, a data: URL, the name of a file, or base64. Empty if it is none of these."""
    head = text[:LOOKED_AT].strip()
    if head[:8].lower().startswith(("http://", "https://")):
        return "url"
    if head[:5].lower() == "data:":
        return "data"
    if head.startswith(_BEGINNINGS):
        return "base64"
    if len(text) < LOOKED_AT and _FILE.fullmatch(head):
        return "file"
    return "base64" if len(head) >= _SHORTEST_BASE64 and _BASE64.fullmatch(head) else ""
