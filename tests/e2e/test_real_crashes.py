"""Processes that really end (`os._exit`) before and after each commit and each effect, one by one: the end is the same.

What tests/component/workers/test_crashes.py shows with an exception in one process is shown here with processes, on SQLite and on
Postgres, with a folder as scratch and a real Redis: whatever the dead held open is for the system to take back.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from api.app import create_app
from storage import schema
from storage.redis.signals import QUEUE, SLOW_QUEUE, WAITED_QUEUE, Signals
from storage.scratch.open import open_scratch
from tests.fakes.lives import CRASHED, EFFECTS, HURRIED, MODEL, POISON, POISONED, REFUSED, Life, Lived
from tests.harness import CREDITS, Harness, b64
from tests.rows import claimed, end_state, quick_folder, step_ids
from workers.supervisor import UNKNOWN_SECONDS

ROOT = Path(__file__).resolve().parents[2]
MOST_EFFECTS = 400  # a run has about 60: whoever counts this far goes round in circles
MOST_LIVES = 20
BOTH = pytest.mark.parametrize("when", ["before", "after"])


@pytest.fixture(scope="module")
def live() -> Iterator[Callable[[Life], Lived]]:
    """Lives one, in a process of its own."""
    command = [sys.executable, "-m", "tests.fakes.lives"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forking:

        def one(life: Life) -> Lived:
            assert forking.stdin
            assert forking.stdout
            forking.stdin.write(json.dumps(asdict(life)) + "\n")
            forking.stdin.flush()
            return Lived(**json.loads(forking.stdout.readline()))

        yield one
        assert forking.stdin
        forking.stdin.close()


class Town:
    """What outlives the processes: SQL, scratch and Redis. And what becomes of a job in it."""

    def __init__(self, folder: Path, database_url: str, redis_url: str, live: Callable[[Life], Lived]) -> None:
        self.settings = {"DATA_DIR": str(folder), "DATABASE_URL": database_url, "IMAGES_PER_CALL": "2", "MERGED_PER_CALL": "2"}
        self.house = Harness(folder, workers_count=0, **self.settings)
        self.house.models[MODEL.name] = MODEL
        self.scratch = open_scratch(self.house.settings)
        self.signals = Signals(redis_url)
        self.signals.redis.delete(QUEUE, SLOW_QUEUE, WAITED_QUEUE)
        signals: Any = self.signals
        self.house.web = replace(self.house.web, scratch=self.scratch, signals=signals)
        self.house.app = create_app(self.house.web)
        self.house.supervisor.scratch = self.scratch
        self.folder = folder
        self.settings["REDIS_URL"] = redis_url
        self._live = live

    def live(self, role: str, at: int = 0, when: str = "before", *, mortal: bool = False, **more: Any) -> Lived:
        """A worker that dies at no effect needs no process of its own, but new parts. `mortal`: it may die of a picture.

        Others have a process of their own, because they leave threads behind, with which the next one can't be forked.
        """
        forked = at > 0 or mortal or role != "worker"
        lived = self._live(Life(role=role, settings=self.settings, at=at, when=when, forked=forked, **more))
        assert lived.code in {0, CRASHED, POISONED}
        if lived.code:
            self.mourn()
            if role == "worker":
                self.house.supervisor.reclaim()
        return lived

    def post(self, body: dict[str, Any], *, waited: bool = False) -> tuple[str, str]:
        """A job of a new account, and the account's key. `waited`: a caller holds a connection for it, as far as SQL knows."""
        _, key = self.house.new_key(CREDITS)
        answer = self.house.post({"prompt": "p", **body}, key=key, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202
        jobs = schema.jobs_table
        with self.house.database.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == answer.json["id"]).values(waited=waited))
        return answer.json["id"], key

    def mourn(self) -> None:
        """The leases of the dead run out. Which messages it has taken with it, and which are still there, is as it was."""
        with self.house.database.write() as connection:
            # Each step's row: so this waits until the database has noticed who is gone, and undone what it had begun.
            connection.execute(update(schema.steps_table).values(rung_at=0))
            connection.execute(update(schema.steps_table).where(schema.steps_table.c.state == "leased").values(lease_until=0))

    def work_through(self, **more: Any) -> None:
        """Workers that nothing told to die, until no step is left."""
        for _ in range(MOST_LIVES):
            with self.house.database.read() as connection:
                open_step = schema.steps_table.c.state.in_(("ready", "leased"))
                if not connection.scalar(select(func.count()).select_from(schema.steps_table).where(open_step)):
                    return
            self.house.skip_waits()
            self.live("worker", **more)
        raise AssertionError("it does not end")

    def sweep_an_hour_later(self) -> None:
        hours = iter((0.0, UNKNOWN_SECONDS + 1))
        supervisor = replace(self.house.supervisor, clock=lambda: next(hours))
        supervisor.sweep()
        supervisor.sweep()

    def noted(self, name: str) -> list[Any]:
        """What came to the model or the receiver, so far."""
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def close(self) -> None:
        self.signals.close()
        self.house.close()


