"""Takes comments and needless white space out of scripts and styles, so that their source can have both and a browser loads neither.

It renames nothing and moves nothing, and what stands in texts, templates and regular expressions stays as it is. It writes some words
shorter: see SHORTER. It knows as much of JavaScript as that needs. What it does not know, and the scripts do not have: a regular
expression directly after `)`, `]` or `}`, and a property whose name is one of SHORTER.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

BLANK = r"(?P<blank>(?:\s|//[^\n]*|/\*[\s\S]*?\*/)+)"
TEXT = r"""(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
TOKEN = re.compile(rf"{BLANK}|{TEXT}|(?P<word>[\w$]+)|(?P<sign>[\s\S])")
EXPRESSION = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/\w*")
#: Ends before the code of a template, or behind the template.
TEMPLATE = re.compile(r"(?:[^`\\$]|\\[\s\S]|\$(?!\{))*(?:`|\$\{)")
WORD = re.compile(r"[\w$]")
#: A `/` behind one of these begins a regular expression. Behind another word it divides.
BEFORE_EXPRESSION = frozenset(("await", "case", "delete", "do", "else", "in", "of", "return", "throw", "typeof", "void", "yield"))
#: Words that a shorter one can replace. `const` only hinders assignments, and those fail when the scripts are tested, not when they run.
SHORTER = {"const": "let", "true": "!0", "false": "!1"}
#: A line that ends or begins with one of these signs goes on, so no statement ends there.
GOES_ON_AFTER = frozenset("{([,;=>?:&|!")
GOES_ON_BEFORE = frozenset(")],.?:;=&|}")

STYLE_TOKEN = re.compile(rf"(?P<comment>/\*[\s\S]*?\*/)|{TEXT}|(?P<blank>\s+)|(?P<sign>[{{}};,>])|(?P<other>[^\s{{}};,>\"'/]+|/)")


def script(source: str) -> str:
    """The same JavaScript, shorter."""
    return _joined(_tokens(source))


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


def _joined(tokens: Iterator[str]) -> str:
    """The tokens without what need not stand between them. A blank is one space, or one line break if it had one."""
    kept: list[str] = []
    blank = ""
    for piece in (SHORTER.get(token, token) for token in tokens):
        if piece.isspace():
            blank = piece
            continue
        if piece == "}" and kept and kept[-1] == ";":
            kept.pop()
        elif piece == ">" and [*kept[-4:-3], *kept[-2:]] == ["(", ")", "="] and WORD.match(kept[-3]):
            behind_word = len(kept) > 4 and WORD.match(kept[-5][-1])
            kept[-4:] = [*([" "] if behind_word else []), kept[-3], "="]  # one=> for (one)=>
        before = kept[-1] if kept else "{"
        if blank == "\n" and before[-1] not in GOES_ON_AFTER and piece[0] not in GOES_ON_BEFORE:
            kept.append("\n")
        elif blank and _would_merge(before[-1], piece[0]):
            kept.append(" ")
        kept.append(piece)
        blank = ""
    return "".join(kept)


def _would_merge(before: str, after: str) -> bool:
    """True if the two, side by side, would be read as one: two words, `+ +`, `- -`, `/ /`, and a number's point."""
    return (
        bool(WORD.match(before) and WORD.match(after))
        or (before == after and before in "+-/")
        or (before.isdigit() and after == ".")
    )


def _tokens(source: str) -> Iterator[str]:
    """Each piece. A template is one piece, whose code is shorter as well."""
    place, before = 0, "("
    while place < len(source):
        if source[place] == "`":
            piece, place = _template(source, place)
        else:
            found = _next(source, place, before)
            place, piece = found.end(), found.group()
            if found.re is TOKEN and found["blank"]:
                yield "\n" if "\n" in piece else " "
                continue
        before = piece
        yield piece


def _next(source: str, place: int, before: str) -> re.Match[str]:
    found = TOKEN.match(source, place)
    assert found is not None, "TOKEN takes every sign"
    if found["sign"] == "/" and (before in BEFORE_EXPRESSION or not (WORD.match(before[-1]) or before[-1] in ")]}\"'`")):
        return EXPRESSION.match(source, place) or found
    return found


def _template(source: str, place: int) -> tuple[str, int]:
    """The template that begins at `place`, and where it ends."""
    kept, place = "`", place + 1
    while (found := TEMPLATE.match(source, place)) is not None:
        kept += found.group()
        place = found.end()
        if found.group().endswith("`"):
            return kept, place
        end = _end_of_code(source, place)
        kept += script(source[place:end]) + "}"
        place = end + 1
    raise ValueError(f"The template that begins with {kept[:40]} does not end.")


def _end_of_code(source: str, place: int) -> int:
    """Where the `}` stands that ends the code of a template."""
    depth, before = 0, "("
    while place < len(source):
        if source[place] == "`":
            before, place = _template(source, place)
            continue
        found = _next(source, place, before)
        if found.group() == "}" and not depth:
            return place
        depth += {"{": 1, "}": -1}.get(found.group(), 0)
        place = found.end()
        if found.re is EXPRESSION or not found["blank"]:
            before = found.group()
    raise ValueError("The code of a template does not end.")
