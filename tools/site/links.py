"""Checks a built site: every link, every anchor, and that no page loads anything from another host."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What a browser fetches by itself when it shows a page: tag → attribute.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
#: Values of `rel` with which `link` fetches nothing.
NAMED_ONLY = frozenset(("canonical", "prev", "next", "alternate", "license", "author"))
_STYLE_URL = re.compile(r"url\(\s*['\"]?(?P<url>[^'\")]+)|@import\s+['\"](?P<imported>[^'\"]+)")


@dataclass
class Html(HTMLParser):
    """What stands in a page."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)  #: targets that a reader may follow
    loads: list[str] = field(default_factory=list)  #: what a browser fetches by itself

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in LOADED and values.get(LOADED[tag]) and values.get("rel") not in NAMED_ONLY:
            self.loads.append(values[LOADED[tag]])
        self.loads += style_urls(values.get("style", ""))


def style_urls(style: str) -> list[str]:
    """What a style sheet loads, apart from data that it has inside."""
    urls = [match["url"] or match["imported"] for match in _STYLE_URL.finditer(style)]
    return [url for url in urls if not url.startswith(("data:", "#"))]


@dataclass(frozen=True)
class Site:
    """A built site in a folder."""

    folder: Path

    @cached_property
    def pages(self) -> dict[str, Html]:
        """Path of each page in the site → what stands in it."""
        found: dict[str, Html] = {}
        for path in sorted(self.folder.glob("**/*.html")):
            page = Html()
            page.feed(path.read_text(encoding="utf-8"))
            found[path.relative_to(self.folder).as_posix()] = page
        return found

    def faults(self) -> Iterator[str]:
        """What is wrong, one line each."""
        for name, page in self.pages.items():
            for target in page.loads:
                yield from self._fault(name, target, loaded=True)
            for target in page.links:
                yield from self._fault(name, target)
        for path in sorted(self.folder.glob("**/*.css")):
            name = path.relative_to(self.folder).as_posix()
            for target in style_urls(path.read_text(encoding="utf-8")):
                yield from self._fault(name, target, loaded=True)

    def _fault(self, name: str, target: str, *, loaded: bool = False) -> Iterator[str]:
        try:
            parts = urlsplit(target)
        except ValueError as error:
            yield f"{name}: {target!r} is no URL: {error}"
            return
        if parts.scheme or parts.netloc:
            if loaded:
                yield f"{name}: {target} is loaded from another host. Put the file into docs/."
            elif parts.scheme == "mailto" and "@" in parts.path:
                return
            elif parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"\s", target):
                yield f"{name}: {target!r} is no URL that can be followed."
            return
        # The page for addresses that do not exist is served for any of them, so its links start at the root.
        path = unquote(parts.path)
        place = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        if path.startswith("/"):
            place = path.lstrip("/") or "index.html"
        if (self.folder / place).is_dir():
            place = posixpath.normpath(posixpath.join(place, "index.html"))
        if not (self.folder / place).is_file():
            yield f"{name}: {target} leads to no file of the site."
        elif parts.fragment and place in self.pages and unquote(parts.fragment) not in self.pages[place].ids:
            yield f"{name}: {target} leads to no heading of {place}."
