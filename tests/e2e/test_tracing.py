"""One request is one trace, across processes; and a collector that is away harms nothing."""

from __future__ import annotations

import base64
import queue
import socket
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from testbed import Production, eventually, pictures, serving, valkey
from testbed.collector import collecting
from testbed.production import free_port
from tests.fakes.gemini import FakeGemini, numbered_picture

pytestmark = pytest.mark.xdist_group("serve")

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
REQUEST = "POST /api/v1/extract-image"


class _Hook(BaseHTTPRequestHandler):
    server: ThreadingHTTPServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.server.arrived.put(self.headers["traceparent"])

    def log_message(self, *_: object) -> None:
        """Logs nothing, to keep pytest's output readable."""


@pytest.fixture(scope="module")
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hook)
    server.arrived = queue.Queue()
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def fake():
    with FakeGemini() as server:
        yield server


@pytest.fixture
def collector():
    with collecting() as server:
        yield server


@pytest.fixture
def settings(fake, receiver):
    allow = f"127.0.0.1/32:{receiver.server_port}"
    return {"ENGINE": "gemini", "GEMINI_API_KEY": fake.key, "GEMINI_BASE_URL": fake.base_url, "WEBHOOK_ALLOW": allow}


def one_image(receiver):
    picture = base64.b64encode(numbered_picture(5)).decode()
    return {
        "inputMethod": "base64",
        "images": [picture],
        "prompt": "p",
        "webhookUrl": f"http://127.0.0.1:{receiver.server_port}/hook",
    }


def check_one_trace(found, job):
    """Every span of the job is in the caller's trace, and each has its parent there."""
    ids = {span.id: span for span in found}
    assert len(ids) == len(found), "each span has an id of its own"
    assert {span.trace for span in found if span.facts.get("extract_image.job") == job} == {TRACE}
    assert [span.name for span in found if span.parent == CALLER] == [REQUEST]
    assert [span.name for span in found if span.parent != CALLER and span.parent not in ids] == []
    [request] = [span for span in found if span.name == REQUEST]
    assert {span.parent for span in found if span.name.startswith("step.")} == {request.id}
    [sent] = [span for span in found if span.name == "webhook.send"]
    assert ids[sent.parent].name == "step.webhook"
    return sent


def test_serve_sends_one_request_from_the_door_to_the_webhook_as_one_trace(tmp_path, settings, receiver, collector):
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=abc"}
    with serving(tmp_path / "data", **settings, **collector.settings, **headers) as service:
        status, _, _ = service.extract(one_image(receiver), TRACED)
        assert status == 200
        header = receiver.arrived.get(timeout=60)
        service.wait_for(lambda: not service.scratch())
        service.wait_for(lambda: '"event": "jobs_cleaned"' in service.log())
        # The rest is sent when the processes end.
    found = [span for span in collector.spans() if span.trace == TRACE]
    [job] = {span.facts["extract_image.job"] for span in found if "extract_image.job" in span.facts}
    sent = check_one_trace(found, job)
    assert header == f"00-{TRACE}-{sent.id}-01"
    names = {span.name for span in found}
    assert names >= {REQUEST, "accept", "accept.check", "accept.reserve", "wait", "step.stage", "step.webhook", "step.cleanup"}
    assert names >= {"decode", "model.call", "commit", "accept.put"}
    assert {span.role for span in found} == {"web", "worker"}
    assert "supervisor" in {span.role for span in collector.spans()}
    assert all("x-collector-key: abc" in header for header in collector.headers)
    accepted = [line for line in service.log().splitlines() if '"job_accepted"' in line]
    assert f'"trace_id": "{TRACE}"' in accepted[0]
    assert "Traceback" not in service.log()


@contextmanager
def fleet(folder, *names, **given):
    """Processes that are started by their own commands, with one database, one folder of scratch and one Valkey."""
    with valkey(folder / "valkey") as redis:
        cluster = Production(folder, {"REDIS_URL": redis, **given})
        try:
            cluster.run("migrate")
            for name in names:
                cluster.start(name)
            yield cluster
        finally:
            cluster.end()


def test_a_big_job_over_two_workers_is_one_trace(tmp_path, settings, receiver, collector):
    with pictures() as web:
        more = {"FETCH_ALLOW": web.allow, "IMAGES_PER_CALL": "2", "WORKER_CONCURRENCY": "1"}
        with fleet(tmp_path, "web-1", "worker-1", "worker-2", "supervisor", **settings, **more, **collector.settings) as cluster:
            client = cluster.client("web-1", cluster.new_key())
            urls = [web.page(f"{n}.png", numbered_picture(n)) for n in range(60)]
            body = {**one_image(receiver), "inputMethod": "url", "images": urls, "granularity": "perImage"}
            _, headers, accepted = client.extract(body, {"Prefer": "respond-async", **TRACED})
            assert client.follow(headers["location"])["counts"]["succeeded"] == 60
            header = receiver.arrived.get(timeout=60)
            client.wait_for(lambda: any(span.name == "step.cleanup" for span in collector.spans()))
    found = [span for span in collector.spans() if span.trace == TRACE and "wait" not in span.name]
    sent = check_one_trace(found, accepted["id"])
    assert header == f"00-{TRACE}-{sent.id}-01"
    stages = [span for span in found if span.name == "step.stage"]
    assert {span.facts["extract_image.part"] for span in stages} == set(range(30))
    workers = {span.instance for span in found if span.role == "worker"}
    assert len(workers) == 2
    assert sum(span.facts["extract_image.images"] for span in found if span.name == "fetch") == 60
    assert sum(span.facts["extract_image.images"] for span in found if span.name == "model.call") == 60


def test_the_last_spans_are_sent_when_a_process_is_told_to_end(tmp_path, settings, receiver, collector):
    lazy = {**collector.settings, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    with fleet(tmp_path, "web-1", "worker-1", "supervisor", **settings, **lazy) as cluster:
        client = cluster.client("web-1", cluster.new_key())
        assert client.extract(one_image(receiver), TRACED)[0] == 200
        receiver.arrived.get(timeout=60)
        client.wait_for(lambda: '"event": "jobs_cleaned"' in cluster.log("worker-1"))
        assert collector.bodies == []
        for name in ("web-1", "worker-1", "supervisor"):
            cluster.stop(name)
    assert {span.role for span in collector.spans()} == {"web", "worker", "supervisor"}
    [job] = {span.facts["extract_image.job"] for span in collector.named("step.stage")}
    check_one_trace([span for span in collector.spans() if span.trace == TRACE], job)


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_collector_that_is_away_harms_neither_the_work_nor_the_stop(tmp_path, settings, receiver, how):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and never answers
        port = silent.getsockname()[1] if how == "hangs" else free_port()
        away = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BSP_MAX_QUEUE_SIZE": "16",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
        }
        quick = {"OTEL_EXPORTER_OTLP_TIMEOUT": "2"} if how == "refuses" else {}
        with fleet(tmp_path, "web-1", "worker-1", "supervisor", **settings, **away, **quick) as cluster:
            client = cluster.client("web-1", cluster.new_key())
            for _ in range(5):
                assert client.extract(one_image(receiver))[0] == 200
                assert receiver.arrived.get(timeout=60)
            if how == "refuses":
                eventually(lambda: "traces_not_exported" in cluster.log("worker-1"))
            for name in ("web-1", "worker-1", "supervisor"):
                cluster.stop(name)
            for name in ("web-1", "worker-1", "supervisor"):
                assert cluster.log(name).count("traces_not_exported") <= 1
                assert "Traceback" not in cluster.log(name)
