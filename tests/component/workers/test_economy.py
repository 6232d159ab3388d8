"""Economy jobs from the request to the bill: which calls are asked in which tier, and what is told of them."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, update

from pipeline.models import Model
from pipeline.ports import Cause, ModelUnavailable
from pipeline.types import Answer, Call, Finish, Tier
from storage import schema
from storage.database import now_ms
from storage.queue import steps
from tests.fakes.engine import FakeEngine, answer_text
from tests.harness import Harness, running
from workers.economy import hurry_overdue
from workers.run import run_step

INPUT, OUTPUT = 1000, 100  # tokens of each call
FULL = INPUT * 1.0 / 1e6 + OUTPUT * 10.0 / 1e6  # dollars of each call at the standard price
TODAY = datetime.now(UTC).date()
MODEL = Model(name="fake-1", price_in=1.0, price_out=10.0, flex=0.5)


class FlexEngine(FakeEngine):
    """Answers in the tier that a call asks for, unless it is told otherwise."""

    def __init__(self) -> None:
        super().__init__(script=self._answer)
        self.sheds = 0  #: economy calls that are shed from now on
        self.serves = Tier.ECONOMY  #: how economy calls are served

    def _answer(self, call: Call, _number: int) -> Answer | Exception:
        if call.tier is Tier.ECONOMY and self.sheds:
            self.sheds -= 1
            return ModelUnavailable("no capacity", retry_after=15, cause=Cause.SHED)
        tier = self.serves if call.tier is Tier.ECONOMY else Tier.STANDARD
        price = MODEL.price(input_tokens=INPUT, output_tokens=OUTPUT, day=TODAY, tier=tier)
        return Answer(
            finish=Finish.COMPLETE,
            text=answer_text(call),
            input_tokens=INPUT,
            output_tokens=OUTPUT,
            tier=tier,
            nanodollars=price,
            model_version="fake-1.0",
        )

    @property
    def tiers(self) -> list[Tier]:
        return [call.tier for call in self.calls]


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, engine=FlexEngine(), workers_count=0, IMAGES_PER_CALL="2", MERGED_PER_CALL="2") as made:
        made.models["fake-1"] = MODEL
        yield made


def body(house: Harness, images: int = 4, **fields: Any) -> dict[str, Any]:
    asked = {"inputMethod": "url", "images": house.urls(images), "prompt": "p", "granularity": "perImage", "tier": "economy"}
    return {**asked, **fields}


def accepted(house: Harness, images: int = 4, **fields: Any) -> str:
    answer = house.post(body(house, images, **fields), headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.json
    return str(answer.json["id"])


def job(house: Harness, name: str) -> Any:
    return house.get(f"/api/v1/jobs/{name}").json


def items(house: Harness, name: str) -> Any:
    return house.get(f"/api/v1/jobs/{name}/items").json["items"]


def leave(house: Harness, seconds: float) -> None:
    """Leaves the jobs so much time until their deadlines."""
    with house.database.write() as connection:
        connection.execute(update(schema.jobs_table).values(deadline_at=now_ms() + int(seconds * 1000)))


def test_the_calls_of_an_economy_job_are_asked_in_economy_and_paid_by_how_they_were_served(house):
    name = accepted(house)
    house.drain()
    made = job(house, name)
    assert (made["status"], made["tier"]) == ("succeeded", "economy")
    assert house.engine.tiers == [Tier.ECONOMY] * 2
    assert made["usage"]["money"] == pytest.approx(FULL)
    assert made["usage"]["moneyByTier"] == {"standard": 0, "economy": pytest.approx(FULL)}
    assert {item["tier"] for item in items(house, name)} == {"economy"}
    [day] = house.get("/api/v1/usage").json["days"]
    assert day["moneyByTier"] == {"standard": 0, "economy": pytest.approx(FULL)}


def test_a_call_that_was_served_as_standard_is_paid_as_standard(house):
    house.engine.serves = Tier.STANDARD
    name = accepted(house)
    house.drain()
    made = job(house, name)
    assert made["usage"]["moneyByTier"] == {"standard": pytest.approx(2 * FULL), "economy": 0}
    assert {item["tier"] for item in items(house, name)} == {"standard"}


def test_a_standard_job_asks_no_call_in_economy(house):
    name = accepted(house, tier="standard")
    house.drain()
    assert house.engine.tiers == [Tier.STANDARD] * 2
    assert job(house, name)["usage"]["moneyByTier"] == {"standard": pytest.approx(2 * FULL), "economy": 0}


def test_a_call_that_is_shed_is_no_failure_and_is_made_again(house):
    house.engine.sheds = 5
    name = accepted(house)
    for _ in range(6):
        house.drain()
        house.skip_waits()
    house.drain()
    assert job(house, name)["status"] == "succeeded"
    assert house.engine.tiers == [Tier.ECONOMY] * 7
    with house.database.read() as connection:
        assert set(connection.scalars(select(schema.steps_table.c.tries))) == {0}


def test_near_the_deadline_the_calls_are_asked_at_the_standard_price(house):
    house.engine.sheds = math.inf
    name = accepted(house)
    house.drain()
    assert set(house.engine.tiers) == {Tier.ECONOMY}
    leave(house, 400)
    house.skip_waits()
    house.drain()
    made = job(house, name)
    assert (made["status"], house.engine.tiers[-2:]) == ("succeeded", [Tier.STANDARD] * 2)
    assert {item["tier"] for item in items(house, name)} == {"standard"}


def test_a_step_that_waits_for_capacity_is_hurried_when_its_last_moment_comes(house):
    house.engine.sheds = math.inf
    name = accepted(house)
    house.drain()
    hurry_overdue(house.work)
    house.drain()
    assert job(house, name)["status"] == "running", "its last moment has not come"
    leave(house, 200)
    hurry_overdue(house.work)
    house.drain()
    assert job(house, name)["status"] == "succeeded"


def test_images_are_fetched_ahead_of_slow_calls_until_there_is_no_time_for_that(house):
    name = accepted(house)

    def priorities():
        columns = schema.steps_table.c
        with house.database.read() as connection:
            return set(connection.scalars(select(columns.priority).where(columns.kind == "stage", columns.job == name)))

    assert priorities() == {steps.AHEAD}
    leave(house, 200)
    hurry_overdue(house.work)
    assert priorities() == {steps.USUAL}
    house.drain()
    assert job(house, name)["status"] == "succeeded"


def test_the_last_chunks_of_a_job_are_hurried_last(house):
    house.models["fake-1"] = Model(name="fake-1", price_in=1.0, price_out=10.0, flex=0.5, rpm=2)
    house.engine.sheds = math.inf
    name = accepted(house)
    house.drain()
    # Half of two requests a minute, one and a half of them for a call: 90 s for each call, and 270 s at the end.
    leave(house, 270 + 2 * 90 - 10)
    hurry_overdue(house.work)
    with house.database.read() as connection:
        columns = schema.steps_table.c
        rows = connection.execute(select(columns.part, columns.priority).where(columns.kind == "extract", columns.job == name))
        assert sorted(map(tuple, rows)) == [(0, 1), (1, 2)]
    house.make_overdue()
    house.supervisor.tick()


def test_where_max_money_does_not_suffice_for_the_standard_price_images_fail_with_deadline_exceeded(house):
    reckoned = house.ask("POST", "/api/v1/extract-image/estimate", json=body(house)).json
    house.engine.sheds = math.inf
    name = accepted(house, maxMoney=reckoned["moneyByTier"]["economy"])
    house.drain()
    leave(house, 400)
    house.skip_waits()
    house.drain()
    made = job(house, name)
    failed = [item for item in items(house, name) if item["status"] == "failed"]
    assert failed
    assert {item["code"] for item in failed} == {"deadline_exceeded"}
    assert "maxMoney" in failed[0]["message"]
    assert made["usage"]["money"] <= reckoned["moneyByTier"]["economy"]


def test_an_estimate_says_what_each_tier_costs(house):
    standard = house.ask("POST", "/api/v1/extract-image/estimate", json=body(house, tier="standard")).json
    economy = house.ask("POST", "/api/v1/extract-image/estimate", json=body(house)).json
    assert economy["moneyByTier"] == standard["moneyByTier"] == {"standard": standard["money"], "economy": economy["money"]}
    assert economy["money"] == pytest.approx(standard["money"] / 2)


def test_a_model_without_the_tier_is_refused_and_another_is_named(house):
    answer = house.post(body(house, model="fake-2"))
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "invalid_tier")
    assert answer.json["error"].startswith('tier can\'t be "economy" for fake-2')
    assert "fake-1" in answer.json["error"]


@pytest.mark.parametrize(
    ("tier", "seconds", "status"), [("standard", 43_201, 400), ("economy", 86_400, 202), ("economy", 86_401, 400)]
)
def test_an_economy_job_may_take_a_day(house, tier, seconds, status):
    answer = house.post(body(house, tier=tier, deadlineSeconds=seconds), headers={"Prefer": "respond-async"})
    assert answer.status_code == status
    if status == 400:
        assert answer.headers["X-Error-Code"] == "invalid_deadline_seconds"


@pytest.mark.parametrize(("tier", "seconds"), [("standard", 3600), ("economy", 14_400)])
def test_without_a_deadline_an_economy_job_has_four_hours(house, tier, seconds):
    request = house.get(f"/api/v1/jobs/{accepted(house, tier=tier)}/request").json
    assert (request["tier"], request["deadlineSeconds"]) == (tier, seconds)


def test_a_deadline_that_leaves_no_time_for_economy_is_named_in_the_warnings(house):
    name = accepted(house, deadlineSeconds=300)
    house.drain()
    assert any("leaves no time for the tier economy" in text for text in job(house, name)["warnings"])
    assert house.engine.tiers == [Tier.STANDARD] * 2


def test_the_lease_of_a_slow_call_is_no_work_that_the_end_of_the_process_waits_for(tmp_path):
    inside, go_on = threading.Event(), threading.Event()
    engine = FlexEngine()
    with running(tmp_path, engine=engine, workers_count=0) as house:
        house.models["fake-1"] = MODEL
        ask = engine.ask

        def slow(call: Call) -> Answer:
            inside.set()
            go_on.wait(10)
            return ask(call)

        engine.ask = slow
        accepted(house, images=1)
        house.supervisor.ring()
        run_step(house.work, house.signals.rung.get())
        house.supervisor.ring()
        thread = threading.Thread(target=run_step, args=(house.work, house.signals.rung.get()))
        thread.start()
        assert inside.wait(10)
        assert len(house.leases.held()) == 1
        assert house.leases.wait_until_free(0)
        go_on.set()
        thread.join()
