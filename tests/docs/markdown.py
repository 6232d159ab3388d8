"""The documents, taken apart: fenced blocks, tables, headings, links, inline code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block."""

    line: int  #: of its first fence, from 1
    kind: str  #: what follows the fence: `sh`, `json answer`
    text: str
    answer: str | None = None  #: the block marked `answer` right behind it
    answer_kind: str = ""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[Block]:
    """The fenced blocks of a document, each with its answer; an answer that follows nothing is a block of its own."""
    text = read(name)
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        kind, body = match["info"].strip(), match["text"]
        if kind.endswith(" answer") and found and found[-1].answer is None and not found[-1].kind.endswith("answer"):
            last = found.pop()
            found.append(Block(line=last.line, kind=last.kind, text=last.text, answer=body, answer_kind=kind))
        else:
            found.append(Block(line=text.count("\n", 0, match.start()) + 1, kind=kind, text=body))
    return found


def prose(name: str) -> str:
    """The document without its fenced blocks."""
    return _FENCE.sub("", read(name))


def inline_code(name: str) -> list[str]:
    return _CODE.findall(prose(name))


def links(name: str) -> list[str]:
    """The targets of links to other documents and to headings."""
    return [target for target in _LINK.findall(prose(name)) if "://" not in target]


def anchors(name: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tables_with(name: str, *columns: str) -> list[dict[str, str]]:
    """The rows of all tables of a document that have just these columns."""
    rows: list[dict[str, str]] = []
    inside = False
    for line in prose(name).splitlines():
        if not line.startswith("|"):
            inside = False
        elif _cells(line) == list(columns):
            inside = True
        elif inside and not set(line) <= set("|- "):
            rows.append(dict(zip(columns, _cells(line), strict=True)))
    return rows


def _cells(line: str) -> list[str]:
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
    return [cell[1:-1] if re.fullmatch(r"`[^`]+`", cell) else cell for cell in cells]
