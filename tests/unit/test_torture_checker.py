"""The torture's checker notices made-up histories in which data or money is lost, and passes the one in which nothing is."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
from dataclasses import asdict, replace

import pytest

from tests.torture.checker import check
from tests.torture.checker.record import Record
from tests.torture.planned_jobs import Job

NOW = 1_790_000_000.0
SECRET = "whsec_" + base64.b64encode(b"a secret of the account").decode()


def job(name: str, *numbers: int, **manner: object) -> dict[str, object]:
    made = Job(name=name, account=0, at=0.0, numbers=numbers, form="records", **manner)  # type: ignore[arg-type]
    return {**asdict(made), "missing": sorted(made.missing)}


def event(job_id: str, event_id: str) -> dict[str, object]:
    body = json.dumps({"type": "job.succeeded", "data": {"id": job_id}})
    signed = hmac.new(b"a secret of the account", f"{event_id}.{NOW:.0f}.{body}".encode(), hashlib.sha256).digest()
    headers = {
        "webhook-id": event_id,
        "webhook-timestamp": f"{NOW:.0f}",
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }
    return {"at": NOW, "answered": "204", "mode": "up", "headers": headers, "body": body}


def line(what: str, name: str, **more: object) -> dict[str, object]:
    return {"at": NOW, "job": name, "what": what, "try": 0, **more}


def whole() -> Record:
    """A run of two jobs in which everything was right: `told` has a webhook, and for `held` a caller waited without a key."""
    seen = {
        "told": {"results": [[0, 1], [1, 2]], "errors": []},
        "held": {"results": [[0, 3]], "errors": [[1, "safety_blocked"]]},
    }

    def row(id_: str, name: str, status: str, done: int) -> dict[str, object]:
        times = {"created_at": (NOW - 9) * 1000, "finished_at": (NOW - 5) * 1000}
        named = {"phase": "run", "name": name, "try": 0, "account": "acc"}
        return {"id": id_, "round": 1, "status": status, "total": 2, "credits": 10 + done, "done": done, **times, **named}

    def legs(id_: str, charge: int) -> list[dict[str, object]]:
        amounts = {"reserve": 12, "charge": charge, "release": 12 - charge}
        return [{"account": "acc", "job": id_, "round": 1, "kind": kind, "amount": amount} for kind, amount in amounts.items()]

    ended = {"round": 1, "hits": 0, "counts": {}}
    delivery = {"id": "evt_1", "job": "job_1", "round": 1, "account": "acc", "state": "delivered", "event": "job.succeeded"}
    grant = {"account": "acc", "job": None, "round": None, "kind": "grant", "amount": 1000}
    has = {"available": 977, "held": 0, "charged": 23}
    return Record(
        jobs={"told": job("told", 1, 2, webhook=True), "held": job("held", 3, 4, waits=True, keyed=False)},
        blocked=[4],
        poison={},
        granted={"acc": 1000},
        base_client=[],
        baseline=copy.deepcopy(seen),
        baseline_calls=[{"at": 1.0, "numbers": [1, 2], "outcome": "complete"}],
        client=[
            line("accepted", "told", id="job_1"),
            line("ended", "told", id="job_1", status="succeeded", credits=12, processed=2, **ended),
            line("answered", "held", credits=11, processed=1, status="", body=copy.deepcopy(seen["held"])),
            line("accepted", "held", id="job_2"),
            line("ended", "held", id="job_2", status="partial", credits=11, processed=1, **ended),
        ],
        seen=seen,
        shown_balances={"acc": dict(has)},
        rows={
            "jobs": [row("job_1", "told", "succeeded", 2), row("job_2", "held", "partial", 1)],
            "ledger": [grant, *legs("job_1", 12), *legs("job_2", 11)],
            "accounts": [{"id": "acc", **has}],
            "deliveries": [delivery],
            "steps": [],
        },
        calls=[{"at": 2.0, "numbers": [1, 2], "outcome": "complete"}],
        received=[event("job_1", "evt_1")],
        secrets={"acc": [SECRET]},
        scratch={"after": 0.0, "ended": 0, "unknown": 0, "owners": 0, "left": []},
        planned={"kill worker": 1},
        faults=[{"kind": "kill worker", "at": NOW - 8, "ended": NOW - 8, "what": "worker-1", "hits": 1}],
        reclaims=[],
        stops=[],
        deaths=[],
        attacks={},
        clocks=1,
    )


def broken(record: Record) -> set[str]:
    return {found.promise for found in check(record) if found.faults}


def test_a_run_in_which_nothing_is_lost_is_passed():
    assert broken(whole()) == set()


def no_record_in_both_runs(record: Record) -> None:
    for seen in (record.baseline, record.seen):
        seen["told"]["results"].pop()


def a_charge_that_was_not_shown(record: Record) -> None:
    record.client[1]["credits"] = 11
    record.client[1]["processed"] = 1


def another_job_s_body(record: Record) -> None:
    record.client[2]["body"] = {"results": [[0, 1]], "errors": [[1, "safety_blocked"]]}


def credits_that_nobody_granted(record: Record) -> None:
    record.rows["ledger"].append({"account": "acc", "job": None, "round": None, "kind": "grant", "amount": 50})
    record.rows["accounts"][0]["available"] += 50
    record.shown_balances["acc"]["available"] += 50


def an_event_of_no_job(record: Record) -> None:
    record.received.append(event("job_9", "evt_9"))


def an_event_that_was_not_asked_for(record: Record) -> None:
    record.rows["deliveries"].append({**record.rows["deliveries"][0], "id": "evt_2", "job": "job_2", "event": "job.partial"})
    record.received.append(event("job_2", "evt_2"))


def a_job_of_which_the_client_has_no_results(record: Record) -> None:
    del record.seen["told"]


def a_refused_request_that_became_a_job(record: Record) -> None:
    record.client.append(line("refused", "held", status=503, code="unavailable"))


def a_charge_of_an_unknown_job(record: Record) -> None:
    record.rows["ledger"] += [
        {"account": "acc", "job": "job_9", "round": 1, "kind": kind, "amount": amount}
        for kind, amount in (("reserve", 12), ("charge", 12), ("release", 0))
    ]
    record.rows["accounts"][0].update(available=965, charged=35)
    record.shown_balances["acc"].update(available=965, charged=35)


def a_balance_that_is_not_the_account_s(record: Record) -> None:
    record.shown_balances["acc"]["available"] -= 1


def a_process_that_died(record: Record) -> None:
    record.deaths.append({"at": NOW, "process": "worker-1", "code": -11, "said": ["Segmentation fault"]})


def a_planned_fault_that_never_happened(record: Record) -> None:
    record.faults[0]["hits"] = 0


def an_object_that_the_sweep_leaves(record: Record) -> None:
    record.scratch["left"].append("job_1/0-1")


HISTORIES = {
    no_record_in_both_runs: "without faults everything is as planned",
    a_charge_that_was_not_shown: "what is charged is what was shown",
    another_job_s_body: "a caller that waits gets its own job's results",
    credits_that_nobody_granted: "money is conserved, and only what was granted is there",
    an_event_of_no_job: "every event that was asked for arrives, signed, and no other",
    an_event_that_was_not_asked_for: "every event that was asked for arrives, signed, and no other",
    a_job_of_which_the_client_has_no_results: "every accepted job ends",
    a_refused_request_that_became_a_job: "what is refused is not made",
    a_charge_of_an_unknown_job: "one charge and one release a round, of what was processed",
    a_balance_that_is_not_the_account_s: "money is conserved, and only what was granted is there",
    a_process_that_died: "no process dies by itself",
    a_planned_fault_that_never_happened: "every planned kind of fault happened",
    an_object_that_the_sweep_leaves: "scratch holds only what the sweep deletes",
}


@pytest.mark.parametrize(("history", "promise"), HISTORIES.items(), ids=[each.__name__ for each in HISTORIES])
def test_a_history_in_which_something_is_lost_breaks_its_promise(history, promise):
    record = copy.deepcopy(whole())
    history(record)
    assert promise in broken(record)


def test_a_death_is_shown_with_its_code_and_its_last_lines():
    record = replace(whole(), deaths=[{"at": NOW, "process": "worker-1", "code": -11, "said": ["the last line"]}])
    [faults] = [found.faults for found in check(record) if found.promise == "no process dies by itself"]
    assert "worker-1 ended unasked with signal SIGSEGV" in faults[0]
    assert "the last line" in faults[0]


def test_a_round_whose_end_the_client_did_not_see_has_no_wrong_price():
    record = copy.deepcopy(whole())
    record.client[1].update(credits=11, processed=1)
    record.rows["ledger"] = [
        {**leg, "amount": {"reserve": 12, "charge": 11, "release": 1}[leg["kind"]]} if leg["job"] == "job_1" else leg
        for leg in record.rows["ledger"]
    ]
    record.rows["ledger"] += [
        {"account": "acc", "job": "job_1", "round": 2, "kind": kind, "amount": amount}
        for kind, amount in (("reserve", 1), ("charge", 1), ("release", 0))
    ]
    promise = "what is charged is what was shown"
    assert promise in broken(record)
    record.client.append(line("retried", "told", id="job_1", status=202))
    assert promise not in broken(record)
