"""What a trace shows of a request: its parents, its links, its faults, and no secret.

The part is OtelTracer, of the ports Tracer, OpenSpan and Span.
"""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from cli.logs import _with_context
from pipeline.errors import Transient
from pipeline.ports import Cause, ModelUnavailable
from pipeline.tracing import spans, start
from pipeline.tracing.spans import ATTRIBUTES, NOTHING, code_of
from storage import schema
from storage.queue import steps
from storage.redis.messages import Message
from testbed.collector import collecting
from tests.docs.markdown import ROOT
from tests.fakes.deliver import ACCEPTED, FAILED
from tests.fakes.engine import FakeEngine
from tests.harness import Harness, b64
from tests.rows import step_ids
from workers.cleaning import Cleaning
from workers.metered_engine import MeteredEngine
from workers.run import run_message

HOOK = "https://receiver.example/hook"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def collector():
    with collecting() as server:
        yield server


@pytest.fixture
def tracing(collector, monkeypatch):
    """Turns tracing on in this process. Gives a function that sends what has ended, and returns all spans."""
    for name, value in collector.settings.items():
        monkeypatch.setenv(name, value)
    start.start("test", os.environ)
    tracer = spans.active
    assert tracer is not None

    def sent():
        tracer.flush(20)
        return collector.spans()

    yield sent
    tracer.close(20)
    spans.active = None


@pytest.fixture
def house(tmp_path):
    """A service whose steps run when the test asks for it."""
    made = Harness(tmp_path, workers_count=0, IMAGES_PER_CALL="2", WEBHOOK_SCHEDULE="1,1,1")
    made.work = replace(made.work, engine=MeteredEngine(made.engine))
    yield made
    made.close()


def post(house, count=1, headers=None, **fields):
    body = {"inputMethod": "url", "images": house.urls(count), "prompt": "p", "granularity": "perImage", **fields}
    answer = house.post(body, headers={**ASYNC, **(headers or {})})
    assert answer.status_code == 202, answer.json
    return answer.json["id"]


def above(found):
    """Each span's name → the names of its parents, `caller` for the caller's own span."""
    names = {span.id: span.name for span in found} | {CALLER: "caller"}
    parents = {}
    for span in found:
        parents.setdefault(span.name, set()).add(names.get(span.parent, span.parent))
    return parents


def test_a_request_is_one_trace_from_the_caller_to_the_webhook(house, tracing):
    job = post(house, 3, {"traceparent": SAMPLED, "X-Request-Id": "order-7"}, webhookUrl=HOOK)
    house.drain()
    found = [span for span in tracing() if span.trace == TRACE]
    steps_ = {f"step.{kind}": {"POST /api/v1/extract-image"} for kind in ("stage", "extract", "finalize", "cleanup", "webhook")}
    assert above(found) == {
        "POST /api/v1/extract-image": {"caller"},
        "accept": {"POST /api/v1/extract-image"},
        "accept.check": {"accept"},
        "accept.reserve": {"accept"},
        **steps_,
        "fetch": {"step.stage"},
        "decode": {"step.stage"},
        "scratch.put": {"step.stage"},
        "model.call": {"step.extract"},
        "merge": {"step.finalize"},
        "commit": set(steps_),
        "webhook.send": {"step.webhook"},
    }
    named = {span.name: span for span in found}
    request = named["POST /api/v1/extract-image"]
    assert request.facts == {
        "http.request.method": "POST",
        "http.route": "/api/v1/extract-image",
        "http.response.status_code": 202,
        "extract_image.request": "order-7",
        "extract_image.job": job,
    }
    for span in found:
        if span.name.startswith("step."):
            assert (span.facts["extract_image.job"], span.facts["extract_image.request"]) == (job, "order-7")
            assert span.facts["extract_image.outcome"] == "done"
    fetches = [span.facts for span in found if span.name == "fetch"]
    assert sorted(facts["extract_image.images"] for facts in fetches) == [1, 2]
    calls = [span.facts for span in found if span.name == "model.call"]
    assert {facts["gen_ai.request.model"] for facts in calls} == {"fake-1"}
    assert sum(facts["extract_image.images"] for facts in calls) == 3
    assert calls[0]["gen_ai.usage.input_tokens"] == 10
    assert calls[0]["gen_ai.usage.output_tokens"] == 2
    assert calls[0]["extract_image.tier"] == "standard"
    assert calls[0]["extract_image.finish"] == "complete"
    [(_, headers, _)] = house.deliver.calls
    assert headers["traceparent"] == f"00-{TRACE}-{named['webhook.send'].id}-01"
    assert named["webhook.send"].facts["http.response.status_code"] == 204


