"""The documents as the site needs them: which pages there are, where each stands, and its text.

The documents are written to be read in the repository as well. Four things differ in the site: a page may stand elsewhere, the README
is its home page, a link to code leads nowhere, and a picture may have one version for light and one for dark.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs/"
#: Documents outside of docs/ that are pages, and the place of each. A README stands for its folder.
PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
    "docs/adr/README.md": "adr/index.md",
}

_FENCED = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n.*?^(?P=indent)```$", re.MULTILINE | re.DOTALL)
#: A span of code, which stays as it is, or a link or picture in the text.
_LINK = re.compile(r"(?P<code>`[^`]+`)|(?P<picture>!?)\[(?P<text>(?:[^\[\]`]|`[^`]*`)*)\]\((?P<target>[^)\s]+)\)")


def pages(root: Path = ROOT) -> dict[str, str]:
    """Path of each document in the repository → its place in the site. Both are relative, with slashes."""
    found = {name: place for name, place in PLACES.items() if (root / name).exists()}
    for path in sorted((root / "docs").glob("**/*.md")):
        name = path.relative_to(root).as_posix()
        found.setdefault(name, name.removeprefix(DOCS))
    return found


def assets(root: Path = ROOT) -> Iterator[str]:
    """The other files in docs/, such as pictures, by their paths in the repository."""
    for path in sorted((root / "docs").glob("**/*")):
        if path.is_file() and path.suffix != ".md":
            yield path.relative_to(root).as_posix()


def write_sources(folder: Path, root: Path = ROOT) -> dict[str, str]:
    """Writes all pages and assets into an empty folder, and returns `pages(root)`."""
    places = pages(root)
    for name in assets(root):
        copy = folder / name.removeprefix(DOCS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, copy)
    for name, place in places.items():
        written = folder / place
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(for_site((root / name).read_text(encoding="utf-8"), name, places, root), encoding="utf-8")
    return places


def for_site(text: str, name: str, places: dict[str, str], root: Path = ROOT) -> str:
    """The text of the document `name` with its links as the site needs them.

    Of the first line of a fence only the language is kept: a second word, such as "answer", is for tests, and Python-Markdown would not
    take it for a fence.
    """
    parts: list[str] = []
    end = 0
    for fence in _FENCED.finditer(text):
        parts.append(_linked(text[end : fence.start()], name, places, root))
        block = re.sub(r"^( *```\w*)[^\n]*", r"\1", fence[0], count=1)
        parts.append(f'<div class="diagram" markdown>\n\n{block}\n\n</div>' if fence["language"] == "mermaid" else block)
        end = fence.end()
    parts.append(_linked(text[end:], name, places, root))
    return "".join(parts)


def _linked(text: str, name: str, places: dict[str, str], root: Path) -> str:
    def linked(match: re.Match[str]) -> str:
        target = match["target"]
        if match["code"] or "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        path, hash_, anchor = target.partition("#")
        leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        here = posixpath.dirname(places[name])
        if leads_to in places:
            return f"{match['picture']}[{match['text']}]({posixpath.relpath(places[leads_to], here or '.')}{hash_}{anchor})"
        if leads_to.startswith(DOCS):
            shown = posixpath.relpath(leads_to.removeprefix(DOCS), here or ".")
            if match["picture"] and (root / leads_to.replace("-light.", "-dark.")).is_file() and "-light." in shown:
                dark = shown.replace("-light.", "-dark.")
                return f"![{match['text']}]({shown}#only-light)![{match['text']}]({dark}#only-dark)"
            return f"{match['picture']}[{match['text']}]({shown}{hash_}{anchor})"
        return match["text"] if leads_to in match["text"] else f"{match['text']} (`{leads_to}`)"

    return _LINK.sub(linked, text)
