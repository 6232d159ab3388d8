"""The scripts and styles of the console lose comments and needless white space, and nothing that means something."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from api.console import minify
from api.console.routes import ASSETS

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
            "`# Job  ${at+1} of  ${list.map(one=>`${one}  // `)}`",
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


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_that_was_shortened_is_not_shortened_further(path):
    once = minify.script(path.read_text())
    assert minify.script(once) == once


def test_every_script_as_it_is_served_is_javascript(tmp_path):
    driver = pytest.importorskip("playwright._impl._driver", reason="the browser driver brings the reader of JavaScript")
    node = Path(driver.compute_driver_executable()[0])
    for path in SCRIPTS:
        (tmp_path / path.with_suffix(".mjs").name).write_text(minify.script(path.read_text()))
    reads = (
        "for (const path of process.argv.slice(1)) new vm.SourceTextModule(fs.readFileSync(path, 'utf8'), { identifier: path })"
    )
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [node, "--experimental-vm-modules", "--no-warnings", "-e", reads, *paths], check=False, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