def test_a_small_job_that_is_waited_for_is_one_trace_too(make_harness, tracing):
    house = make_harness()
    body = {"inputMethod": "base64", "images": [b64(b"img")], "prompt": "p"}
    assert house.post(body, headers={"traceparent": SAMPLED}).status_code == 200
    house.drain()
    parents = above([span for span in tracing() if span.trace == TRACE])
    assert parents["wait"] == parents["step.stage"] == {"POST /api/v1/extract-image"}
    assert parents["accept.put"] == {"accept"}


def test_images_that_are_staged_while_their_step_is_claimed_are_in_the_trace(house, tracing):
    with ThreadPoolExecutor(1) as ahead:
        house.work = replace(house.work, ahead=ahead)
        job = post(house, headers={"traceparent": SAMPLED}, inputMethod="base64", images=[b64(b"img")])
        [step] = step_ids(house.database, job)
        run_message(house.work, Message(step, input=f"{job}/in-c0", traceparent=SAMPLED))
        house.drain()
    found = [span for span in tracing() if span.trace == TRACE]
    assert (above(found)["stage.ahead"], above(found)["decode"]) == ({"caller"}, {"stage.ahead"})
    [early] = [span for span in found if span.name == "stage.ahead"]
    assert early.facts == {"extract_image.job": job}


def test_a_trace_that_the_caller_does_not_sample_is_not_sent_and_goes_on_in_the_webhook(house, tracing):
    post(house, 1, {"traceparent": f"00-{TRACE}-{CALLER}-00"}, webhookUrl=HOOK)
    house.drain()
    assert [span for span in tracing() if span.name != "supervisor"] == []
    [(_, headers, _)] = house.deliver.calls
    assert headers["traceparent"].startswith(f"00-{TRACE}-")
    assert headers["traceparent"].endswith("-00")


@pytest.mark.parametrize("header", ["", "x", "00-" + "0" * 32 + f"-{CALLER}-01", f"{SAMPLED},{SAMPLED}", spans.HERE.strip("\0")])
def test_a_header_that_names_no_trace_begins_one(house, tracing, header):
    job = post(house, 1, {"traceparent": header})
    house.drain()
    found = [span for span in tracing() if span.facts.get("extract_image.job") == job]
    assert len({span.trace for span in found}) == 1
    assert TRACE not in {span.trace for span in found}
    assert [span.name for span in found if not span.parent] == ["POST /api/v1/extract-image"]


def test_a_step_that_runs_again_links_to_its_attempt_before(make_harness, tracing):
    failures = [RuntimeError("a fault"), ModelUnavailable("away", retry_after=0, cause=Cause.AWAY)]
    house = make_harness(workers_count=0, engine=FakeEngine(script=lambda *_: failures.pop(0) if failures else None))
    post(house, 1, {"traceparent": SAMPLED})
    for _ in range(3):
        house.drain()
        house.skip_waits()
    first, second, third = (span for span in tracing() if span.name == "step.extract")
    assert (first.links, first.failed) == ([], "RuntimeError")
    assert (second.links, second.failed) == ([(TRACE, first.id)], "away")
    assert (third.links, third.failed) == ([(TRACE, second.id)], None)
    assert len({first.id, second.id, third.id}) == 3
    assert third.facts["extract_image.tries"] == 1
    assert {span.parent for span in (first, second, third)} == {first.parent}


