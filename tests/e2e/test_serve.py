"""`extract-image serve`: how it starts, ends, and stands up to real connections."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
import pytest

from testbed import ROOT, Service, command_of, environment, pictures, serving
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.fakes.gemini_behaviours import in_turn, rate_limited

pytestmark = pytest.mark.xdist_group("serve")


def raw(service: Service, request: bytes) -> bytes:
    """What comes back for bytes on the wire."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def picture(number: int) -> str:
    return base64.b64encode(numbered_picture(number)).decode()


@pytest.fixture(scope="module")
def fake():
    with FakeGemini() as server:
        yield server


@pytest.fixture(scope="module")
def service(fake, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve") / "data"
    with serving(folder, GEMINI_API_KEY=fake.key, GEMINI_BASE_URL=fake.base_url, MAX_BODY="160000000") as running:
        yield running


def test_an_image_is_answered_through_the_real_queue(service):
    status, headers, answer = service.extract({"inputMethod": "base64", "images": [picture(7)], "prompt": "Which number?"})
    assert status == 200
    assert answer == {
        "results": "Image 1 shows 7.",
        "prompt": "Which number?",
        "imageCount": 1,
        "creditUsage": 11,
    }
    assert headers["x-ratelimit-limit"] == "600"
    service.wait_for(lambda: not service.scratch())


def test_one_page_shows_what_the_processes_have_counted_each_for_itself(service):
    def page():
        with urlopen(f"{service.url}/metrics") as answer:
            return answer.read().decode()

    service.extract({"inputMethod": "base64", "images": [picture(1)], "prompt": "p"})
    service.wait_for(lambda: all(f'process_up{{role="{role}"' in page() for role in ("web", "worker", "supervisor")))
    service.wait_for(
        lambda: re.search(r'steps_total{kind="stage",outcome="done",role="worker",process="[^"]+:\d+-[0-9a-f]+"} [1-9]', page())
    )
    assert re.search(
        r'http_requests_total{method="POST",route="/api/v1/extract-image",status="200",role="web",[^}]*} [1-9]', page()
    )
    assert re.search(r'model_calls_total{engine="gemini",outcome="complete",role="worker",[^}]*} [1-9]', page())


def test_the_curl_line_that_serve_prints_works_when_pasted(service):
    from cli.serve import curl_line

    line = curl_line(service.url, service.key)
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["creditUsage"] == 11


def test_keys_and_credits_are_managed_beside_the_running_service(service):
    made = json.loads(service.cli("keys", "create", "beside", "--credits", "11", "--json"))
    assert set(made) == {"account", "key"}
    other = Service(service.folder, service.process, service.url, made["key"])
    body = {"inputMethod": "base64", "images": [picture(1)], "prompt": "p"}
    assert other.extract(body)[0] == 200
    assert other.extract(body)[0] == 402
    service.cli("credits", "grant", "beside", "11")
    assert other.extract(body)[0] == 200
    service.cli("keys", "revoke", "beside")
    assert other.extract(body)[0] == 401


def test_a_body_without_a_length_is_refused_with_411(service):
    head = f"POST /api/v1/extract-image HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\n"
    body = b'{"inputMethod":"url","images":["https://a.example/"],"prompt":"p"}'
    chunked = f"{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    assert b" 411 " in raw(service, chunked).splitlines()[0]


def test_a_client_that_sends_a_large_body_without_a_key_still_reads_its_401(service):
    anonymous = Service(service.folder, service.process, service.url, "nobody")
    status, _, answer = anonymous.extract(b"x" * 30_000_000)
    assert (status, answer) == (401, {"error": "Invalid or missing Authorization header"})


def test_a_body_that_is_too_large_is_a_400_that_the_client_can_read(service):
    status, headers, _ = service.extract(b" " * 160_000_001)
    assert (status, headers["x-error-code"]) == (400, "body_too_large")


def test_a_hundred_and_one_megabytes_of_images_are_refused_by_name_of_the_image(service):
    image = base64.b64encode(bytes(10 * 1024 * 1024)).decode()
    images = [image] * 10 + [base64.b64encode(bytes(1024 * 1024)).decode()]
    status, headers, answer = service.extract({"inputMethod": "base64", "images": images, "prompt": "p"})
    assert (status, headers["x-error-code"]) == (400, "total_too_large")
    assert "images[10]" in answer["error"]
    service.wait_for(lambda: not service.scratch())


def test_a_429_of_the_model_is_waited_out(service, fake):
    fake.script = in_turn(rate_limited("0.2s"))
    try:
        status, _, answer = service.extract({"inputMethod": "base64", "images": [picture(3)], "prompt": "p"})
    finally:
        fake.script = None
    assert (status, answer["results"]) == (200, "Image 1 shows 3.")


def test_no_log_line_holds_a_key_a_prompt_or_an_image(service, fake):
    image = picture(9)
    before = service.log().count("step_done")
    service.extract({"inputMethod": "base64", "images": [image], "prompt": "a-very-secret-prompt"})
    service.extract({"inputMethod": "url", "images": ["http://127.0.0.1:1/a?signature=a-very-secret-signature"], "prompt": "p"})
    service.wait_for(lambda: service.log().count("step_done") >= before + 2)  # the answers do not wait for these lines
    log = service.log()
    for secret in (service.key, fake.key, "a-very-secret-prompt", image[:60], "a-very-secret-signature"):
        assert secret not in log
    accepted = [json.loads(line) for line in log.splitlines() if line.startswith("{") and "step_done" in line]
    assert accepted
    assert all({"job", "step", "kind"} <= set(record) for record in accepted)


def test_a_second_serve_on_the_same_data_is_refused_with_what_to_do(service):
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "serve"],
        cwd=ROOT,
        env=environment(service.folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Another `extract-image serve` uses" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_told_at_once(service, tmp_path):
    port = str(urlsplit(service.url).port)
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "serve"],
        cwd=ROOT,
        env=environment(tmp_path, PORT=port),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"Can't listen on 127.0.0.1:{port}" in done.stderr


