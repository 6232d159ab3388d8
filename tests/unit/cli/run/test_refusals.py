"""What `run` refuses before anything is sent, and what it prints of names that come from a disk."""

from __future__ import annotations

import io

import pytest

from cli.exits import CommandFault, Exit
from cli.run.check import check_engine
from cli.run.embedded import Reads
from cli.run.flow import check_outputs
from cli.run.options import Options
from cli.run.progress import Reporter, table_of
from tests.fakes.gemini import numbered_picture


def options(**outputs):
    return Options(paths=("p",), outputs=outputs, schema={"type": "object", "properties": {"shop": {"type": "string"}}})


def test_a_picture_is_never_overwritten_by_a_table(tmp_path):
    picture, table = tmp_path / "a.png", tmp_path / "old.csv"
    picture.write_bytes(numbered_picture(1))
    table.write_text("file,result\n")
    check_outputs(options(csv=table), tmp_path / "old.csv.state")
    with pytest.raises(CommandFault, match="is a picture and would be overwritten"):
        check_outputs(options(csv=picture), tmp_path / "a.png.state")


def test_two_outputs_are_two_files(tmp_path):
    with pytest.raises(CommandFault, match="written twice"):
        check_outputs(options(csv=tmp_path / "o", xlsx=tmp_path / "." / "o"), tmp_path / "o.state")


def test_the_settings_that_ocr_is_told_to_set_are_all_that_a_model_needs():
    reads = Reads(engine="ocr", model="m", follows_prompts=False)
    with pytest.raises(CommandFault, match="ENGINE=openai, OPENAI_BASE_URL and MODEL") as raised:
        check_engine(options(), reads, Reporter(quiet=True))
    assert raised.value.exit_code == Exit.USAGE


def test_a_name_gives_the_terminal_no_commands():
    out = io.StringIO()
    reporter = Reporter(out=out)
    reporter.failure("a\x1b[2Jb\nc ü.png", "unreadable", "")
    assert out.getvalue() == "✗ a\\x1b[2Jb\\nc ü.png: unreadable\n"
    reporter.console.print(table_of(["file"], [["a\x1b[2Jb\nc.png"]]))
    assert "\x1b[2J" not in out.getvalue()