def test_a_step_whose_worker_died_links_to_the_attempt_that_nobody_sent(house, tracing):
    job = post(house, 1, {"traceparent": SAMPLED})
    [step] = step_ids(house.database, job)
    with house.database.write() as connection:
        lost = steps.claim(connection, step, owner="dead", lease_ms=-1)
        assert steps.reclaim_expired(connection) == 1
    assert lost.traceparent.startswith(f"00-{TRACE}")
    house.drain()
    [again] = [span for span in tracing() if span.name == "step.stage"]
    assert again.facts["extract_image.expiries"] == 1
    assert len(again.links) == 1
    with house.database.read() as connection:
        assert connection.execute(schema.steps_table.select()).first() is not None


def test_a_retry_of_a_job_is_in_the_trace_of_its_own_request(house, tracing):
    house.fetch.pages["https://pictures.example/0"] = b""
    body = {"inputMethod": "url", "images": ["https://pictures.example/0"], "prompt": "p"}
    job = house.post(body, headers={**ASYNC, "traceparent": SAMPLED}).json["id"]
    house.drain()
    house.page("https://pictures.example/0", b"img0")
    other = TRACE[::-1]
    assert house.ask("POST", f"/api/v1/jobs/{job}/retry", headers={"traceparent": f"00-{other}-{CALLER}-01"}).status_code == 202
    house.drain()
    found = tracing()
    assert {span.facts["extract_image.round"] for span in found if span.name == "step.finalize" and span.trace == other} == {2}
    assert {span.facts["extract_image.round"] for span in found if span.name == "step.finalize" and span.trace == TRACE} == {1}


def test_a_job_of_a_process_without_tracing_has_spans_all_the_same(house, tracing):
    tracer, spans.active = spans.active, None
    job = post(house)
    spans.active = tracer
    house.drain()
    found = [span for span in tracing() if span.facts.get("extract_image.job") == job]
    assert {span.name for span in found} >= {"step.stage", "step.extract", "step.finalize"}
    assert {span.parent for span in found} == {""}


def test_a_request_that_is_refused_is_recorded_by_its_code(house, tracing):
    assert house.post({"inputMethod": "url", "images": [], "prompt": "p"}).status_code == 400
    assert house.get("/api/v1/jobs/job_unknown").status_code == 404
    found = {span.name: span for span in tracing()}
    refused = found["POST /api/v1/extract-image"]
    assert (refused.facts["http.response.status_code"], refused.failed) == (400, None)
    assert found["accept.check"].failed == refused.facts["error.type"] == "invalid_image_count"
    assert found["GET /api/v1/jobs/<job>"].facts["error.type"] == "not_found"


def test_a_fault_of_the_service_fails_the_request_s_span(house, tracing):
    def put(*_):
        raise Transient("https://user:secret@store.example is away")

    house.scratch.put = put
    assert house.post({"inputMethod": "base64", "images": [b64(b"i")], "prompt": "p"}, headers=ASYNC).status_code == 503
    del house.scratch.put
    found = {span.name: span for span in tracing()}
    assert found["accept.put"].failed == "Transient"
    assert found["POST /api/v1/extract-image"].failed == "unavailable"


def test_a_webhook_that_fails_says_its_status_and_the_next_attempt_is_in_the_same_trace(house, tracing):
    answers = [FAILED, ACCEPTED]
    house.deliver.script = answers.__getitem__
    post(house, 1, {"traceparent": SAMPLED}, webhookUrl=HOOK)
    house.drain()
    house.skip_waits()
    house.drain()
    first, second = (span for span in tracing() if span.name == "webhook.send")
    assert (first.failed, second.failed) == ("500", None)
    assert first.trace == second.trace == TRACE


def test_a_cleanup_in_a_group_has_its_span_in_the_trace_of_its_job(house, tracing):
    cleaning = Cleaning(house.database, house.scratch, house.signals, group_seconds=0)
    house.work = replace(house.work, cleaning=cleaning)
    post(house, 1, {"traceparent": SAMPLED})
    house.drain()
    cleaning.close()
    [cleaned] = [span for span in tracing() if span.name == "step.cleanup"]
    assert cleaned.trace == TRACE


