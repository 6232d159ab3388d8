"""The navigation, made of the folders: a new page needs no entry anywhere."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from tools.site.pages import ROOT, pages

#: The how-to guides for whoever sends images. All others are for whoever runs the service.
FOR_USERS = frozenset(
    (
        "agents",
        "console",
        "economy",
        "folder-to-table",
        "follow-a-big-job",
        "records",
        "send-images",
        "webhooks",
    )
)
EXPLANATION = ("architecture.md", "admission-control.md")
PROJECT = ("contributing.md", "changelog.md", "examples.md")


def navigation(root: Path = ROOT) -> list[dict[str, Any]]:
    """Titles with their pages or with entries of the same kind, as Zensical's `nav` has them. Each page is named once."""
    places = pages(root)
    first = {place: number for number, place in enumerate(_read_first(root, places))}
    order = sorted(places.values(), key=lambda place: (first.get(place, len(first)), place))

    def folder(name: str) -> list[str]:
        return [place for place in order if place.startswith(f"{name}/")]

    how_to = folder("how-to")
    sections: list[tuple[str, list[Any]]] = [
        ("Use it", [place for place in how_to if _stem(place) in FOR_USERS]),
        ("Run it", [place for place in how_to if _stem(place) not in FOR_USERS]),
    ]
    decisions = ["adr/index.md", *sorted(place for place in folder("adr") if place != "adr/index.md")]
    entries: list[tuple[str, Any]] = [
        ("Home", "index.md"),
        ("Tutorial", "tutorial.md"),
        ("How-to guides", [{title: places} for title, places in sections if places]),
        ("Reference", folder("reference")),
        ("Explanation", [*(place for place in EXPLANATION if place in order), *folder("explanation"), {"Decisions": decisions}]),
        ("Project", [place for place in PROJECT if place in order]),
    ]
    known = set(re.findall(r'"([^"]+\.md)"', json.dumps([entry for _, entry in entries])))
    if other := [place for place in order if place not in known]:  # of a folder that is named nowhere above
        entries.append(("More", other))
    return [{title: entry} for title, entry in entries]


def as_toml(entry: Any) -> str:
    """A value of lists, dicts and texts in the words of TOML."""
    if isinstance(entry, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {as_toml(value)}" for key, value in entry.items()) + " }"
    if isinstance(entry, list):
        return "[" + ", ".join(map(as_toml, entry)) + "]"
    return json.dumps(entry)


def _read_first(root: Path, places: dict[str, str]) -> list[str]:
    """The pages that the README names, in its order: it is the order in which they are read."""
    targets = re.findall(r"\]\(([^)#\s]+)", (root / "README.md").read_text(encoding="utf-8"))
    return list(dict.fromkeys(places[posixpath.normpath(target)] for target in targets if posixpath.normpath(target) in places))


def _stem(place: str) -> str:
    return Path(place).stem
