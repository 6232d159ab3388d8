"""The kept list of changes that `make mutants` tries fits the code, and its runner tells noticed from survived."""

from __future__ import annotations

import ast

import pytest

from tools.mutants.__main__ import judged
from tools.mutants.report import Outcome, Result, page
from tools.mutants.table import ROOT, Mutant, mutants

MUTANTS = mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_no_change_is_stale_and_each_leaves_valid_python(mutant):
    text = mutant.mutated()
    assert text is not None, f"the text to replace must be once in {mutant.file}"
    ast.parse(text)
    assert mutant.tests
    assert all((ROOT / test.partition("::")[0]).is_file() for test in mutant.tests)


@pytest.mark.parametrize(
    ("code", "said", "outcome", "by"),
    [
        (1, "F\nFAILED tests/unit/test_a.py::test_it - boom\n1 failed in 2s\n", Outcome.NOTICED, "tests/unit/test_a.py::test_it"),
        (1, "E\nERROR tests/unit/test_a.py::test_it - left\n1 error in 2s\n", Outcome.NOTICED, "tests/unit/test_a.py::test_it"),
        (None, "", Outcome.NOTICED, "a test hung: tests/unit/test_a.py"),
        (0, "1 passed in 2s\n", Outcome.SURVIVED, "1 passed in 2s"),
        (2, "ERROR tests/unit/test_a.py\n1 error during collection\n", Outcome.BROKEN, "1 error during collection"),
        (5, "no tests ran\n", Outcome.BROKEN, "no tests ran"),
    ],
)
def test_a_change_is_noticed_only_if_a_test_failed(code, said, outcome, by):
    mutant = Mutant(name="n", safeguard="It holds.", file="f.py", old="a", new="b", tests=("tests/unit/test_a.py",))
    assert judged(mutant, code, said, 1.0) == Result(mutant=mutant, outcome=outcome, by=by, seconds=1.0)


def test_the_page_counts_the_outcomes_and_explains_what_survived():
    same = {"safeguard": "It holds.", "file": "f.py", "old": "a", "new": "b", "tests": ("t",), "equivalent": "A second net."}
    outcomes = {"one": Outcome.NOTICED, "two": Outcome.SURVIVED}
    mutants_tried = [(Mutant(name=name, **same), outcome) for name, outcome in outcomes.items()]
    text = page([Result(mutant=mutant, outcome=outcome, by="test_it", seconds=1.0) for mutant, outcome in mutants_tried])
    assert "2 changes: 1 noticed, 1 survived." in text
    assert "**survived** A second net." in text


def test_a_run_of_single_changes_replaces_their_rows_only_and_the_page_counts_again():
    first, second = (
        Mutant(name=name, safeguard="It | holds.", file="f.py", old="a", new="b", tests=("t",)) for name in ("one", "two")
    )
    before = page([Result(mutant=each, outcome=Outcome.SURVIVED, by="", seconds=1.0) for each in (first, second)])
    again = Result(mutant=second, outcome=Outcome.NOTICED, by="tests/a.py::test_it[::1]", seconds=2.0)
    after = page([again], before)
    assert "2 changes: 1 noticed, 1 survived." in after
    assert "| `two` in `f.py` | `test_it[::1]` | 2 s |" in after
    assert [line for line in after.splitlines() if "`one`" in line] == [line for line in before.splitlines() if "`one`" in line]
    assert page([again], after) == after
    assert page([again], after, gone=[first.name]) == page([again])