@contextmanager
def built(database_url: str, redis_url: str, live: Callable[[Life], Lived]) -> Iterator[Town]:
    with quick_folder() as folder:
        town = Town(folder, database_url, redis_url, live)
        try:
            town.post({"inputMethod": "base64", "images": [b64(b"img0"), b64(b"none")], "granularity": "perImage", **HOOK})
            town.live("worker")
            yield town
        finally:
            town.close()


@pytest.fixture
def town(database_url, redis_url, live):
    with built(database_url, redis_url, live) as made:
        yield made


# Workers

PAGES = {f"https://pictures.example/{index}": f"img{index}" for index in range(3)}
HOOK = {"webhookUrl": "https://hooks.example/extract"}


@dataclass(frozen=True)
class Scenario:
    """A job that takes many turns, and how often its worker dies of it by itself."""

    body: dict[str, Any]
    deaths: int = 0
    writes: bool = True  #: as no other scenario does: then on each kind of database
    without: frozenset[str] = frozenset()  #: effects that it does not have
    waited: bool = False  #: a caller holds a connection for the job


SCENARIOS = {
    "base64 and records, one image refused and one none": Scenario(
        {
            "inputMethod": "base64",
            "images": [b64(b"img0"), b64(REFUSED), b64(b"none"), b64(b"img3")],
            "granularity": "perImage",
            **HOOK,
        },
        without=frozenset({"fetch"}),
    ),
    "URLs merged to a text, one of which fails": Scenario(
        {"inputMethod": "url", "images": [*PAGES, "https://gone.example/"], **HOOK}, writes=False
    ),
    "two chunks in the tier economy, one of which is hurried": Scenario(
        {
            "inputMethod": "base64",
            "images": [b64(b"img0"), b64(b"img1"), b64(HURRIED)],
            "granularity": "perImage",
            "tier": "economy",
            "maxMoney": 1,
        },
        writes=False,
        without=frozenset({"fetch", "deliver"}),
    ),
    "one call that a caller waits for": Scenario(
        {"inputMethod": "base64", "images": [b64(b"img0"), b64(b"none")], "granularity": "perImage", **HOOK},
        without=frozenset({"fetch", "put", "write"}),
        waited=True,
    ),
    "several calls that a caller waits for": Scenario(
        {"inputMethod": "base64", "images": [b64(b"img0"), b64(REFUSED)], "granularity": "perImage"},
        without=frozenset({"fetch", "deliver"}),
        waited=True,
    ),
    "a picture that kills who shows it to the model": Scenario(
        {"inputMethod": "base64", "images": [b64(b"img0"), b64(POISON)], "granularity": "perImage"},
        deaths=2,
        without=frozenset({"fetch", "deliver"}),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What became of a job whose workers may have died."""

    state: dict[str, Any]  #: its end state
    effects: list[str]  #: the effects of its workers
    crashed: bool  #: whether a worker died at the chosen effect
    asked: int  #: model calls


def run(town: Town, scenario: Scenario, at: int, when: str) -> Ran:
    """Runs a job of a new account, whose worker dies at this effect; 0: at none."""
    asked, told = len(town.noted("asked")), len(town.noted("delivered"))
    job, key = town.post(scenario.body, waited=scenario.waited)
    effects, crashes, deaths = list[str](), 0, 0
    for _ in range(MOST_LIVES):
        left = max(at - len(effects), 0) if not crashes else 0
        lived = town.live("worker", left, when, mortal=bool(scenario.deaths), pages=PAGES)
        effects += lived.effects
        crashes += lived.code == CRASHED
        deaths += lived.code == POISONED
        if lived.code == 0:
            break
    assert crashes <= 1
    assert crashes or deaths == scenario.deaths
    town.work_through(mortal=bool(scenario.deaths), pages=PAGES)
    town.house.supervisor.sweep()
    used = town.house.get(f"/api/v1/jobs/{job}", key=key).json["usage"]
    # What was asked is counted when its answer is kept: of a call that is made again, once or twice, but never more.
    assert used["modelCalls"] <= len(town.noted("asked")) - asked
    events = town.noted("delivered")[told:]
    assert len({tuple(event) for event in events}) == ("webhookUrl" in scenario.body), (
        "told at least once, one id, the same bytes"
    )
    state = end_state(town.house.database, town.scratch, job)
    return Ran(state=state, effects=effects, crashed=bool(crashes), asked=len(town.noted("asked")) - asked)


SQLITE, EACH = ["sqlite"], ["sqlite", "postgres"]
CASES = [(name, kind) for name, scenario in SCENARIOS.items() for kind in (EACH if scenario.writes else SQLITE)]


@BOTH
@pytest.mark.parametrize(("name", "database_url"), CASES, indirect=["database_url"])
def test_a_worker_that_ends_at_any_effect_and_a_fresh_one_give_the_same_end(town, name, when):
    scenario = SCENARIOS[name]
    alive = run(town, scenario, 0, when)
    expected = alive.state
    assert [kind for kind, _ in expected["ledger"]] == ["reserve", "charge", "release"]
    assert expected["scratch"] == expected["open steps"] == expected["open chunks"] == []
    assert set(alive.effects) == EFFECTS - scenario.without
    for at in range(1, MOST_EFFECTS):
        ran = run(town, scenario, at, when)
        assert ran.state == expected, f"after a crash {when} effect {at} of {ran.effects}"
        assert scenario.deaths or ran.asked <= alive.asked + 1, "no call is made twice but the one that was in flight"
        if at > len(ran.effects):
            break
        assert ran.crashed or scenario.deaths, "who dies of the picture never comes to the effect's end"


def test_a_picture_that_kills_ends_no_more_workers_if_a_caller_waits_for_it(town):
    scenario = SCENARIOS["a picture that kills who shows it to the model"]
    assert run(town, replace(scenario, waited=True), 0, "before").state == run(town, scenario, 0, "before").state


@BOTH
def test_workers_that_end_again_and_again_get_there(town, when):
    """Each life is one effect longer than the last."""
    scenario = SCENARIOS["base64 and records, one image refused and one none"]
    expected = run(town, scenario, 0, when).state
    job, _ = town.post(scenario.body)
    lives = iter(range(1, MOST_EFFECTS))
    while town.live("worker", next(lives), when).code == CRASHED:
        pass
    assert next(lives) > 8
    town.work_through()
    assert end_state(town.house.database, town.scratch, job) == expected


# The front door


def accepted(town: Town, account: str) -> list[tuple[Any, ...]]:
    """Of each job of the account: its id, and how many images, chunks, steps and credits it has."""
    jobs, size = schema.jobs_table.c, func.count()
    of_job = [
        select(size).where(table.c.job == jobs.id).scalar_subquery()
        for table in (schema.images_table, schema.chunks_table, schema.steps_table)
    ]
    held = select(schema.accounts_table.c.held).where(schema.accounts_table.c.id == account).scalar_subquery()
    with town.house.database.read() as connection:
        return [tuple(row) for row in connection.execute(select(jobs.id, *of_job, held).where(jobs.account == account))]


@BOTH
def test_a_front_door_that_ends_at_any_effect_makes_a_whole_job_or_none_and_the_same_request_again_makes_one(town, when):
    images = [b64(b"img0"), b64(b"img1"), b64(b"img2")]
    expected, ends = None, []
    for at in range(MOST_EFFECTS):
        account, key = town.house.new_key(CREDITS)
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": f"key-{at}", "Prefer": "respond-async"}
        request = {"headers": headers, "body": {"inputMethod": "base64", "images": images, "prompt": "p", **HOOK}}
        lived = town.live("door", at, when, request=request)
        first = accepted(town, account)
        status, answer = json.loads(town.live("door", request=request).said)
        assert status == 202
        assert accepted(town, account) == [(answer["id"], 3, 2, 2, 13)]
        assert first in ([], [(answer["id"], 3, 2, 2, 13)])
        ends.append(len(first))
        town.work_through()
        town.sweep_an_hour_later()
        state = end_state(town.house.database, town.scratch, answer["id"])
        expected = expected or state
        assert state == expected, f"after a crash {when} effect {at} of {lived.effects}"
        if at and not lived.code:
            break
    assert set(ends) == {0, 1}


@BOTH
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_front_door_that_ends_while_it_puts_and_writes_at_once_makes_a_whole_job_or_none(town, when):
    """A request without an Idempotency-Key puts its images while it writes its job, if the database has many writers."""
    ends = []
    for at in range(1, MOST_EFFECTS):
        account, key = town.house.new_key(CREDITS)
        body = {"inputMethod": "base64", "images": [b64(b"img0"), b64(b"none")], "prompt": "p", **HOOK}
        request = {"headers": {"Authorization": f"Bearer {key}", "Prefer": "respond-async"}, "body": body}
        lived = town.live("door", at, when, request=request)
        jobs = accepted(town, account)
        assert [job[1:] for job in jobs] in ([], [(2, 1, 1, 12)]), f"after a crash {when} effect {at} of {lived.effects}"
        ends.append(len(jobs))
        town.work_through()
        town.sweep_an_hour_later()
        assert list(town.scratch.list("")) == []
        if not lived.code:
            break
        for job, *_ in jobs:
            assert end_state(town.house.database, town.scratch, job)["job"][0] == "partial"
    assert set(lived.effects) == {"put", "write", "commit", "ring"}
    assert set(ends) == {0, 1}


# The supervisor


def troubles(town: Town) -> list[str]:
    """Jobs that need a supervisor: with a dead worker's lease, late, stranded, expired with something left in scratch."""
    body = {"inputMethod": "base64", "images": [b64(b"img0"), b64(b"img1"), b64(b"img2")], "granularity": "perImage", **HOOK}
    expired, _ = town.post(body)
    town.work_through()
    town.scratch.put(f"{expired}/left", io.BytesIO(b"x"))
    orphaned, late, stranded = [town.post(body)[0] for _ in range(3)]
    town.signals.redis.delete(QUEUE, WAITED_QUEUE)
    claimed(town.house.database, step_ids(town.house.database, orphaned)[0])
    claimed(town.house.database, step_ids(town.house.database, late)[0])
    steps, chunks, images, jobs = schema.steps_table, schema.chunks_table, schema.images_table, schema.jobs_table
    with town.house.database.write() as connection:
        connection.execute(update(steps).values(rung_at=0))
        connection.execute(update(jobs).where(jobs.c.id == expired).values(expires_at=1))
        connection.execute(update(jobs).where(jobs.c.id == late).values(deadline_at=0))
        connection.execute(update(steps).where(steps.c.job == orphaned, steps.c.state == "leased").values(lease_until=0))
        connection.execute(update(steps).where(steps.c.job == stranded).values(state="done"))
        connection.execute(update(chunks).where(chunks.c.job == stranded).values(open=False))
        settled = {"state": "failed", "code": "fetch_failed", "detail": "d"}
        connection.execute(update(images).where(images.c.job == stranded).values(**settled))
    return [expired, orphaned, late, stranded]


@BOTH
def test_a_supervisor_that_ends_at_any_effect_and_a_fresh_one_give_the_same_end(town, when):
    expected = None
    for at in range(MOST_EFFECTS):
        jobs = troubles(town)
        lived = town.live("supervisor", at, when)
        assert lived.effects.count("commit") >= 5 or lived.code
        town.live("supervisor")
        town.work_through()
        town.live("supervisor")
        states = [end_state(town.house.database, town.scratch, job) for job in jobs]
        expected = expected or states
        assert states == expected, f"after a crash {when} effect {at} of {lived.effects}"
        if at and not lived.code:
            break
    assert [state["job"][0] for state in expected] == ["succeeded", "succeeded", "failed", "failed"]
    assert expected[0]["job"][1] is None, "its results have expired"
    assert set(lived.effects) == {"commit", "ring", "delete"}
