"""A crash at any line, then a rerun, gives the same end state.

The worker's parts are wrapped so that the n-th call of any of them kills it: before its effect in one run, after it in
another, for every n until a run is through without. What follows a crash is what follows a real one: the process's
messages and leases are lost, and the supervisor brings the steps back.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import update

from api.app import create_app
from pipeline.models import Model
from pipeline.types import Answer, Finish, ItemCode, Tier
from storage import schema
from tests.fakes.crashing import Crash, Crashing, Wrapped, WrappedDatabase, WrappedScratch, crashing_parts
from tests.fakes.engine import FakeEngine, answer_text
from tests.harness import CREDITS, Harness, b64, running
from tests.rows import end_state, everything, quick_folder
from workers.economy import LastMoment
from workers.run import run_step
from workers.supervisor import UNKNOWN_SECONDS, Supervisor
from workers.wiring import WorkerParts

MOST_CALLS = 400  # a run has about 40: whoever counts this far goes round in circles


@dataclass(frozen=True)
class Scenario:
    """A job that takes many turns."""

    body: Callable[[Harness], dict[str, Any]]
    script: Callable[[Any, int], Answer | Exception | None] = lambda _call, _number: None
    settings: tuple[tuple[str, str], ...] = (("MERGED_PER_CALL", "2"), ("IMAGES_PER_CALL", "2"))
    flex: float = 0.0  #: the price of the model in the tier economy
    waited: bool = False  #: a caller holds a connection for the job


def refuse_img1(call: Any, _number: int) -> Answer | None:
    """A call that shows img1 is refused: the chunk is bisected, and each outcome committed as it comes."""
    if any(picture.data == b"img1" for picture in call.pictures):
        return Answer(
            finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY", input_tokens=3, model_version="fake-1.0"
        )
    return None


def miss_img0_in_economy(call: Any, _number: int) -> Answer | Exception | None:
    """A slow call that shows img0 gets no answer until its last moment. Others are served as they were asked."""
    if call.tier is Tier.ECONOMY and any(picture.data == b"img0" for picture in call.pictures):
        return LastMoment()
    served = {"tier": call.tier, "nanodollars": 1_000_000 if call.tier is Tier.ECONOMY else 2_000_000}
    return Answer(finish=Finish.COMPLETE, text=answer_text(call), model_version="fake-1.0", **served)


SCENARIOS = {
    "two chunks of URLs, one of which fails": Scenario(
        lambda house: {"inputMethod": "url", "images": [*house.urls(2), "https://gone.example/"], "prompt": "p"}
    ),
    "base64 and records, one image refused by the model": Scenario(
        lambda _house: {
            "inputMethod": "base64",
            "images": [b64(b"img0"), b64(b"img1"), b64(b"img2")],
            "prompt": "p",
            "granularity": "perImage",
            "webhookUrl": "https://hooks.example/extract",
        },
        script=refuse_img1,
        settings=(("IMAGES_PER_CALL", "3"),),
    ),
    "a text merged of what is left of a chunk, one image refused by the model": Scenario(
        lambda house: {"inputMethod": "url", "images": house.urls(4), "prompt": "p"},
        script=refuse_img1,
        settings=(("MERGED_PER_CALL", "3"),),
    ),
    "three answers that the model makes one": Scenario(
        lambda house: {"inputMethod": "url", "images": house.urls(3), "prompt": "p", "merge": "synthesize"},
        settings=(("MERGED_PER_CALL", "1"),),
    ),
    "records that are known, and kept": Scenario(
        lambda house: {"inputMethod": "url", "images": house.urls(3), "prompt": "p", "schema": {"type": "object"}, "cache": True},
        settings=(("IMAGES_PER_CALL", "2"), ("CACHE_TTL", "60")),
    ),
    "two chunks in the tier economy, one of which is hurried": Scenario(
        lambda house: {
            "inputMethod": "url",
            "images": house.urls(4),
            "prompt": "p",
            "granularity": "perImage",
            "tier": "economy",
            "maxMoney": 1,
        },
        script=miss_img0_in_economy,
        flex=0.5,
    ),
    "records that are looked for in their pictures, two of which are the same": Scenario(
        lambda _house: {
            "inputMethod": "base64",
            "images": [b64(b"img0"), b64(b"img1"), b64(b"img2"), b64(b"img0")],
            "prompt": "p",
            "granularity": "perImage",
            "jsonMode": True,
            "evidence": True,
            "reviewWhen": ["failed"],
        },
        script=refuse_img1,
    ),
    "one call that a caller waits for, one image of which is none": Scenario(
        lambda _house: {
            "inputMethod": "base64",
            "images": [b64(b"img0"), b64(b"none")],
            "prompt": "p",
            "granularity": "perImage",
            "webhookUrl": "https://hooks.example/extract",
        },
        waited=True,
    ),
    "several calls that a caller waits for, one image refused by the model": Scenario(
        lambda house: {"inputMethod": "url", "images": house.urls(3), "prompt": "p", "granularity": "perImage"},
        script=refuse_img1,
        settings=(("IMAGES_PER_CALL", "3"),),
        waited=True,
    ),
    "nothing but a file that is no image": Scenario(
        lambda _house: {"inputMethod": "base64", "images": [b64(b"none")], "prompt": "p", "jsonMode": True}
    ),
}


def work(house: Harness, parts: WorkerParts) -> None:
    """What a worker does, until nothing is rung."""
    while True:
        house.supervisor.ring()
        try:
            step = house.signals.rung.get_nowait()
        except queue.Empty:
            return
        run_step(parts, step)


@contextmanager
def started(scenario: Scenario) -> Iterator[Harness]:
    engine = FakeEngine(script=scenario.script)
    with quick_folder() as folder, running(folder, workers_count=0, engine=engine, **dict(scenario.settings)) as house:
        house.models["fake-1"] = Model(name="fake-1", price_in=1.0, price_out=1.0, flex=scenario.flex)
        yield house


def run(house: Harness, scenario: Scenario, lives: Iterator[Crashing]) -> tuple[dict[str, Any], int]:
    """The end state of a job of a new account's, whose worker has these lives and then one without an end, and its model calls."""
    _, key = house.new_key(CREDITS)
    asked, told = len(house.engine.calls), len(house.deliver.calls)
    answer = house.post(scenario.body(house), key=key, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    with house.database.write() as connection:
        connection.execute(
            update(schema.jobs_table).where(schema.jobs_table.c.id == answer.json["id"]).values(waited=scenario.waited)
        )
    for crashing in lives:
        try:
            work(house, crashing_parts(house.work, crashing))
        except Crash:
            mourn(house)
        else:
            break
    house.drain()
    house.skip_waits()  # of the second cleanup, due when the lease that was lost runs out
    house.drain()
    house.supervisor.sweep()
    used = house.get(f"/api/v1/jobs/{answer.json['id']}", key=key).json["usage"]
    # What was asked is counted when its answer is kept: of a call that is made again, once or twice, but never more.
    assert used["modelCalls"] <= len(house.engine.calls) - asked
    # So is a webhook that is sent again: the same event in the same bytes.
    assert len({(sent["webhook-id"], body) for _, sent, body in house.deliver.calls[told:]}) <= 1
    return end_state(house.database, house.scratch, answer.json["id"]), len(house.engine.calls) - asked


def mourn(house: Harness) -> None:
    """The dead process's messages are lost, and its leases run out."""
    house.signals.rung = queue.SimpleQueue()
    with house.database.write() as connection:
        connection.execute(update(schema.steps_table).where(schema.steps_table.c.state == "leased").values(lease_until=0))
    house.supervisor.reclaim()
    house.age_rings()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_any_call_then_a_rerun_gives_the_same_end(name, when):
    scenario = SCENARIOS[name]
    with started(scenario) as house:
        expected, calls = run(house, scenario, iter(()))
        assert expected["scratch"] == []
        assert expected["open chunks"] == expected["open steps"] == []
        for at in range(1, MOST_CALLS):
            crashing = Crashing(at, when)
            state, made = run(house, scenario, iter([crashing]))
            assert state == expected, f"after a crash {when} call {at} of {crashing.calls}"
            assert made <= calls + 1, "no call is made twice but the one that was in flight"
            if not crashing.fired:
                break
        assert not crashing.fired


def test_the_scenarios_crash_at_every_kind_of_call():
    seen: set[str] = set()
    for scenario in SCENARIOS.values():
        with started(scenario) as house:
            never = Crashing(0, "after")
            run(house, scenario, iter([never]))
            seen |= set(never.calls)
    assert seen >= {
        "put",
        "open",
        "delete",
        "list",
        "ask",
        "fetch",
        "decode",
        "deliver",
        "write",
        "ring",
        "tell",
        "commit",
        "read",
    }


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_crashes_again_and_again_gets_there(when):
    """Each life is one call longer than the last."""
    scenario = SCENARIOS["base64 and records, one image refused by the model"]
    with started(scenario) as house:
        expected, _ = run(house, scenario, iter(()))
        lives = [Crashing(at, when) for at in range(1, MOST_CALLS)]
        state, _ = run(house, scenario, iter(lives))
        assert state == expected
        assert sum(life.fired for life in lives) > 5


# The front door


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_front_door_that_crashes_makes_a_whole_job_or_none(when):
    body = {"inputMethod": "base64", "images": [b64(b"img0"), b64(b"img1"), b64(b"img2")], "prompt": "p"}
    ends = []
    for at in range(1, MOST_CALLS):
        with quick_folder() as folder, running(folder, workers_count=0, MERGED_PER_CALL="2") as house:
            ends.append(_accept_with_crash(house, body, crashing := Crashing(at, when)))
        if not crashing.fired:
            break
    assert ends[-1] == "accepted"
    assert set(ends) == {"accepted", "nothing"}


def _accept_with_crash(house: Harness, body: dict[str, Any], crashing: Crashing) -> str:
    """ "accepted" or "nothing", after an hour in which the supervisor has looked after what was left."""
    before = everything(house.database)
    door: Any = replace(
        house.web,
        database=WrappedDatabase(house.database, crashing),
        scratch=WrappedScratch(house.scratch, crashing),
        signals=Wrapped(house.signals, crashing),
    )
    house.app = create_app(door)
    with suppress(Crash):
        house.post(body, headers={"Prefer": "respond-async"})
    house.signals.rung = queue.SimpleQueue()
    house.age_rings()
    house.drain()
    hours = iter((0.0, UNKNOWN_SECONDS + 1))
    supervisor = Supervisor(database=house.database, scratch=house.scratch, signals=house.signals, clock=lambda: next(hours))
    supervisor.sweep()
    supervisor.sweep()
    assert house.scratch.objects == {}
    if everything(house.database) == before:
        return "nothing"
    assert [kind for kind, _ in house.ledger()] == ["grant", "reserve", "charge", "release"]
    assert house.balance() == (CREDITS - 13, 0, 13)
    return "accepted"
