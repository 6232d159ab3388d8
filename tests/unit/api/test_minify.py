"""Files of the console are shorter as they are served, and mean the same."""

from __future__ import annotations

import re
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


def test_no_script_has_what_the_library_would_put_in_another_order():
    """The library puts a declaration of several names at once (`const [a, b] = …`) before the declarations above it, if it does not
    see that its value uses their names. It does not see them within braces, and in the value of a function that is called at once.
    """
    several = re.compile(r" *(?:export )?(?:const|let) [\[{].*?[\]}] = (?P<value>.*)")
    faults = []
    for path in SCRIPTS:
        lines = path.read_text().splitlines()
        for at, line in enumerate(lines):
            found = several.match(line)
            hidden = found and ("{" in found["value"].replace("${", "") or found["value"].startswith("("))
            if hidden and _follows_a_declaration(lines, at):
                faults.append(f"{path.name}:{at + 1}")
    assert faults == []


def _follows_a_declaration(lines: list[str], at: int) -> bool:
    """Whether the statement before that line, in the same block, is a declaration."""
    indent = len(lines[at]) - len(lines[at].lstrip())
    for line in reversed(lines[:at]):
        inner = line.strip()
        if not inner or inner.startswith("//") or len(line) - len(line.lstrip()) > indent:
            continue
        if inner[0] in ")]}" and len(line) - len(line.lstrip()) == indent:
            continue  # the end of a statement of several lines
        return len(line) - len(line.lstrip()) == indent and bool(re.match(r"(?:export )?(?:const|let) ", inner))
    return False


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