def test_the_supervisor_ends_an_overdue_job_in_the_trace_of_the_job(house, tracing):
    post(house, 1, {"traceparent": SAMPLED})
    house.make_overdue()
    house.supervisor.tick()
    house.drain()
    found = tracing()
    [ended] = [span for span in found if span.name == "supervisor.end_overdue"]
    assert ended.trace == TRACE
    [swept] = [span for span in found if span.name == "supervisor.sweep"]
    assert (swept.trace != TRACE, swept.parent) == (True, "")


def test_log_lines_name_the_trace_while_tracing_is_on(house, tracing):
    with capture_logs(processors=[_with_context]) as lines:
        post(house, 1, {"traceparent": SAMPLED})
        house.drain()
    told = {line["event"]: line for line in lines}
    assert told["job_accepted"]["trace_id"] == told["step_done"]["trace_id"] == TRACE
    tracing()
    spans.active, tracer = None, spans.active
    with capture_logs(processors=[_with_context]) as lines:
        post(house)
        house.drain()
    spans.active = tracer
    assert all("trace_id" not in line for line in lines)


def test_nothing_that_is_secret_is_exported(house, tracing, collector):
    """Secrets are put wherever a caller or an operator can put them, and all exported bytes are searched."""
    secret = "S3CRET"
    house.fetch.pages[f"https://user:{secret}@pictures.example/{secret}.png?X-Amz-Signature={secret}"] = secret.encode()
    url = house.page(f"https://pictures.example/{secret}.png?X-Amz-Signature={secret}", secret.encode())
    lost = f"https://pictures.example/lost/{secret}?token={secret}"
    calls = iter(
        [ModelUnavailable(f"key {secret} is refused at https://x.example/?key={secret}", retry_after=0), RuntimeError(secret)]
    )
    house.engine._script = lambda *_: next(calls, None)
    house.deliver.script = lambda number: FAILED if number == 0 else ACCEPTED
    fields = {
        "webhookUrl": f"https://receiver.example/{secret}?token={secret}",
        "metadata": {secret: secret},
        "name": secret,
        "batch": secret,
        "customIds": [secret, f"{secret}2"],
        "schema": {"type": "object", "properties": {secret: {"type": "string"}}},
    }
    headers = {
        **ASYNC,
        "Request-Source": secret,
        "Idempotency-Key": secret,
        "Cookie": secret,
        "tracestate": f"a={secret}",
        "baggage": f"a={secret}",
    }
    body = {"inputMethod": "url", "images": [url, lost], "prompt": f"prompt {secret}", **fields}
    answer = house.post(body, headers=headers)
    assert answer.status_code == 202, answer.json
    for _ in range(4):
        house.drain()
        house.skip_waits()
    house.post({"inputMethod": "base64", "images": [b64(secret.encode() * 9)], "prompt": secret}, headers=ASYNC)
    house.post({"inputMethod": secret, "images": [secret], "prompt": secret}, headers=ASYNC)
    house.post(b'{"inputMethod": "' + secret.encode())
    house.post(body, key=secret)
    house.get(f"/api/v1/jobs/{secret}?after={secret}")
    house.get(f"/api/v1/{secret}?key={secret}")
    house.ask(secret, f"/api/v1/jobs?{secret}")
    house.supervisor.tick()
    house.drain()
    found = tracing()
    assert len(found) > 20
    sent = b"".join(collector.bodies)
    hidden = [secret, house.key, "pictures.example", "receiver.example", "Bearer", b64(secret.encode())[:12]]
    assert [word for word in hidden if word.encode() in sent] == []
    assert {name for span in found for name in span.facts} <= set(ATTRIBUTES.values())


