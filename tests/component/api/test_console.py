"""/console: one page and its files, which load nothing from elsewhere and name only what exists."""

from __future__ import annotations

import gzip
import re

import pytest

from api.console.routes import ASSETS, PAGE, assets, version_of_assets

MOST_BYTES = 150_000  #: all files together, uncompressed
IMPORTED = re.compile(r"""(?:\bfrom\s*|\bimport\s*\(?\s*)["'](\./[^"']+)["']""")
NAMED = re.compile(r'(?:href|src)="console/VERSION/([^"]+)"')


def texts() -> dict[str, str]:
    return {name: asset.content.decode() for name, asset in assets().items()}


def test_the_start_page_leads_to_the_console_for_get_and_head(harness):
    for method in ("GET", "HEAD"):
        answer = harness.client.open("/", method=method)
        assert (answer.status_code, answer.headers["Location"]) == (302, "/console")
        assert harness.client.open("/console", method=method).status_code == 200


def test_the_page_forbids_everything_that_is_not_its_own(harness):
    answer = harness.client.get("/console")
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert "Set-Cookie" not in answer.headers


def test_the_files_are_kept_for_good_under_their_version(harness):
    for name in NAMED.findall(texts()[PAGE]):
        answer = harness.client.get(f"/console/{version_of_assets()}/{name}")
        assert answer.status_code == 200, name
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["000000000000/main.js", "{version}/missing.js", "{version}/index.html", "{version}/routes.py"])
def test_another_version_and_other_files_are_not_found(harness, path):
    answer = harness.client.get("/console/" + path.format(version=version_of_assets()))
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def test_the_same_content_comes_compressed_to_who_takes_it(harness):
    path = f"/console/{version_of_assets()}/main.js"
    plain, small = (harness.client.get(path, headers={"Accept-Encoding": taken}) for taken in ("identity", "gzip"))
    assert "Content-Encoding" not in plain.headers
    assert small.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(small.data) == plain.data == assets()["main.js"].content


def test_scripts_and_styles_are_served_without_their_comments():
    for name in ("main.js", "style.css"):
        source, served = (ASSETS / name).read_text(), texts()[name]
        assert re.search(r"^(//|/\*)", source, re.MULTILINE), name
        assert re.search(r"^(//|/\*)", served, re.MULTILINE) is None, name


def test_all_files_together_are_small():
    assert sum(len(asset.content) for asset in assets().values()) <= MOST_BYTES


def test_the_page_and_the_modules_name_only_files_that_exist():
    found = texts()
    assert set(NAMED.findall(found[PAGE])) <= found.keys()
    for name, text in found.items():
        if name.endswith(".js"):
            assert {path.removeprefix("./") for path in IMPORTED.findall(text)} <= found.keys(), name


def test_no_file_loads_from_another_host_or_hands_text_to_the_browser_as_html():
    for name, text in texts().items():
        loads = re.findall(
            r"""(?:src|href)\s*=\s*["'](?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import|from\s*["']https?:""", text
        )
        assert loads == [], name
        if name.endswith(".js"):
            assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text) == [], name


def test_no_inline_script_or_style_stands_in_the_page():
    page = texts()[PAGE]
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page) == []
