from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.records.apart import TOO_LONG, Checkers
from pipeline.records.validate import compile_schema

MB = 1 << 20
MANY: dict[str, Any] = {"items": {"anyOf": [{"type": "null"}] * 1900}}
ENDLESS: dict[str, Any] = {"properties": {"a": {}}}
for _ in range(28):
    ENDLESS = {"unevaluatedProperties": {"type": "null"}, "anyOf": [ENDLESS, True]}
RECORD = {f"k{i}": None for i in range(30)}


@contextmanager
def checkers(**options: Any) -> Iterator[Checkers]:
    made = Checkers(**options)
    try:
        yield made
    finally:
        made.close()


def test_a_schema_of_many_branches_is_checked_in_little_memory_and_the_fault_is_named():
    with checkers(memory=400 * MB) as children:  # errors for each branch of each value took 6 GB
        assert children.check(MANY, list(range(2000))).startswith("/0: 0 is not valid under any")
        assert children.check(MANY, [None] * 2000) == ""


def test_a_check_that_takes_too_long_is_ended_and_the_next_one_is_made():
    with checkers(seconds=3.0) as children:
        assert children.check(ENDLESS, RECORD) == TOO_LONG
        assert children.check(MANY, [1]).startswith("/0")


def test_while_a_hostile_record_is_checked_others_are_checked_as_if_it_were_not_there():
    usual = compile_schema({"properties": {"total": {"type": "number"}}, "required": ["total"]})
    said: list[str] = []
    with checkers(seconds=3.0) as children:
        hostile = threading.Thread(target=lambda: said.append(children.check(ENDLESS, RECORD)))
        hostile.start()
        checked = sum(usual({"total": index}) == "" for index in range(500))
        assert (checked, said) == (500, [])  # the thread of the hostile check has not ended, and has held nobody up
        hostile.join()
    assert said == [TOO_LONG]
