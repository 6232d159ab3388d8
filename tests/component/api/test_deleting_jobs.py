"""What goes with a job that is deleted."""

from __future__ import annotations

import re
import threading

import pytest

from pipeline.errors import Transient
from pipeline.outbound.webhook import WebhookResponse
from storage import schema
from tests.component.api.jobs import JOBS, body, done, make
from tests.fakes.engine import FakeEngine
from tests.harness import CREDITS, b64, running
from tests.rows import eventually

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="2") as made:
        yield made


def test_a_deleted_job_is_gone_and_what_it_cost_is_known(house):
    job = done(house)
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204
    for method, path in [
        ("GET", ""),
        ("GET", "/items"),
        ("GET", "/results"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
    ]:
        assert house.ask(method, f"{JOBS}/{job}{path}").status_code == 404
    assert house.get(JOBS).json["jobs"] == []
    assert [house.count_rows(name) for name in ("jobs", "images", "chunks", "steps")] == [0, 0, 0, 0]
    assert house.ledger(job) == [("reserve", 13), ("charge", 13), ("release", 0)]
    assert house.balance() == (CREDITS - 13, 0, 13)


def test_a_live_job_is_cancelled_before_it_is_deleted(house):
    job = house.post({"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p"}, headers=ASYNC).json["id"]
    assert house.scratch.objects
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204
    assert house.scratch.objects == {}
    assert house.ledger(job) == [("reserve", 11), ("charge", 0), ("release", 11)]
    house.drain()
    assert house.engine.calls == []


def test_the_stored_bodies_of_its_webhooks_go_with_it_and_none_is_sent_any_more(house):
    house.deliver.script = lambda _number: WebhookResponse(status=500)
    job = done(house, webhookUrl="https://receiver.example/hook")
    assert len(house.deliver.calls) == 1
    house.ask("DELETE", f"{JOBS}/{job}")
    house.skip_waits()
    house.drain()
    assert len(house.deliver.calls) == 1
    with house.database.read() as connection:
        row = connection.execute(schema.deliveries_table.select()).one()
    assert (row.job, row.body, row.state, len(row.attempts)) == (job, None, "dead", 1)


def test_its_idempotency_key_is_free_again(house):
    key = {"Idempotency-Key": "k"}
    first = house.ask("POST", JOBS, json=body(house), headers=key).json["id"]
    house.ask("DELETE", f"{JOBS}/{first}")
    second = house.ask("POST", JOBS, json=body(house), headers=key)
    assert second.status_code == 202
    assert second.json["id"] != first


def test_scratch_that_is_away_leaves_the_job_to_be_deleted_again(house):
    job = house.post({"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p"}, headers=ASYNC).json["id"]
    whole = house.scratch.delete
    house.scratch.delete = lambda _keys: (_ for _ in ()).throw(Transient("away"))
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 503
    house.scratch.delete = whole
    assert house.get(f"{JOBS}/{job}").json["status"] == "cancelled"
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204


def test_somebody_else_s_job_can_not_be_deleted_or_retried(house):
    job = done(house)
    _, other = house.new_key()
    assert house.ask("DELETE", f"{JOBS}/{job}", key=other).status_code == 404
    assert house.ask("POST", f"{JOBS}/{job}/retry", key=other).status_code == 404
    assert house.get(f"{JOBS}/{job}").status_code == 200


def test_a_step_at_work_on_a_deleted_job_changes_nothing(tmp_path):
    asked, answer = threading.Event(), threading.Event()

    def slow(*_):
        asked.set()
        answer.wait()

    with running(tmp_path, workers_count=1, engine=FakeEngine(script=slow)) as house:
        job = make(house, 1)
        asked.wait()
        assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204
        answer.set()
        eventually(lambda: not house.scratch.objects)
        assert house.count_rows("images") == 0
        assert house.balance() == (CREDITS, 0, 0)


def test_no_id_in_an_address_reaches_the_database_with_a_nul(house):
    rules = [rule for rule in house.app.url_map.iter_rules() if rule.arguments]
    assert rules
    for rule in rules:
        method = next(iter(rule.methods - {"HEAD", "OPTIONS"}))
        found, values = house.app.url_map.bind("x").match(re.sub(r"<\w+>", "a\0b", rule.rule), method, return_rule=True)
        assert (found.rule, set(values.values())) == (rule.rule, {"a\ufffdb"})
