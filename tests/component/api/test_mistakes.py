"""Natural mistakes are answered with what is wrong, where, and how to mend it, as docs/reference/mistakes.md has them."""

from __future__ import annotations

import pytest

from tests.component.api.mistakes import MISTAKES, answer_to, prepared
from tests.docs.markdown import tables_with
from tests.harness import running

PAGE = "docs/reference/mistakes.md"
ANSWERS = {found["mistake"]: found for found in tables_with(PAGE, "mistake", "status", "answer")}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running(tmp_path_factory.mktemp("mistakes"), workers_count=0) as started:
        yield started, prepared(started)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_as_the_reference_says(house, name):
    status, text = answer_to(house[0], MISTAKES[name], house[1])
    assert (str(status), text) == (ANSWERS[name]["status"], ANSWERS[name]["answer"])


def test_the_reference_has_no_mistake_that_is_not_tried():
    assert list(ANSWERS) == list(MISTAKES)
