"""Makes a name for an image from the file name that came with an upload. Pure."""

from __future__ import annotations

import re
import unicodedata

from pipeline.request.fields import LONGEST_CUSTOM_ID

_SEPARATORS = re.compile(r"[/\\]+")
_ROOT = re.compile(r"[A-Za-z]:(?=[/\\])|[/\\]|file:/")  # how an absolute path begins
_NOT_SHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, lone surrogates, separators of lines and paragraphs
_CUT = "…"  # replaces what is cut from the start of a long name


def file_name(sent: str) -> str | None:
    r"""The name of an uploaded file as it is stored and shown: 1 to LONGEST_CUSTOM_ID characters. None if nothing is left of it.

    A relative path is kept, with `/` between its parts, because it tells the files of several folders apart. Of an absolute path only
    the last part is kept, because the others describe the sender's machine: `C:\fakepath\a.jpg` becomes `a.jpg`. Control characters
    and the parts `.` and `..` are dropped. A long name loses its start, because its end says more.
    """
    shown = "".join(character for character in sent if unicodedata.category(character) not in _NOT_SHOWN).strip()
    root = _ROOT.match(shown)
    parts = (part.strip() for part in _SEPARATORS.split(shown[root.end() :] if root else shown))
    named = [part for part in parts if part not in {"", ".", ".."}]
    name = "/".join(named[-1:] if root else named)
    if len(name) > LONGEST_CUSTOM_ID:
        name = _CUT + name[-(LONGEST_CUSTOM_ID - len(_CUT)) :]
    return name or None
