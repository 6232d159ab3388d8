"""`extract-image jobs list` on terminals of any width."""

from __future__ import annotations

import io

import pytest

from cli.jobs_command import _print_table

JOB = "job_0123456789abcdefghijklmn"
TITLES = ("job", "status", "images", "failed", "credits", "created")
ROW = (JOB, "finalizing", "1200/3000", "12", "1210", "11-27 03:05")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, columns):
    out = Terminal()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout", out)
    _print_table(TITLES, [ROW])
    return out.getvalue().splitlines()


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_an_id_is_in_one_piece_on_a_terminal_of_any_width(monkeypatch, columns):
    assert any(JOB in line for line in shown(monkeypatch, columns))


def test_a_job_is_one_line_on_a_terminal_of_80_columns(monkeypatch):
    assert shown(monkeypatch, 80)[1].split() == [*ROW[:5], *ROW[5].split()]
