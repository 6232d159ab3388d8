"""Says why a body is not JSON: what it is instead, or where its first mistake is, and how to mend it."""

from __future__ import annotations

import json
import re

LOOKED_AT = 1 << 20  #: bytes of the body that are looked at
SHOWN = 20  #: characters before a mistake that the text shows
EXAMPLE = 'Send {"inputMethod": "url", "images": ["https://…"], "prompt": "…"} with Content-Type: application/json.'
#: A line of curl that sends a file, for the address that was asked.
_CURL = 'curl {address} -H "Authorization: Bearer $KEY" -F "images=@receipt.jpg" -F "prompt=What is the total?"'
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*", b"%PDF", b"\x00\x00\x00")
#: How JSON begins in UTF-16, UTF-32 or with their marks of the byte order. Windows PowerShell's > writes such files.
_OTHER_UNICODE = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{", b"\x00\x00\x00{", b"\x00\x00\xfe\xff")
_PAIR = re.compile(rb"\s*[\w.%\[\]-]{1,100}=")
_BARE_NAME = re.compile(r"[A-Za-z_$][\w$]*\s*:")

#: What stands at the mistake → how to mend it.
_HINTS = (
    (re.compile(r"'"), "write names and texts in double quotes, not in single ones"),
    (re.compile(r"[\u201c\u201d\u201e\u2018\u2019]"), 'write the plain quote ", not a typographic one'),
    (re.compile(r"True\b|False\b|None\b"), "write true, false and null in lower case, as JSON has them"),
    (re.compile(r"//|/\*|#"), "JSON has no comments; take them out"),
    (_BARE_NAME, "write names in double quotes"),
    (re.compile(r"undefined\b"), "write null, or leave the field out"),
    (re.compile(r"[\n\r\t]"), "write a line break in a text as \\n, and a tab as \\t"),
)


def why_not_json(body: bytes, size: int, *, media_type: str, address: str, error: Exception) -> str:
    """The text of the error.

    `body`: the beginning of a body of `size` bytes. `media_type` and `address`: what the request was sent as, and where to.
    `error`: what the parser raised.
    """
    curl = f"To send files, send multipart/form-data: {_CURL.format(address=address)}"
    if not body.strip():
        return f"The body is empty. {EXAMPLE}"
    if body.startswith(_OTHER_UNICODE):
        return "The body is not in UTF-8: it is text in UTF-16 or UTF-32. Write the body in UTF-8."
    if media_type.startswith("image/") or body.startswith(_IMAGES) or _is_binary(body):
        named = f"Content-Type {media_type}" if media_type else "no Content-Type"
        return f"The body is a file ({named}), and JSON or a form is needed. {curl}"
    if body.lstrip().startswith(b"--") and b"form-data" in body:
        return f"The body is a form, but its Content-Type is {media_type or 'missing'}; leave that header to curl. {curl}"
    if _PAIR.match(body):
        return f"The body is a form of names and values (application/x-www-form-urlencoded), and JSON is needed. {EXAMPLE} {curl}"
    return f"The body is not valid JSON: {_mistake(body, size, error)}"


def _is_binary(body: bytes) -> bool:
    return b"\x00" in body[:64]


def _mistake(body: bytes, size: int, error: Exception) -> str:
    if size > len(body):
        return str(error)
    try:
        text = body.decode()
    except UnicodeDecodeError as wrong:
        return f"byte {wrong.start} is no UTF-8; write the body in UTF-8."
    try:
        json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as wrong:
        return _at(text, wrong)
    except RecursionError:
        return "it is nested too deeply."
    except ValueError as wrong:
        return f"{wrong}."
    return f"{error}."


def _refuse(name: str) -> None:
    raise ValueError(f"JSON has no {name}; write null, or leave the field out")


def _at(text: str, wrong: json.JSONDecodeError) -> str:
    """The place of the mistake, and how to mend it."""
    before, after = text[: wrong.pos].rstrip(), text[wrong.pos :]
    place = f"line {wrong.lineno}, column {wrong.colno}"
    if not after.strip() or wrong.msg.startswith("Unterminated string"):
        return f"it ends in the middle of a value ({place}); send all of it, with the Content-Length of the whole body."
    if (before.endswith(",") and after[0] in "}]") or (after[0] == "," and after[1:].lstrip()[:1] in tuple("}]")):
        return f"there is a comma before a closing bracket at {place}; take the comma out."
    hint = next((hint for found, hint in _HINTS if found.match(after)), "")
    if wrong.msg.startswith("Extra data"):
        hint = hint or "there is more after the end of the object; send one object"
    return f"{hint or wrong.msg} ({place}, after {json.dumps(before[-SHOWN:], ensure_ascii=False)})."
