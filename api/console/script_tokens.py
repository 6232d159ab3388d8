"""Cuts JavaScript into its pieces: words, signs, texts, regular expressions and the parts of templates.

It knows as much of the language as that needs. What it does not know, and the console's scripts do not have: a regular expression
directly after `)`, `]` or `}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TEXT = r"""(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
PIECE = re.compile(rf"(?P<blank>(?:\s|//[^\n]*|/\*[\s\S]*?\*/)+)|{TEXT}|(?P<word>[\w$]+)|(?P<sign>[\s\S])")
EXPRESSION = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/\w*")
#: Ends before the code of a template, or behind the template.
TEMPLATE = re.compile(r"(?:[^`\\$]|\\[\s\S]|\$(?!\{))*(?:`|\$\{)")
WORD = re.compile(r"[\w$]")
#: A `/` behind one of these begins a regular expression. Behind another word it divides.
BEFORE_EXPRESSION = frozenset(("await", "case", "delete", "do", "else", "in", "of", "return", "throw", "typeof", "void", "yield"))


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a script. A template is several: its texts between the codes, such as `` `a ${ `` and `` } b` ``."""

    text: str
    begin: int  #: where it begins in the source
    is_word: bool  #: a name, a word of the language or a number
    blank: str  #: what stands before it: nothing, a space, or a line break


def tokens(source: str) -> Iterator[Token]:
    """The pieces of the script, without comments. Raises ValueError if a template does not end."""
    place, before, blank = 0, "(", ""
    open_: list[str] = []  # the braces that are open; `${` is that of a template's code
    while place < len(source):
        ends_code = source[place] == "}" and bool(open_) and open_[-1] == "${"
        if source[place] == "`" or ends_code:
            rest = TEMPLATE.match(source, place + 1)
            if rest is None:
                raise ValueError(f"The template that begins with {source[place : place + 40]} does not end.")
            text, end, is_word = source[place : rest.end()], rest.end(), False
        else:
            found = _next(source, place, before)
            text, end = found.group(), found.end()
            if found.re is PIECE and found["blank"]:
                blank, place = "\n" if "\n" in text else " ", end
                continue
            is_word = found.re is PIECE and found["word"] is not None
        if open_ and (ends_code or text == "}"):
            open_.pop()
        if text == "{" or (text.endswith("${") and source[place] in "`}"):
            open_.append("{" if text == "{" else "${")
        yield Token(text, place, is_word, blank)
        place, before, blank = end, text, ""
    if "${" in open_:
        raise ValueError("The code of a template does not end.")


def _next(source: str, place: int, before: str) -> re.Match[str]:
    found = PIECE.match(source, place)
    assert found is not None, "PIECE takes every sign"
    if found["sign"] == "/" and (before in BEFORE_EXPRESSION or not (WORD.match(before[-1]) or before[-1] in ")]}\"'`")):
        return EXPRESSION.match(source, place) or found
    return found
