"""/metrics: what all processes have counted, and what the database shows, for who runs the service."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from api.app import create_app
from api.health import has_token
from pipeline.decode.pool import DecoderPool
from pipeline.errors import Permanent, Transient
from pipeline.metrics import BUCKETS, COUNTED, Metric, counts
from pipeline.outbound.webhook import WebhookResponse
from pipeline.ports import Cause, ModelFault, ModelRefused, ModelUnavailable, Stop
from pipeline.types import Call, Form, Tier
from storage import schema
from storage.gauges import gauges
from storage.queue.steps import SLOW
from storage.redis.counts import Publisher
from tests.docs.markdown import ROOT
from tests.fakes.engine import FakeEngine
from tests.fakes.picture_files import native
from tests.fakes.signals import MemorySignals
from tests.harness import URL, b64
from tests.rows import claimed, new_account, new_job, set_steps, step_ids
from workers.metered_engine import MeteredEngine

BODY = {"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p"}
ASYNC = {"Prefer": "respond-async"}
TOKEN = "t" * 40
OUTSIDE = {"REMOTE_ADDR": "203.0.113.9"}


def shown(house, app=None):
    """Each sample of /metrics: {(name without the prefix, labels without the process): value}."""
    page = (app or house.app).test_client().get("/metrics")
    assert page.status_code == 200
    assert page.content_type == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(page.text):
        for sample in family.samples:
            labels = frozenset((name, value) for name, value in sample.labels.items() if name not in {"process", "role"})
            place = (sample.name.removeprefix("extract_image_"), labels)
            found[place] = found.get(place, 0) + sample.value
    return found


def of(samples, name, **labels):
    return samples.get((name, frozenset(labels.items())), 0)


def difference(before, after, name, **labels):
    return of(after, name, **labels) - of(before, name, **labels)


def test_requests_are_counted_by_route_and_status_and_timed(harness):
    before = shown(harness)
    harness.post(BODY)
    harness.post({})
    harness.get("/api/v1/jobs/job_none")
    after = shown(harness)
    assert difference(before, after, "http_requests_total", method="POST", route=URL, status="200") == 1
    assert difference(before, after, "http_requests_total", method="POST", route=URL, status="400") == 1
    assert difference(before, after, "http_requests_total", method="GET", route="/api/v1/jobs/<job>", status="404") == 1
    assert difference(before, after, "http_request_seconds_count", route=URL) == 2
    assert difference(before, after, "http_request_seconds_bucket", route=URL, le="+Inf") == 2


def test_callers_do_not_choose_what_is_counted(harness):
    before = shown(harness)
    for path in ("/a", "/b", "/api/v1/x"):
        harness.client.open(path, method="ODD")
    harness.client.open(URL, method="ODD")
    after = shown(harness)
    assert difference(before, after, "http_requests_total", method="any", route="none", status="404") == 3
    assert difference(before, after, "http_requests_total", method="any", route="none", status="405") == 1
    assert {labels for name, labels in after if name == "http_requests_total" and "ODD" in str(labels)} == set()


def test_what_workers_do_is_counted_by_kind_and_outcome(make_harness):
    house = make_harness(workers_count=0)
    house.deliver.script = lambda number: WebhookResponse(status=500) if number == 0 else WebhookResponse(status=200)
    before = shown(house)
    house.post({**BODY, "webhookUrl": "https://hooks.example/"}, headers=ASYNC)
    house.drain()
    house.skip_waits()
    house.drain()
    after = shown(house)
    for kind, times in {"stage": 1, "extract": 1, "finalize": 1, "cleanup": 1, "webhook": 2}.items():
        assert difference(before, after, "steps_total", kind=kind, outcome="done") == times
        assert difference(before, after, "step_seconds_count", kind=kind) == times
    assert difference(before, after, "webhook_attempts_total", outcome="failed") == 1
    assert difference(before, after, "webhook_attempts_total", outcome="delivered") == 1


def test_steps_that_fail_or_wait_for_the_model_are_counted_as_such(make_harness):
    faults = [ModelUnavailable("busy", retry_after=0), RuntimeError("a mistake of ours"), None]
    house = make_harness(workers_count=0, engine=FakeEngine(script=lambda _call, number: faults[number - 1]))
    before = shown(house)
    house.post(BODY, headers=ASYNC)
    for _ in range(4):
        house.drain()
        house.skip_waits()
    after = shown(house)
    for outcome in ("unavailable", "failed", "done"):
        assert difference(before, after, "steps_total", kind="extract", outcome=outcome) == 1


def test_who_waits_is_shown_and_timed(make_harness):
    seen = []
    engine = FakeEngine(script=lambda _call, _number: seen.append(of(shown(harness), "waiting_connections")))
    harness = make_harness(engine=engine)
    before = shown(harness)
    harness.post(BODY)
    assert seen == [1]
    after = shown(harness)
    assert of(after, "waiting_connections") == 0
    assert difference(before, after, "wait_seconds_count") == 1


CALL = Call(prompt="p", form=Form.TEXT, json_mode=False, pictures=(), timeout=1.0)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (ModelUnavailable("", retry_after=1), "unavailable"),
        (ModelFault(), "fault"),
        (ModelRefused(), "refused"),
        (OSError(), "error"),
    ],
)
def test_model_calls_that_fail_are_counted_by_how(harness, fault, outcome):
    engine = FakeEngine(script=lambda _call, _number: fault)
    before = shown(harness)
    with pytest.raises(type(fault)):
        MeteredEngine(engine).ask(CALL)
    assert difference(before, shown(harness), "model_calls_total", engine=engine.name, outcome=outcome) == 1


def test_model_calls_that_answer_are_counted_with_their_tokens(harness):
    engine = MeteredEngine(FakeEngine())
    before = shown(harness)
    answer = engine.ask(CALL)
    after = shown(harness)
    assert difference(before, after, "model_calls_total", engine=engine.name, outcome=answer.finish.value) == 1
    assert difference(before, after, "model_call_seconds_count", engine=engine.name) == 1
    for direction, tokens in (("input", answer.input_tokens), ("output", answer.output_tokens)):
        assert difference(before, after, "model_tokens_total", engine=engine.name, direction=direction) == tokens


def test_decoder_processes_that_are_replaced_are_counted(harness):
    before = shown(harness)
    with DecoderPool(children=1, pictures=1) as decode:
        list(decode([native()["PNG"]]))
    assert difference(before, shown(harness), "decoder_restarts_total", reason="recycled") == 1


# What the database shows


def test_the_queue_is_shown_by_kind_with_how_long_it_has_been_due(database):
    account = new_account(database)
    job = new_job(database, account, images=4)
    first, second, third, fourth = step_ids(database, job)
    claimed(database, first)
    with database.read() as connection:
        now = gauges(connection).queues["stage"]
    assert (now.due, now.waiting, now.leased) == (3, 0, 1)
    assert 0 <= now.age < 60
    set_steps(database, second, added_at=0, not_before=1)
    set_steps(database, third, not_before=1 << 50)
    set_steps(database, fourth, state="done")
    with database.read() as connection:
        found = gauges(connection)
    stage = found.queues["stage"]
    assert (stage.due, stage.waiting, stage.leased) == (1, 1, 1)
    assert (stage.age > 1e9, stage.slow_age) == (True, 0)
    assert (found.queues["webhook"].due, found.queues["webhook"].age) == (0, 0)


def test_steps_of_the_tier_economy_wait_by_design_and_have_an_age_of_their_own(database):
    job = new_job(database, new_account(database), images=2, tier="economy")
    first, second = step_ids(database, job)
    set_steps(database, first, added_at=0)
    set_steps(database, second, priority=SLOW)
    with database.read() as connection:
        stage = gauges(connection).queues["stage"]
    assert (stage.due, stage.age, stage.slow_age > 1e9) == (2, 0, True)


def test_the_next_deadline_of_each_tier_is_shown(database):
    account = new_account(database)
    with database.read() as connection:
        assert gauges(connection).deadlines == {}
    new_job(database, account)
    new_job(database, account, tier="economy")
    late = new_job(database, account, tier="economy")
    with database.write() as connection:
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == late).values(deadline_at=1))
    with database.read() as connection:
        left = gauges(connection).deadlines
    assert set(left) == {"standard", "economy"}
    assert 3000 < left["standard"] <= 3600
    assert left["economy"] < -1e9


def test_a_counter_without_labels_is_there_from_the_start(harness):
    page = harness.client.get("/metrics").text
    for name in ("leases_expired", "jobs_overdue", "money_limited", "economy_hurried"):
        assert f"\nextract_image_{name}_total{{" in page


def test_what_readyz_checks_is_shown(harness):
    class ReadOnly(MemorySignals):
        def check(self):
            raise Permanent("READONLY")

    checks = ("database", "redis", "scratch", "model")
    assert [of(shown(harness), "ready", check=check) for check in checks] == [1, 1, 1, 1]
    now = shown(harness, create_app(dataclasses.replace(harness.web, signals=ReadOnly())))
    assert [of(now, "ready", check=check) for check in checks] == [1, 0, 1, 1]
    assert of(now, "part_up", part="redis") == 1


def test_stopped_models_full_storage_and_the_limit_of_scratch_are_shown(harness):
    before = shown(harness)
    assert of(before, "storage_full") == 0
    assert not [name for name, _ in before if name == "model_stopped"]
    harness.signals.note_full_storage()
    stop = Stop(model="fake-1", tier=Tier.STANDARD, cause=Cause.QUOTA)
    after = shown(harness, create_app(dataclasses.replace(harness.web, stops=lambda: [stop])))
    assert of(after, "storage_full") == 1
    assert of(after, "model_stopped", model="fake-1", tier="standard", cause="quota") == 1
    assert of(after, "scratch_limit_bytes") == harness.settings.max_scratch_bytes


def test_open_jobs_scratch_and_credits_are_shown(make_harness):
    house = make_harness(workers_count=0)
    house.post({**BODY, "images": [b64(b"img0"), b64(b"img1")]}, headers=ASYNC)
    now = shown(house)
    assert (of(now, "open_jobs", status="queued"), of(now, "open_jobs", status="running")) == (1, 0)
    assert of(now, "scratch_bytes") == 2 * len(b64(b"img0"))
    assert (of(now, "credits", state="available"), of(now, "credits", state="held")) == (99_988, 12)
    assert of(now, "queue_steps", kind="stage", state="due") == 1
    house.drain()
    after = shown(house)
    assert (of(after, "open_jobs", status="queued"), of(after, "scratch_bytes")) == (0, 0)
    assert of(after, "credits", state="charged") == 12


# Several processes


def other(house, process, steps):
    house.signals.publish(process, json.dumps({"extract_image_steps_total": [[["stage", "done"], steps]]}))


def test_the_counts_of_all_processes_stand_side_by_side_however_often_they_are_published(make_harness):
    house = make_harness(workers_count=0)
    before = shown(house)
    for _ in range(3):
        other(house, "worker@a:1", 5)
    other(house, "worker@b:1", 7)
    after = shown(house)
    assert difference(before, after, "steps_total", kind="stage", outcome="done") == 12
    page = house.client.get("/metrics").text
    assert re.findall(r'process_up{role="worker",process="(.*)"} 1', page) == ["a:1", "b:1"]
    assert 'extract_image_steps_total{kind="stage",outcome="done",role="worker",process="a:1"} 5\n' in page


def test_what_this_process_has_published_is_not_counted_twice(harness):
    harness.post(BODY)
    before = shown(harness)
    Publisher(harness.signals, "web").close()
    assert difference(before, shown(harness), "http_requests_total", method="POST", route=URL, status="200") == 0


def test_when_redis_was_flushed_the_whole_counts_come_back(make_harness):
    house = make_harness(workers_count=0)
    board = house.signals
    publisher = Publisher(board, "worker")
    publisher.publish()
    before = dict(board.published())
    board._published.clear()
    publisher.publish()
    assert board.published().keys() == before.keys()
    publisher.close()


class AwaySignals(MemorySignals):
    """A Redis that is not there."""

    def publish(self, process, text):
        raise Transient("gone")

    def published(self):
        raise Transient("gone")


def test_without_redis_this_process_and_the_database_are_still_shown(harness):
    app = create_app(dataclasses.replace(harness.web, signals=AwaySignals()))
    now = shown(harness, app)
    assert (of(now, "part_up", part="redis"), of(now, "part_up", part="database")) == (0, 1)
    assert of(now, "credits", state="available") == 100_000
    Publisher(AwaySignals(), "worker").close()


def test_without_the_database_what_was_counted_is_still_shown(harness):
    class Away:
        def read(self):
            raise Transient("away")

    now = shown(harness, create_app(dataclasses.replace(harness.web, database=Away())))
    assert (of(now, "part_up", part="redis"), of(now, "part_up", part="database")) == (1, 0)
    assert ("open_jobs", frozenset({("status", "queued")})) not in now


# Who may see it


@pytest.mark.parametrize(
    ("peer", "headers", "seen"),
    [
        ({}, {}, True),
        ({"REMOTE_ADDR": "::1"}, {}, True),
        ({}, {"Host": "127.0.0.1:8000"}, True),
        ({}, {"Host": "[::1]:8000"}, True),
        ({}, {"X-Forwarded-For": "203.0.113.9"}, False),
        ({}, {"X-Forwarded-Host": "service.example"}, False),
        ({}, {"Forwarded": "for=203.0.113.9"}, False),
        ({}, {"X-Real-IP": "203.0.113.9"}, False),
        ({}, {"Via": "1.1 proxy"}, False),
        ({}, {"Host": "service.example"}, False),
        ({}, {"Host": "127.0.0.1.service.example"}, False),
        ({}, {"Host": "localhost.service.example:8000"}, False),
        ({}, {"Host": ""}, False),
        (OUTSIDE, {"Host": "127.0.0.1"}, False),
        (OUTSIDE, {}, False),
        (OUTSIDE, {"Authorization": "Bearer wrong"}, False),
        (OUTSIDE, {"Authorization": f"Bearer {TOKEN[:-1]}"}, False),
        (OUTSIDE, {"Authorization": "Bearer "}, False),
        ({}, {"Authorization": "Bearer wrong"}, False),
        ({}, {"Authorization": "Bearer \xe9"}, False),
        (OUTSIDE, {"Authorization": f"Bearer {TOKEN}"}, True),
    ],
)
def test_only_this_machine_and_who_has_the_token_may_see_it(make_harness, peer, headers, seen):
    house = make_harness(workers_count=0, METRICS_TOKEN=TOKEN)
    answer = house.client.get("/metrics", headers=headers, environ_base=peer)
    assert answer.status_code == (200 if seen else 401)
    assert ("extract_image_" in answer.text) is seen


@pytest.mark.parametrize(
    ("peer", "headers", "seen"),
    [
        ({}, {}, True),
        ({}, {"Authorization": "Bearer whatever"}, True),
        ({}, {"X-Forwarded-For": "203.0.113.9"}, False),
        (OUTSIDE, {}, False),
        (OUTSIDE, {"Authorization": "Bearer "}, False),
        (OUTSIDE, {"Authorization": "Bearer None"}, False),
    ],
)
def test_without_the_setting_only_this_machine_may_see_it(make_harness, peer, headers, seen):
    answer = make_harness(workers_count=0).client.get("/metrics", headers=headers, environ_base=peer)
    assert answer.status_code == (200 if seen else 401)


def test_the_token_is_compared_in_constant_time():
    [comparison] = re.findall(r"return (.+)$", inspect.getsource(has_token), re.MULTILINE)[1:]
    assert comparison.startswith("hmac.compare_digest(")


def test_an_account_s_key_opens_it_for_nobody(make_harness):
    house = make_harness(workers_count=0)
    answer = house.client.get("/metrics", headers={"Authorization": f"Bearer {house.key}"}, environ_base=OUTSIDE)
    assert (answer.status_code, answer.json["code"]) == (401, "unauthorized")


# The parts


def test_a_histogram_s_buckets_count_what_is_below_them():
    metric = Metric("test_seconds", "Of a test.", ("who",), "histogram")
    for value in (0.001, 0.005, 0.006, 1000):
        metric.observe(value, who="me")
    [(labels, numbers)] = metric.values()
    assert labels == ["me"]
    assert numbers == [2, 1, *[0] * (len(BUCKETS) - 2), 1, 1000.012]


def test_a_label_that_a_metric_has_not_is_refused():
    with pytest.raises(ValueError, match="has the labels"):
        Metric("test_total", "Of a test.", ("who",)).add(what="x")


def test_names_and_labels_that_could_break_a_line_do_not(harness):
    odd = 'a"b\\c\nd'
    harness.signals.publish(f"worker@{odd}", json.dumps({"extract_image_steps_total": [[["stage", odd], 1]]}))
    page = harness.client.get("/metrics").text
    [sample] = [
        sample
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels.get("process") == odd and sample.name == "extract_image_steps_total"
    ]
    assert sample.labels["outcome"] == odd


def test_every_metric_of_the_dashboard_is_on_the_page_and_every_one_on_the_page_is_in_the_dashboard(harness):
    dashboard = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {re.sub("_bucket$", "", name) for text in expressions for name in re.findall(r"extract_image_\w+", text)}
    families = {family.name for family in text_string_to_metric_families(harness.client.get("/metrics").text)}
    assert {name.removesuffix("_total") for name in used} == families
    assert set(counts()) == {metric.name for metric in COUNTED}


def test_every_label_of_the_dashboard_is_one_that_the_metric_has(harness):
    harness.post(BODY)
    dashboard = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text())
    labels = {metric.name: {*metric.labels, "role", "process", "le"} for metric in COUNTED}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            [name] = {re.sub("_bucket$", "", name) for name in re.findall(r"extract_image_\w+", target["expr"])}
            if name in labels:
                named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                named |= {part for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for part in group.split(", ")}
                assert named <= labels[name], panel["title"]
