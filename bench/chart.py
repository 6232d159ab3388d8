"""Draws what was measured beside its goals, as an SVG picture for the documents."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, LINE, TOP = 1060, 26, 64
NAMES, BARS, FIGURES = 16, 470, 780  #: where the columns begin
GOAL_AT = 200  #: pixels from BARS to the line of the goal
FULL = FIGURES - BARS - 30  #: a bar is cut here, with a », which says that it goes on
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600; font-size: 15px } .small { fill: #57606a }
  .bench { font-weight: 600 } .met { fill: #2da44e } .missed { fill: #cf222e } .spread { stroke: #24292f; stroke-width: 1.5 } .goal { stroke: #57606a; stroke-dasharray: 4 3 }
  .page { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .spread { stroke: #e6edf3 } .goal { stroke: #9198a1 } .page { fill: #0d1117 }
  }
"""


def chart(reports: Sequence[dict[str, Any]], machine: str) -> str:
    """The picture. `reports` are as `bench.report` writes them. Only rows with a goal in numbers are drawn."""
    drawn: list[str] = []
    y = TOP
    for report in reports:
        if not (rows := [row for row in report["rows"] if row["verdict"]]):
            continue
        drawn.append(
            f'<text class="bench" x="{NAMES}" y="{y + 18}">{escape(report["command"].removeprefix("python -m bench."))}</text>'
        )
        for at, row in enumerate(rows, start=1):
            drawn += _row(row, y + LINE * at)
        y += LINE * (len(rows) + 1)
    height, goal = y + 16, BARS + GOAL_AT
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title">',
            '<title id="title">What was measured, each as a part of its goal</title>',
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}"/>',
            f'<text class="title" x="{NAMES}" y="24">What was measured, each as a part of its goal</text>',
            f'<text class="small" x="{NAMES}" y="44">{escape(machine)}. Green: the goal is met. The thin line goes from the least to the most.</text>',
            f'<text class="small" x="{goal + 6}" y="{TOP - 4}">goal</text>',
            f'<line class="goal" x1="{goal}" y1="{TOP - 16}" x2="{goal}" y2="{height - 12}"/>',
            *drawn,
            "</svg>",
            "",
        )
    )


def _row(row: dict[str, Any], y: int) -> list[str]:
    """The name, the bar up to the median, the line of the spread, and the figures."""
    middle = y + 9
    ends = [_place(row[which], row["bound"]) for which in ("least", "median", "most")]
    figures = f"{row['text'].split(' (')[0]}, goal {row['goal']}"
    return [
        f'<text x="{NAMES}" y="{y + 14}">{escape(_short(row["what"]))}</text>',
        f'<rect class="{row["verdict"]}" x="{BARS}" y="{y + 3}" width="{ends[1]:.1f}" height="13" rx="2"/>',
        f'<line class="spread" x1="{BARS + ends[0]:.1f}" y1="{middle}" x2="{BARS + ends[2]:.1f}" y2="{middle}"/>',
        *([f'<text x="{BARS + FULL + 4}" y="{y + 14}">»</text>'] if ends[2] == FULL else []),
        f'<text x="{FIGURES}" y="{y + 14}">{escape(figures)}</text>',
    ]


def _place(value: float, bound: float) -> float:
    return float(min(value / bound * GOAL_AT, FULL))


def _short(text: str, most: int = 66) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
