"""/healthz asks nobody; /readyz names what is away, and is not held up by it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from api.app import create_app
from api.health import Probe
from pipeline.errors import Transient
from tests.harness import running


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, METRICS_TOKEN="token-of-the-operator") as made:
        yield made


class Away:
    def __getattr__(self, name):
        def fail(*_, **__):
            raise Transient("nobody at 10.1.2.3")

        return fail


def ready(house, *, peer="203.0.113.9", **headers):
    return house.client.get("/readyz", headers=headers, environ_base={"REMOTE_ADDR": peer})


def without(house, part):
    house.app = create_app(replace(house.web, **{part: Away()}))


def test_where_all_is_there_it_is_ready(house):
    answer = ready(house)
    assert answer.status_code == 200
    assert answer.json == {"status": "ready", "checks": {"database": "ok", "redis": "ok", "scratch": "ok", "model": "ok"}}


@pytest.mark.parametrize(("part", "name"), [("database", "database"), ("signals", "redis"), ("scratch", "scratch")])
def test_what_is_away_is_named_and_the_process_is_still_well(house, part, name):
    without(house, part)
    answer = ready(house)
    assert answer.status_code == 503
    assert [check for check, state in answer.json["checks"].items() if state == "away"] == [name]
    assert "details" not in answer.json
    assert "10.1.2.3" not in answer.text
    assert house.client.get("/healthz").json == {"status": "ok"}


def test_details_are_for_this_machine_and_for_who_has_the_token(house):
    without(house, "scratch")
    assert "10.1.2.3" in ready(house, peer="127.0.0.1").json["details"]["scratch"]
    assert "10.1.2.3" in ready(house, Authorization="Bearer token-of-the-operator").json["details"]["scratch"]
    assert "details" not in ready(house, Authorization="Bearer another").json
    assert "details" not in ready(house, peer="127.0.0.1", **{"X-Forwarded-For": "203.0.113.9"}).json


@pytest.mark.parametrize("name", ["", "fake-1"])
def test_a_model_that_somebody_has_to_mend_is_named_with_its_notice(house, name):
    house.app = create_app(replace(house.web, notices=lambda: {name: "The key is wrong."}))
    answer = ready(house, peer="127.0.0.1")
    assert answer.status_code == 503
    assert answer.json["checks"] == {"database": "ok", "redis": "ok", "scratch": "ok", "model": "away"}
    assert "The key is wrong." in answer.json["details"]["model"]


def test_a_model_that_only_some_jobs_name_leaves_the_service_ready(house):
    house.app = create_app(replace(house.web, notices=lambda: {"fake-2": "Used up."}))
    assert ready(house).status_code == 200


def test_where_redis_is_away_the_model_is_not_blamed(house):
    def notices():
        raise Transient("nobody")

    house.app = create_app(replace(house.web, notices=notices))
    assert ready(house).json["checks"]["model"] == "ok"


def test_a_database_that_was_never_migrated_is_not_ready(tmp_path):
    from storage.database import Database

    with running(tmp_path / "house", workers_count=0) as house:
        empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")
        house.app = create_app(replace(house.web, database=empty))
        assert ready(house).json["checks"]["database"] == "away"
        empty.close()


def test_one_that_hangs_is_away_and_is_asked_by_one_thread_only():
    release, asked = threading.Event(), []

    def hang():
        asked.append(1)
        release.wait()

    probe = Probe("slow", hang)
    assert [probe.fault(0.0) for _ in range(5)] == ["no answer in time"] * 5
    assert len(asked) == 1
    release.set()


def test_an_answer_serves_all_who_ask_at_once():
    asked = []
    probe = Probe("quick", lambda: asked.append(1))
    assert [probe.fault(time.monotonic() + 60) for _ in range(5)] == [None] * 5
    assert len(asked) == 1
