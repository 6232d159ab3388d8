"""The torture's checker notices made-up histories in which data or money is lost, and passes the one in which nothing is."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from tests.torture.checker import PROMISES, check
from tests.torture.checker.record import Record, load
from tests.unit.torture.histories import ENDS, HISTORIES, LIVED, RECLAIMED, RECOVERED, SAME, SHOWN, STOPPED, History
from tests.unit.torture.made_up import NOW, legs, line, whole


def broken(record: Record) -> set[str]:
    return {found.promise for found in check(record) if found.faults}


def faults(record: Record, promise: str) -> list[str]:
    [found] = [found.faults for found in check(record) if found.promise == promise]
    return found


def test_a_run_in_which_nothing_is_lost_is_passed():
    assert broken(whole()) == set()


@pytest.mark.parametrize("history", HISTORIES, ids=[f"{it.promise}: {it.name}" for it in HISTORIES])
def test_a_history_in_which_something_is_lost_breaks_its_promise_and_no_other(history: History):
    assert broken(history.of(whole())) == {history.promise} | history.also


def test_each_promise_has_a_history_in_which_it_alone_is_broken():
    assert {history.promise for history in HISTORIES if not history.also} == set(PROMISES)


def test_a_record_is_checked_again_from_its_file(tmp_path):
    file = tmp_path / "record.json"
    file.write_text(json.dumps(asdict(whole())))
    assert check(load(file)) == check(whole())


def test_a_death_is_shown_with_its_code_and_its_last_lines():
    record = replace(whole(), deaths=[{"at": NOW, "process": "worker-1", "code": -11, "said": ["the last line"]}])
    [fault] = faults(record, LIVED)
    assert "worker-1 ended unasked with signal SIGSEGV" in fault
    assert "the last line" in fault


def test_a_round_whose_end_the_client_did_not_see_has_no_wrong_price():
    record = whole()
    told = next(each for each in record.client if each["what"] == "ended")
    told.update(credits=11, processed=1)
    first = legs("told", reserve=12, charge=11)
    second = [{**leg, "round": 2} for leg in legs("told", reserve=1, charge=1)]
    record.rows["ledger"] = [*first, *second, *(leg for leg in record.rows["ledger"] if leg["job"] != "id-told")]
    assert SHOWN in broken(record)
    record.client.append(line("retried", "told", id="id-told", status=202))
    assert SHOWN not in broken(record)


def test_calls_that_the_model_rejected_do_not_count():
    rejected = [{"at": NOW, "numbers": [1], "outcome": "http 429"}] * 100
    assert broken(replace(whole(), calls=[*whole().calls, *rejected])) == set()


def test_a_cancelled_job_need_not_be_as_without_faults():
    record = whole()
    record.seen["gone"] = {"results": [], "errors": [[0, "cancelled"], [1, "cancelled"]]}
    assert broken(record) == set()


def test_a_job_that_was_deleted_while_it_ran_needs_no_end():
    record = whole()
    record.jobs["erased"]["delete"] = "running"
    del record.seen["erased"]
    assert ENDS not in broken(record)


def test_the_time_in_which_no_supervisor_could_reclaim_a_step_does_not_count():
    record = whole()
    record.reclaims[0]["seconds"] = 60.0
    away = {"kind": "away supervisor", "at": NOW - 1, "ended": NOW + 40, "what": "supervisor-1", "hits": 1}
    assert broken(record) != set()
    record.reclaims[0]["since"] = NOW - 50
    record.faults.insert(0, {**away, "at": NOW - 51, "ended": NOW - 15})
    assert broken(record) == set()


def test_the_time_in_which_a_paused_process_held_the_lock_of_sqlite_does_not_count():
    record = whole()
    record.reclaims[0] |= {"since": NOW - 50, "seconds": 30.0}
    record.stops[0] |= {"at": NOW - 50, "seconds": 30.0}
    assert broken(record) == {RECLAIMED, STOPPED}
    record.locked.append((NOW - 48, NOW - 29))
    assert broken(record) == set()


def test_the_time_that_the_images_left_take_without_faults_does_not_count():
    """Here 200 images take 100 s."""
    record = whole()
    record.rows["jobs"][0]["finished_at"] = record.rows["jobs"][1]["finished_at"] = (NOW + 68) * 1000
    record.rows["jobs"][3]["finished_at"] = (NOW + 139) * 1000
    record.pace["left"] = 100
    assert broken(record) == set()
    record.pace["left"] = 97
    assert len(faults(record, RECOVERED)) == 1
    record.pace["left"] = 95
    assert len(faults(record, RECOVERED)) == 2


def test_an_image_whose_caller_waited_while_the_model_was_away_may_fail_for_that():
    record = whole()
    body = {"results": [], "errors": [[0, "model_unavailable"], [1, "safety_blocked"]]}
    record.seen["held"] = body
    answered = next(each for each in record.client if each["what"] == "answered")
    answered.update(body=body, processed=0)
    assert SAME in broken(record)
    record.faults.append({"kind": "outage model", "at": NOW - 30, "ended": NOW, "what": "model", "hits": 1})
    assert SAME not in broken(record)
