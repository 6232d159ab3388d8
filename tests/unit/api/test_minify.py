"""The scripts and styles of the console lose comments and needless white space, and nothing that means something."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from api.console import minify
from api.console.routes import ASSETS

COMPARE = Path(__file__).with_name("same_script.mjs")
SCRIPTS = sorted(ASSETS.glob("*.js"))


@pytest.mark.parametrize(
    ("source", "served"),
    [
        ("// why\nconst a = 1; /* and\nmore */ let b;", "let a=1;let b;"),
        ("a = b\nc()", "a=b\nc()"),
        ("a++\n++b", "a++\n++b"),
        ("a + +b - -c", "a+ +b- -c"),
        ("return 'a  b' + \"c // d\";", "return'a  b'+\"c // d\";"),
        ("if (a) {\n  b();\n} else c();", "if(a){b()}else c();"),
        ("x.replace(/^\\s*\\/\\/ [/'\"] /gi, y)", "x.replace(/^\\s*\\/\\/ [/'\"] /gi,y)"),
        ("a / b / c // half", "a/b/c"),
        ("return / a/.test(b) ? 1 : 2", "return/ a/.test(b)?1:2"),
        (
            "`# Job  ${ at + 1 } of  ${ list.map((one) => `${ one }  // `) }`",
            "`# Job  ${at+1} of  ${list.map(a=>`${a}  // `)}`",
        ),
        ("`\\` ${ { a: /}/ }.a } // no comment`", "`\\` ${{a:/}/}.a} // no comment`"),
        ("`${ a /* } */ }`", "`${a}`"),
        ("async (a) => (b) => [() => true, (c, d) => false]", "async a=>b=>[()=>!0,(c,d)=>!1]"),
        ("f(a); (b) => 'true const'", "f(a);b=>'true const'"),
        ("value in map, 1 .toFixed()", "value in map,1 .toFixed()"),
    ],
)
def test_a_script_keeps_each_text_template_expression_and_end_of_a_statement(source, served):
    assert minify.script(source).strip() == served


@pytest.mark.parametrize(
    ("source", "served"),
    [
        ("/* why */\n.a > .b,\n.c :hover { color: red; margin: 0 auto; }\n", ".a>.b,.c :hover{color:red;margin:0 auto}"),
        (
            "@media (max-width: 640px) {\n  .a { width: calc(100vw - 32px); }\n}",
            "@media (max-width:640px){.a{width:calc(100vw - 32px)}}",
        ),
        (
            '.a::before { content: "a ; /  b"; font: 15px/1.5 "Segoe UI"; }',
            '.a::before{content:"a ; /  b";font:15px/1.5 "Segoe UI"}',
        ),
    ],
)
def test_a_style_keeps_each_selector_and_value(source, served):
    assert minify.style(source) == served


def test_a_template_that_does_not_end_is_refused():
    for source in ("`a ${ b", "`a"):
        with pytest.raises(ValueError, match="does not end"):
            minify.script(source)


@pytest.mark.parametrize(
    ("source", "served"),
    [
        ("export const total = (values) => { let sum = 0; values.map((value) => (sum += value)); return sum; };", ["total"]),
        ("const { width, height: high } = frame;\nf(width, high);", ["width", "height", "frame", "f"]),
        ("import { call } from './api.js';\ncall(`a ${ call.name } b`);", ["call", "name"]),
        ("function draw(entry) { return { entry, draw() { return entry.text; } }; }", ["draw", "entry", "text"]),
        ("const name = 1;\nfunction f(status) { return status + name; }", ["name", "status"]),
    ],
)
def test_names_that_others_can_read_and_names_of_the_browser_keep_their_letters(source, served):
    found = set(re.findall(r"[A-Za-z]\w*", minify.script(source)))
    assert set(served) <= found


def test_a_name_that_a_script_declares_for_itself_has_one_letter_wherever_it_stands():
    source = (
        "const counted = (things, ...others) => `${ things.length } of ${ [counted, ...others].map((other) => other.size) }`;"
    )
    assert minify.script(source) == "let a=(d,...c)=>`${d.length} of ${[a,...c].map(b=>b.size)}`;"


def test_every_script_means_the_same_as_it_is_served(tmp_path):
    driver = pytest.importorskip("playwright._impl._driver", reason="the browser driver brings the reader of JavaScript")
    node = Path(driver.compute_driver_executable()[0])
    pairs: list[Path] = []
    for path in SCRIPTS:
        before, after = tmp_path / f"{path.stem}.before.mjs", tmp_path / f"{path.stem}.after.mjs"
        before.write_text(path.read_text())
        after.write_text(minify.script(path.read_text()))
        pairs += (before, after)
    done = subprocess.run([node, "--expose-internals", COMPARE, *pairs], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(SCRIPTS)
