"""The documents as a site: every page has a place in the navigation, every link leads somewhere, and nothing is lost on the way."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from tests.docs.markdown import NAMES, ROOT
from tools.site.__main__ import build
from tools.site.links import Site
from tools.site.navigation import navigation
from tools.site.pages import for_site, pages

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]

#: What must come through: headings, items of lists, rows and cells of tables, blocks of code, pictures.
COUNTED = {"h1", "h2", "h3", "h4", "li", "tr", "th", "td", "pre"}
PLACES = {"README.md": "index.md", "docs/how-to/a.md": "how-to/a.md", "docs/reference/b.md": "reference/b.md"}


class Counted(HTMLParser):
    """Counts the tags of a page's text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += tag in COUNTED


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site") / "site"
    assert build(target) == []
    return Site(target)


def named(entry) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [place for part in (entry if isinstance(entry, list) else entry.values()) for place in named(part)]


def a_project(folder, text):
    """A folder with a README and one how-to guide with this text."""
    (folder / "docs/how-to").mkdir(parents=True)
    (folder / "README.md").write_text("# Home\n\n[A guide](docs/how-to/new-page.md)\n")
    (folder / "docs/how-to/new-page.md").write_text(text)
    return folder


def test_each_document_is_a_page_of_the_site_and_each_page_is_in_the_navigation_once(site):
    places = pages()
    assert {name for name in NAMES if name not in places} == set(), (
        "These documents are no pages: see PLACES of tools/site/pages.py."
    )
    in_navigation = Counter(named(navigation()))
    assert {place for place in places.values() if in_navigation[place] != 1} == set(), (
        "These pages are not in the navigation once."
    )
    built = {place.removesuffix(".md") + ".html" for place in places.values()}
    assert set(site.pages) == {*built, "404.html"}


def test_every_link_leads_to_a_page_and_a_heading_and_no_page_loads_anything_from_another_host(site):
    assert list(site.faults()) == []
    assert sum(len(page.links) for page in site.pages.values()) > 1000


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_the_headings_lists_tables_and_blocks_that_the_document_has(name, site):
    """Python-Markdown reads some lists and fences differently from what shows the documents in a repository."""
    expected = Counted(MarkdownIt("commonmark").enable("table").render((ROOT / name).read_text()))
    html = (site.folder / pages()[name].replace(".md", ".html")).read_text()
    assert Counted(html.partition("<article")[2].partition("</article>")[0]).tags == expected.tags


def test_a_new_page_is_in_the_navigation_by_its_folder(tmp_path):
    root = a_project(tmp_path, "# New page\n")
    (root / "docs/another-folder").mkdir()
    (root / "docs/another-folder/c.md").write_text("# C\n")
    entries = {title: entry for part in navigation(root) for title, entry in part.items()}
    assert entries["How-to guides"] == [{"Run it": ["how-to/new-page.md"]}]
    assert entries["More"] == ["another-folder/c.md"]


def test_a_site_with_a_broken_link_is_not_built_and_the_site_before_stays(tmp_path):
    root = a_project(tmp_path / "root", "# New page\n\n[no such heading](new-page.md#nothing)\n")
    target = tmp_path / "site"
    target.mkdir()
    (target / "index.html").write_text("before")
    said = "\n".join(build(target, root))
    assert "new-page.md:3" in said
    assert (target / "index.html").read_text() == "before"


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="no.html">', "no.html leads to no file"),
        ('<a href="#no">', "#no leads to no heading"),
        ('<a href="other.html#no">', "other.html#no leads to no heading"),
        ('<a href="other.html#there">', ""),
        ('<a href="https://a.example/x#y">', ""),
        ('<a href="https:///x">', "no URL that can be followed"),
        ('<a href="https://[x">', "is no URL"),
        ('<a href="javascript:alert(1)">', "no URL that can be followed"),
        ('<img src="https://a.example/x.png">', "loaded from another host"),
        ('<script src="//a.example/x.js"></script>', "loaded from another host"),
        ('<link rel="preconnect" href="https://fonts.example">', "loaded from another host"),
        ('<p style="background: url(https://a.example/x.png)">', "loaded from another host"),
        ('<img src="no.png">', "no.png leads to no file"),
    ],
)
def test_the_check_of_links_finds_each_kind_of_fault(html, fault, tmp_path):
    (tmp_path / "index.html").write_text(html)
    (tmp_path / "other.html").write_text('<h2 id="there">There</h2>')
    found = list(Site(tmp_path).faults())
    assert len(found) == bool(fault)
    assert not fault or (fault in found[0] and found[0].startswith("index.html: "))


def test_a_style_sheet_may_not_load_from_another_host_either(tmp_path):
    (tmp_path / "a.css").write_text('@import "https://a.example/b.css"; p { background: url(data:image/png;base64,AA) }')
    assert list(Site(tmp_path).faults()) == [
        "a.css: https://a.example/b.css is loaded from another host. Put the file into docs/."
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("README.md", "[a](docs/how-to/a.md#x)", "[a](how-to/a.md#x)"),
        ("docs/how-to/a.md", "[`b` and c](../reference/b.md)", "[`b` and c](../reference/b.md)"),
        ("docs/how-to/a.md", "[home](../../README.md)", "[home](../index.md)"),
        ("docs/how-to/a.md", "[the tests](../../tests/x.py)", "the tests (`tests/x.py`)"),
        ("docs/how-to/a.md", "[`tests/x.py`](../../tests/x.py)", "`tests/x.py`"),
        ("docs/how-to/a.md", "`[a](b.md)` [c](https://d.example/)", "`[a](b.md)` [c](https://d.example/)"),
        ("docs/how-to/a.md", "```json answer\n[a](b.md)\n```", "```json\n[a](b.md)\n```"),
        (
            "README.md",
            "![J](docs/images/console/jobs-light.webp)",
            "![J](images/console/jobs-light.webp#only-light)![J](images/console/jobs-dark.webp#only-dark)",
        ),
    ],
)
def test_links_lead_within_the_site_and_pictures_follow_the_palette(name, text, expected):
    assert for_site(text, name, PLACES) == expected
