"""Makes scripts and styles shorter before they are served, so that their source can have comments, white space and whole names.

It moves nothing, and what stands in texts, templates and regular expressions stays as it is. It shortens what a script declares for
itself (api/console/short_names.py), and writes some words shorter: see SHORTER. The scripts have no property whose name is one of those.

It is code of our own because none of the libraries could be used: see docs/adr/0043-console.md.
"""

from __future__ import annotations

import re

from api.console.script_tokens import TEXT, WORD, tokens
from api.console.short_names import with_short_names

#: Words that a shorter one can replace. `const` only hinders assignments, and those fail when the scripts are tested, not when they run.
SHORTER = {"const": "let", "true": "!0", "false": "!1"}
#: A line that ends or begins with one of these signs goes on, so no statement ends there.
GOES_ON_AFTER = frozenset("{([,;=>?:&|!")
GOES_ON_BEFORE = frozenset(")],.?:;=&|}")

STYLE_TOKEN = re.compile(rf"(?P<comment>/\*[\s\S]*?\*/)|{TEXT}|(?P<blank>\s+)|(?P<sign>[{{}};,>])|(?P<other>[^\s{{}};,>\"'/]+|/)")


def script(source: str) -> str:
    """The same JavaScript, shorter. Raises ValueError if a template does not end."""
    kept: list[str] = []
    for token in tokens(with_short_names(source)):
        piece = SHORTER.get(token.text, token.text)
        if piece == "}" and kept and kept[-1] == ";":
            kept.pop()
        elif piece == ">" and [*kept[-4:-3], *kept[-2:]] == ["(", ")", "="] and WORD.match(kept[-3]):
            behind_word = len(kept) > 4 and WORD.match(kept[-5][-1])
            kept[-4:] = [*([" "] if behind_word else []), kept[-3], "="]  # one=> for (one)=>
        before = kept[-1] if kept else "{"
        if token.blank == "\n" and before[-1] not in GOES_ON_AFTER and piece[0] not in GOES_ON_BEFORE:
            kept.append("\n")
        elif token.blank and _would_merge(before[-1], piece[0]):
            kept.append(" ")
        kept.append(piece)
    return "".join(kept)


def style(source: str) -> str:
    """The same CSS, shorter."""
    kept = ""
    for found in STYLE_TOKEN.finditer(re.sub(r"/\*[\s\S]*?\*/", "", source)):
        piece = found.group()
        if found["other"]:
            piece = re.sub(r"(?<![\w.#])0(?=\.\d)", "", piece)
        elif found["blank"]:
            piece = "" if kept[-1:] in "{};,>:" else " "
        elif found["sign"]:
            kept = kept.rstrip(" ")
            if piece == "}":
                kept = kept.removesuffix(";")
        kept += piece
    return kept.strip()


def _would_merge(before: str, after: str) -> bool:
    """True if the two, side by side, would be read as one: two words, `+ +`, `- -`, `/ /`, and a number's point."""
    return (
        bool(WORD.match(before) and WORD.match(after))
        or (before == after and before in "+-/")
        or (before.isdigit() and after == ".")
    )
