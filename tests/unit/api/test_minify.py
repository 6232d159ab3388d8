"""Files of the console are shorter as they are served, and mean the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from api.console import minify
from api.console.minify import minified
from api.console.routes import ASSETS

SCRIPTS = sorted(ASSETS.glob("*.js"))
shortened = pytest.mark.skipif(not minify.LIBRARY, reason="the library that makes files shorter has no package for this system")


@shortened
def test_a_script_loses_comments_and_blanks_and_keeps_its_texts_and_the_names_of_its_module():
    source = "// why\nexport const at = (place, rest) => `# Job ${place + 1} of ${rest ? `  ${rest} ` : '//'}`;\n"
    served = minified(".js", source)
    assert "why" not in served
    assert len(served) < len(source) - len("// why\n")
    assert "# Job ${" in served
    assert "of ${" in served
    assert "`  ${" in served
    assert "//" in served
    assert "export const at" in served


@shortened
def test_a_style_loses_comments_and_keeps_each_selector_and_value():
    assert minified(".css", "/* why */\n.a > .b {\n  margin: 0 0.5rem;\n}\n") == ".a>.b{margin:0 .5rem}"


@shortened
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_shorter_as_it_is_served(path):
    source = path.read_text()
    assert 0 < len(minified(".js", source)) < len(source)


def test_a_file_of_another_kind_stays_as_it_is():
    assert minified(".svg", "<svg> <!-- why --> </svg>") == "<svg> <!-- why --> </svg>"


def test_without_the_library_files_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(minify, "library", None)
    assert minified(".js", "let a = 1; // why") == "let a = 1; // why"


def test_every_script_as_it_is_served_is_javascript(tmp_path):
    driver = pytest.importorskip("playwright._impl._driver", reason="the browser driver brings the reader of JavaScript")
    node = Path(driver.compute_driver_executable()[0])
    for path in SCRIPTS:
        (tmp_path / path.with_suffix(".mjs").name).write_text(minified(".js", path.read_text()))
    reads = (
        "for (const path of process.argv.slice(1)) new vm.SourceTextModule(fs.readFileSync(path, 'utf8'), { identifier: path })"
    )
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [node, "--experimental-vm-modules", "--no-warnings", "-e", reads, *paths], check=False, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