def test_every_fact_that_the_code_gives_a_span_is_one_that_may_be_sent():
    given = set()
    for folder in ("api", "workers", "pipeline"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.With):
                    calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
                    given |= {
                        word.arg for call in calls if ast.unparse(call.func) in {"span", "spans.span"} for word in call.keywords
                    }
    assert given - {None} <= set(ATTRIBUTES)
    assert given


@pytest.mark.parametrize("installed", [True, False])
def test_a_process_without_the_variables_loads_nothing_that_sends_traces(installed):
    """redis-py loads a part of OpenTelemetry for its own metrics where it is installed, and works without it."""
    script = (
        "import sys, os\n"
        f"if not {installed}: sys.modules['opentelemetry'] = None\n"
        "import api.server, api.app, workers.app, workers.supervisor, cli.serve\n"
        "from pipeline.tracing import spans, start\n"
        "start.start('web', {})\n"
        "assert spans.active is None and spans.span('x', images=1) is spans.NOTHING and spans.traceparent() is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.exporter', 'pipeline.tracing.otel'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_forked_child_sends_nothing(collector):
    script = (
        "import os, sys, time\n"
        "from pipeline.tracing import spans, start\n"
        "start.start('web', os.environ)\n"
        "tracer = spans.active\n"
        "with spans.span('before'): pass\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert spans.active is None\n"
        "    with tracer.span('in the child', 'internal', {}): pass\n"
        "    tracer.flush(5); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "with spans.span('after'): pass\n"
        "spans.close(5)\n"
    )
    given = {**os.environ, **collector.settings, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=given, check=True)
    assert sorted(span.name for span in collector.spans()) == ["after", "before"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_turn_tracing_on(given, wanted):
    assert start.is_wanted(given) is wanted


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be otlp"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
    ],
)
def test_a_variable_that_can_t_be_used_is_told_and_the_process_works_without_traces(given, says):
    with capture_logs() as lines:
        start.start("web", given)
    assert spans.active is None
    [line] = lines
    assert (line["event"], line["log_level"]) == ("tracing_off", "warning")
    assert says in line["todo"]


def test_a_missing_extra_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pipeline.tracing.otel", None)
    with capture_logs() as lines:
        start.start("web", {"OTEL_TRACES_EXPORTER": "otlp"})
    assert spans.active is None
    assert "extract-image[otel]" in lines[0]["todo"]


def test_a_collector_that_is_away_is_told_once_and_so_is_its_return(collector, tracing):
    collector.status = 400
    with capture_logs() as lines:
        for _ in range(3):
            with spans.span("lost"):
                pass
            tracing()
        collector.status = 200
        for _ in range(2):
            with spans.span("sent"):
                pass
            tracing()
    assert [line["event"] for line in lines] == ["traces_not_exported", "traces_exported_again"]
    assert len(collector.named("sent")) == 2


def test_an_exception_is_named_by_its_code_and_never_by_its_message():
    assert code_of(ModelUnavailable("secret", retry_after=0, cause=Cause.QUOTA)) == "quota"
    assert code_of(ValueError("secret")) == "ValueError"
    odd = ValueError()
    odd.code = "https://secret"
    assert code_of(odd) == "ValueError"
    assert NOTHING.fail("x") is None


def test_a_process_that_ends_waits_for_a_silent_collector_no_longer_than_it_may(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
        start.start("test", os.environ)
        tracer = spans.active
        spans.active = None
        with tracer.span("never sent", "internal", {}):
            pass
        tracer.flush(0.01)
        tracer.close(0.01)
        tracer.close(0.01)
        assert tracer._closing.is_alive(), "the collector has not answered, and nobody waited for it"
        # It takes the connection, and ends it. Then the threads end too.
    tracer._closing.join(30)


def test_names_of_the_operator_go_before_ours(collector, monkeypatch):
    for name, value in {
        **collector.settings,
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,deployment.environment=test",
    }.items():
        monkeypatch.setenv(name, value)
    start.start("web", os.environ)
    with spans.span("x"):
        pass
    spans.close(20)
    spans.active = None
    [body] = collector.bodies
    assert b"shop" in body
    assert b"extract-image-web" not in body