def test_all_faults_of_the_settings_are_listed_at_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "serve"],
        cwd=ROOT,
        env=environment(tmp_path, PORT="x", MAX_BODY="-1", REDIS_URL="amqp://x", FETCH_ALLOW="nonsense"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    for name in ("PORT", "MAX_BODY", "REDIS_URL", "FETCH_ALLOW"):
        assert re.search(rf"^ +{name}", done.stderr, re.MULTILINE), done.stderr


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_ctrl_c_ends_every_process_and_frees_the_data(tmp_path):
    with serving(tmp_path / "data") as service:
        processes = family(service.process)
        assert len(processes) >= 4
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=60) == 0
        psutil.wait_procs(processes, timeout=20)
        assert [process for process in processes if process.is_running()] == []


def test_when_serve_is_killed_its_children_end_too(tmp_path):
    with serving(tmp_path / "data") as service:
        processes = family(service.process)
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait()
        _, alive = psutil.wait_procs(processes, timeout=40)
        assert alive == []
    with serving(tmp_path / "data") as again:
        assert again.send("GET", "/api/v1/extract-image")[0] == 200


def test_a_worker_that_is_killed_half_way_is_replaced_and_the_job_ends(tmp_path):
    with FakeGemini(latency=0.2) as fake, pictures() as web:
        urls = [web.page(f"{n}.png", numbered_picture(n)) for n in range(300)]
        settings = {"GEMINI_API_KEY": fake.key, "GEMINI_BASE_URL": fake.base_url, "FETCH_ALLOW": web.allow}
        with serving(tmp_path / "data", LEASE_SECONDS="2", MERGED_PER_CALL="10", WORKER_CONCURRENCY="2", **settings) as service:
            status, headers, _ = service.extract(
                {"inputMethod": "url", "images": urls, "prompt": "p"}, {"Prefer": "respond-async"}
            )
            assert status == 202
            fake.wait_for(lambda: len(fake.seen) >= 50, timeout=30)
            [worker] = [process for process in family(service.process) if command_of(process)[-1:] == ["worker"]]
            worker.kill()
            job = service.follow(headers["location"])
            assert job["counts"] == {"total": 300, "succeeded": 300, "failed": 0}
            assert job["usage"]["credits"] == 310
            _, _, answer = service.send("GET", job["links"]["results"])
            said = re.findall(r"^Image (\d+) shows (\d+)\.$", answer["results"], re.MULTILINE)
            assert said == [(str(n + 1), str(n)) for n in range(300)]
            service.wait_for(lambda: not service.scratch())
