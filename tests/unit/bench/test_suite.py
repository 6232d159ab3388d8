"""What `make bench` runs, and how it shows results."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

import bench.__main__ as suite
from bench.chart import chart
from bench.report import at_least, at_most, spread, verdict
from testbed import ROOT

REPORTING = sorted(
    path.stem for path in (ROOT / "bench").glob("*.py") if "print_report(" in path.read_text() and path.stem != "report"
)


def test_every_bench_that_prints_a_report_is_in_the_suite_or_said_to_be_left_out():
    left_out = (suite.__doc__ or "").partition("Not in the list")[2]
    missing = set(REPORTING) - {each.module for each in suite.SUITE}
    assert {name for name in missing if not re.search(rf"\b{name}\b", left_out)} == set()


@pytest.mark.parametrize("each", suite.SUITE, ids=lambda each: each.command)
def test_a_bench_of_the_suite_has_the_options_that_it_is_given(each):
    source = (ROOT / "bench" / f"{each.module}.py").read_text()
    assert [option for option in re.findall(r"--\w+", each.arguments) if f'"{option}"' not in source] == []


@pytest.mark.parametrize(
    ("values", "goal", "said"),
    [
        ([1.0, 3.0, 2.0], at_most(2), "met"),
        ([1.0, 3.0, 2.1], at_most(2), "missed"),
        ([0.94], at_least(0.95), "missed"),
        ([0.95], at_least(0.95), "met"),
        ([1.0], "flat", ""),
    ],
)
def test_a_goal_is_met_by_the_median(values, goal, said):
    assert verdict(spread(values, "x"), goal) == said


def test_the_picture_shows_each_row_with_a_goal_and_cuts_bars_that_are_too_long():
    rows = [
        {"what": "fast <1>", "text": "1.00 ms (1.00 to 2.00)", "goal": "at most 2", "verdict": "met", "bound": 2}
        | {"median": 1.0, "least": 1.0, "most": 2.0},
        {"what": "slow", "text": "90.00 ms (80.00 to 99.00)", "goal": "at most 2", "verdict": "missed", "bound": 2}
        | {"median": 90.0, "least": 80.0, "most": 99.0},
        {"what": "no goal", "text": "1", "goal": "", "verdict": ""},
    ]
    picture = ET.fromstring(chart([{"command": "python -m bench.web", "rows": rows}], "a machine"))
    texts = ["".join(each.itertext()) for each in picture.iter() if each.tag.endswith("}text")]
    assert {"fast <1>", "slow", "1.00 ms, goal at most 2", "»"} <= set(texts)
    assert "no goal" not in texts
