"""Gives the names that a script declares for itself shorter names.

Each name gets the same new name wherever it stands in the script, so it needs no knowledge of scopes: what meant the same thing before
means the same thing after. A name keeps its letters if it stands anywhere in the script where another could read it: as a property, as
a shorthand in braces, in an import or an export. It also keeps them if it is a word of the language or of the browser. What is in doubt
keeps its letters. The tests read each script with a parser, before and after.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from string import ascii_letters

from api.console.script_tokens import Token, tokens

NAME = re.compile(r"[A-Za-z_$][\w$]*")
OPENING, CLOSING = frozenset("([{"), frozenset(")]}")
#: Words of the language that a name may not be, and words that stand before a name without declaring it.
LANGUAGE = frozenset(
    [
        "arguments",
        "as",
        "async",
        "await",
        "break",
        "case",
        "catch",
        "class",
        "const",
        "constructor",
        "continue",
        "debugger",
        "default",
        "delete",
        "do",
        "else",
        "enum",
        "eval",
        "export",
        "extends",
        "false",
        "finally",
        "for",
        "from",
        "function",
        "get",
        "if",
        "import",
        "in",
        "instanceof",
        "let",
        "new",
        "null",
        "of",
        "return",
        "set",
        "static",
        "super",
        "switch",
        "this",
        "throw",
        "true",
        "try",
        "typeof",
        "undefined",
        "var",
        "void",
        "while",
        "with",
        "yield",
        "NaN",
        "Infinity",
    ]
)
#: Names of the browser that a script may also declare for itself in one function, and use as the browser's in another.
BROWSER = frozenset(
    [
        "alert",
        "blur",
        "caches",
        "close",
        "closed",
        "confirm",
        "crypto",
        "document",
        "event",
        "external",
        "fetch",
        "find",
        "focus",
        "frames",
        "history",
        "length",
        "location",
        "name",
        "navigator",
        "open",
        "opener",
        "origin",
        "outerHeight",
        "outerWidth",
        "parent",
        "performance",
        "print",
        "prompt",
        "screen",
        "scroll",
        "scrollX",
        "scrollY",
        "self",
        "status",
        "stop",
        "top",
        "window",
    ]
)
DECLARING = frozenset(("const", "let", "function", "class"))


def with_short_names(source: str) -> str:
    """The same script. Names that it declares for itself have one to three letters."""
    found = list(tokens(source))
    names = short_names(found)
    pieces: list[str] = []
    end = 0
    for token in found:
        if token.text in names and token.is_word:
            pieces += (source[end : token.begin], names[token.text])
            end = token.begin + len(token.text)
    return "".join((*pieces, source[end:]))


def short_names(found: Sequence[Token]) -> dict[str, str]:
    """The new name of each name that gets one."""
    words = Counter(token.text for token in found if token.is_word)
    kept = LANGUAGE | BROWSER | _seen_by_others(found)
    declared = {word for word in _declared(found) if word not in kept and NAME.fullmatch(word)}
    often_first = sorted(declared, key=lambda word: (-words[word], word))
    fresh = (name for name in _names() if name not in words and name not in LANGUAGE)
    return {word: name for word, name in zip(often_first, fresh, strict=False) if len(name) < len(word)}


def _names() -> Iterator[str]:
    for length in itertools.count(1):
        for letters in itertools.product(ascii_letters, repeat=length):
            yield "".join(letters)


def _seen_by_others(found: Sequence[Token]) -> set[str]:
    """The words that stand where another script, or the code for a property, may read them."""
    seen: set[str] = set()
    open_: list[str] = []
    outside = False  # within the names of an import or an export
    for at, token in enumerate(found):
        before, after = _text(found, at - 1), _text(found, at + 1)
        if not token.is_word:
            _note_bracket(open_, token.text)
            outside = outside and token.text != ";"
            continue
        outside = outside or token.text == "import" or (token.text == "export" and after == "{")
        in_braces = bool(open_) and open_[-1] == "{"
        spread = before == "." and _text(found, at - 2) == "."
        if (
            outside
            or (before == "." and not spread)
            or before == "#"
            or (in_braces and after == ":")
            or (in_braces and before in ("{", ",") and after in (",", "}", "="))
            or (in_braces and after == "(" and before != "function" and _text(found, _end(found, at + 1) + 1) == "{")
            or _is_exported(found, at)
        ):
            seen.add(token.text)
    return seen


def _is_exported(found: Sequence[Token], at: int) -> bool:
    """Whether the word is declared by `export const`, `export async function` and the like."""
    return any(
        _text(found, at - back) == "export"
        and all(_text(found, at - n) in DECLARING | {"async", "default"} for n in range(1, back))
        for back in (2, 3, 4)
    )


def _declared(found: Sequence[Token]) -> set[str]:
    """The words that the script declares: constants, variables, functions, classes, parameters and caught errors."""
    declared: set[str] = set()
    for at, token in enumerate(found):
        before, after = _text(found, at - 1), _text(found, at + 1)
        if token.is_word:
            arrow = after == "=" and _text(found, at + 2) == ">"
            if before in DECLARING or arrow:
                declared.add(token.text)
        elif token.text in OPENING:
            end = _end(found, at)
            behind = _text(found, end + 1), _text(found, end + 2)
            parameters = token.text == "(" and (
                behind == ("=", ">") or before == "catch" or "function" in (before, _text(found, at - 2))
            )
            if parameters or (before in ("const", "let") and token.text != "("):
                declared |= {
                    found[inner].text
                    for inner in range(at, end)
                    if found[inner].is_word and _text(found, inner - 1) in ("(", "[", "{", ",", ".", ":")
                }
    return declared


def _note_bracket(open_: list[str], text: str) -> None:
    """Keeps the list of the brackets that are open. The code of a template is one of them."""
    if text in CLOSING or (text.startswith("}") and open_ and open_[-1] == "${"):
        open_.pop()
    if text in OPENING:
        open_.append(text)
    elif text.endswith("${"):
        open_.append("${")


def _end(found: Sequence[Token], at: int) -> int:
    """Where the bracket closes that opens there."""
    open_: list[str] = []
    for place in range(at, len(found)):
        if not found[place].is_word:
            _note_bracket(open_, found[place].text)
            if not open_:
                return place
    return len(found)


def _text(found: Sequence[Token], at: int) -> str:
    return found[at].text if 0 <= at < len(found) else ""
