"""`maxMoney`: refused at the door if the estimate is higher; afterwards no call is made that the money may not suffice for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import update

from pipeline.models import CallPrice, Model
from pipeline.ports import ModelFault, MoneySpent
from pipeline.types import Answer, Finish
from storage import schema
from storage.job import accepting, money
from tests.fakes.engine import FakeEngine, answer_text
from tests.harness import CREDITS
from tests.rows import claimed, job_of, job_row, new_account, step_ids, stolen
from workers.run import run_step

JOBS = "/api/v1/jobs"
#: One picture is expected to have 300 tokens of output, so a call of one picture is expected to cost 0.30 dollars, and at most 8.192.
PRICED = Model(name="fake-1", price_out=1000)
DOLLAR = 1_000_000_000


def paid(dollars):
    """A script of answers that cost so much each."""

    def script(call, _number):
        return Answer(finish=Finish.COMPLETE, text=answer_text(call), nanodollars=round(dollars * DOLLAR))

    return script


@pytest.fixture
def make_house(make_harness):
    def make(script=None, **settings):
        house = make_harness(engine=FakeEngine(script=script or paid(0.3)), workers_count=0, IMAGES_PER_CALL="1", **settings)
        house.models["fake-1"] = PRICED
        return house

    return make


def post(house, images, max_money, **fields):
    body = {"inputMethod": "url", "images": house.urls(images), "prompt": "p", "granularity": "perImage", "maxMoney": max_money}
    return house.ask("POST", JOBS, json={**body, **fields})


def finished(house, job):
    """Runs the job to its end, without the waits between."""
    while not house.get(f"{JOBS}/{job}").json["finishedAt"]:
        house.skip_waits()
        house.drain()
    return house.get(f"{JOBS}/{job}").json


def test_a_request_whose_estimate_is_over_max_money_is_refused(make_house):
    house = make_house()
    refused = post(house, 3, 0.89)
    assert (refused.status_code, refused.json["code"]) == (402, "max_money_too_low")
    assert "$0.900000" in refused.json["error"]
    assert house.count_rows("jobs") == 0
    job = post(house, 3, 0.9).json["id"]
    shown = finished(house, job)
    assert (shown["status"], shown["usage"]["money"]) == ("succeeded", 0.9)


@pytest.mark.parametrize("value", [0, -1, "a", True, 1_000_001, [1]])
def test_max_money_is_a_number_over_0(make_house, value):
    refused = post(make_house(), 1, value)
    assert (refused.status_code, refused.json["code"]) == (400, "invalid_max_money")


def test_when_the_calls_reach_max_money_the_images_that_are_left_fail_and_say_why(make_house):
    house = make_house(paid(0.6))
    shown = finished(house, post(house, 4, 1.2).json["id"])
    assert (shown["status"], shown["usage"]["money"], shown["counts"]["failed"]) == ("partial", 1.2, 2)
    [first, second] = house.get(f"{JOBS}/{shown['id']}/items?status=failed").json["items"]
    assert first["code"] == second["code"] == "money_limit_reached"
    assert first["message"] == "$0.000000 of maxMoney are left, and this call may cost $0.300000."
    assert house.balance() == (CREDITS - 12, 0, 12)
    assert "extract_image_money_limited_total" in house.client.get("/metrics").text


def test_further_rounds_spend_what_is_left_of_the_same_money(make_house):
    house = make_house(paid(0.6))
    job = finished(house, post(house, 4, 1.2).json["id"])["id"]
    house.ask("POST", f"{JOBS}/{job}/retry")
    assert finished(house, job)["usage"]["money"] == 1.2


def test_the_usage_of_a_day_has_the_money_of_each_round_once_and_outlives_the_job(make_house):
    house = make_house(paid(0.6))
    job = finished(house, post(house, 4, 1.8).json["id"])["id"]
    assert house.get("/api/v1/usage").json["days"][0]["money"] == 1.8
    house.ask("POST", f"{JOBS}/{job}/retry")
    finished(house, job)
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204
    [day] = house.get("/api/v1/usage").json["days"]
    assert (day["jobs"], day["money"]) == (1, 1.8)


@pytest.mark.parametrize(("max_money", "at_once"), [(1.0, 1), (20, 2)])
def test_calls_are_in_flight_together_only_if_their_highest_prices_fit(make_house, max_money, at_once):
    began, go_on = threading.Event(), threading.Event()

    def script(call, number):
        if number == 1:
            began.set()
            assert go_on.wait(30)
        return paid(0.9)(call, number)

    house = make_house(script)
    job = post(house, 3, max_money).json["id"]
    first, second, _ = step_ids(house.database, job)
    busy = threading.Thread(target=run_step, args=(house.work, first))
    busy.start()
    assert began.wait(30)
    run_step(house.work, second)
    assert len(house.engine.calls) == at_once
    go_on.set()
    busy.join()
    shown = finished(house, job)
    assert shown["usage"]["money"] == (0.9 if max_money == 1.0 else 2.7)


def test_fallback_models_that_the_money_does_not_suffice_for_are_left_out(make_house):
    house = make_house()
    house.models["fake-2"] = replace(PRICED, name="fake-2", price_out=5000)
    house.models["fake-3"] = replace(PRICED, name="fake-3", price_out=500)
    finished(house, post(house, 1, 1, fallbackModels=["fake-2", "fake-3"]).json["id"])
    assert [(call.model, call.fallback_models) for call in house.engine.calls] == [("fake-1", ("fake-3",))]


def test_a_call_that_failed_holds_nothing(make_house):
    house = make_house(lambda call, number: ModelFault("500") if number == 1 else paid(0.3)(call, number))
    assert finished(house, post(house, 1, 0.3).json["id"])["status"] == "succeeded"


def test_a_model_without_a_price_is_never_limited_and_the_job_and_the_estimate_say_so(make_house):
    house = make_house(paid(0))
    house.models["fake-1"] = Model(name="fake-1")
    answer = post(house, 3, 0.000001)
    assert any("maxMoney" in warning for warning in answer.json["warnings"])
    assert finished(house, answer.json["id"])["status"] == "succeeded"
    body = {"inputMethod": "url", "images": house.urls(1), "prompt": "p", "maxMoney": 1}
    reckoned = house.ask("POST", "/api/v1/extract-image/estimate", json=body).json
    assert reckoned["money"] == 0
    assert "maxMoney" in reckoned["warnings"][0]


def test_answers_that_the_money_does_not_suffice_to_merge_stay_separate(make_house):
    house = make_house(paid(5), MERGED_PER_CALL="1")
    job = post(house, 2, 10, granularity="merged", merge="synthesize").json["id"]
    shown = finished(house, job)
    assert (shown["status"], shown["usage"]["modelCalls"]) == ("succeeded", 2)
    assert "Image 1\n1=img0" in house.get(f"{JOBS}/{job}/results").json["results"]


def test_a_worker_that_died_holds_nothing_once_its_lease_is_over(make_house):
    house = make_house()
    job = post(house, 2, 1).json["id"]
    first, second = (claimed(house.database, step) for step in step_ids(house.database, job))
    price = {"fake-1": CallPrice(expected=DOLLAR // 2, highest=DOLLAR)}
    with house.database.write() as connection:
        assert money.hold(connection, first, price) == ["fake-1"]
    with house.database.write() as connection, pytest.raises(money.MoneyHeld):
        money.hold(connection, second, price)
    stolen(house.database, first)
    with house.database.write() as connection:
        assert money.hold(connection, second, price) == ["fake-1"]
        connection.execute(update(schema.jobs_table).values(spent_money=DOLLAR))
        with pytest.raises(MoneySpent):
            money.hold(connection, second, price)
    assert job_row(house.database, job).max_money == DOLLAR
    house.ask("DELETE", f"{JOBS}/{job}")


def test_of_workers_that_ask_at_the_same_moment_only_as_many_hold_money_as_there_is(database):
    account = new_account(database)
    new = replace(job_of(account, images=6), max_money=DOLLAR)
    with database.write() as connection:
        accepting.accept(connection, new, max_open=9, max_scratch=1)
    leases = [claimed(database, step) for step in step_ids(database, new.id)]
    price = {"fake-1": CallPrice(expected=DOLLAR // 4, highest=DOLLAR // 2)}
    start = threading.Barrier(len(leases))

    def held(lease):
        start.wait(30)
        try:
            with database.write() as connection:
                return money.hold(connection, lease, price) == ["fake-1"]
        except money.MoneyHeld:
            return False

    with ThreadPoolExecutor(len(leases)) as threads:
        assert sum(threads.map(held, leases)) == 2
    with database.write() as connection:
        money.spend(connection, leases[0], DOLLAR // 2)
    assert job_row(database, new.id).spent_money == DOLLAR // 2
