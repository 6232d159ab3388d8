"""Runs a command in a pseudo-terminal, and shows what then stands on the screen."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Mapping

_PIECE = re.compile(r"\x1b\[(?P<number>[0-9;?]*)(?P<what>[A-Za-z])|(?P<control>[\r\n])|(?P<text>[^\x1b\r\n]+)")


def session(command: str, *, cwd: str, environment: Mapping[str, str], columns: int = 110) -> tuple[str, int]:
    """The screen after the command, and its exit code. Lines that were erased again, such as those of a bar, are gone."""
    parent, child = pty.openpty()
    shown = {**environment, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "50", "NO_COLOR": "1"}
    process = subprocess.Popen(["sh", "-c", command], cwd=cwd, env=shown, stdin=child, stdout=child, stderr=child)
    os.close(child)
    said = b""
    try:
        while piece := os.read(parent, 65536):
            said += piece
    except OSError:  # Linux says so when the last process has closed the terminal
        pass
    os.close(parent)
    return screen(said.decode()), process.wait()


def screen(said: str) -> str:
    """The text on the screen. It knows the sequences that move up, go to the line's begin, and erase a line."""
    lines, row, column = [""], 0, 0
    for piece in _PIECE.finditer(said):
        if piece["text"]:
            lines[row] = lines[row][:column].ljust(column) + piece["text"] + lines[row][column + len(piece["text"]) :]
            column += len(piece["text"])
        elif piece["control"] == "\r":
            column = 0
        elif piece["control"]:
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif piece["what"] == "A":
            row = max(row - int(piece["number"] or 1), 0)
        elif piece["what"] == "K":
            lines[row] = ""
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"
