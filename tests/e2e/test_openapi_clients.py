"""What others make of /openapi.json: schemathesis tries the running service by it, a generated client uses it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import Service, serving
from tests.fakes.gemini import FakeGemini, numbered_picture

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("openapi")]

#: schemathesis: what the document can't say of a request, and who asks.
CONFIG = """
seed = 7
continue-on-failure = true
request-timeout = 20.0
headers = {{ Prefer = "respond-async" }}
hooks = "{hooks}"

[parameters]
cursor = ""

[auth.wfc]
path = "{folder}/auth.json"
peers = ["anna", "otto"]

[checks]
enabled = true
# 402, 404, 409 and 410 depend on what there is, not on how the request looks.
positive_data_acceptance = {{ expected-statuses = ["2xx", "401", "402", "404", "409", "410"] }}

[generation]
max-examples = {examples}
"""


HOOKS = Path(__file__).with_name("schemathesis_hooks.py")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openapi") / "data"
    with (
        FakeGemini() as fake,
        serving(
            folder,
            GEMINI_API_KEY=fake.key,
            GEMINI_BASE_URL=fake.base_url,
            RATE_LIMIT="1000000/minute",
            MAX_OPEN_JOBS="10000",
            SYNC_WAIT="2",
        ) as running,
    ):
        yield running


def key_with_credits(service: Service, name: str) -> str:
    return json.loads(service.cli("keys", "create", name, "--credits", "100000000", "--json"))["key"]


def test_schemathesis_finds_nothing_with_all_checks_and_two_accounts(service, tmp_path):
    who = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key_with_credits(service, name)}"}]}
        for name in ("anna", "otto")
    ]
    (tmp_path / "auth.json").write_text(json.dumps({"auth": who}))
    (tmp_path / "schemathesis.toml").write_text(CONFIG.format(folder=tmp_path, hooks=HOOKS, examples=10))
    done = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis",
            *("--config-file", tmp_path / "schemathesis.toml", "--no-color"),
            *("run", f"{service.url}/openapi.json", "--checks", "all"),
        ],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]


USE = """
import json, sys
from extract_image_client import AuthenticatedClient
from extract_image_client.api.jobs import get_job, get_job_results, post_jobs
from extract_image_client.models import Error, Job, Request, RequestInputMethod, Result

url, key, picture = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True)
body = Request(input_method=RequestInputMethod.BASE64, images=[picture], prompt="Which number?")
job = post_jobs.sync(client=client, body=body, request_source="generated")
assert isinstance(job, Job), job
while job.finished_at is None:
    job = get_job.sync(job.id, client=client, wait=30)
result = get_job_results.sync(job.id, client=client)
assert isinstance(result, Result), result
unknown = get_job.sync("job_none", client=client)
assert isinstance(unknown, Error), unknown
print(json.dumps([job.status, result.results, result.credit_usage, unknown.code]))
"""


def test_a_generated_client_submits_waits_and_reads_a_job(service, tmp_path):
    tools = Path(sys.executable).parent
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    generated = subprocess.run(
        [
            tools / "openapi-python-client",
            *("generate", "--url", f"{service.url}/openapi.json", "--meta", "none", "--fail-on-warning"),
            *("--config", tmp_path / "config.yml", "--output-path", tmp_path / "extract_image_client"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert generated.returncode == 0, generated.stdout + generated.stderr
    picture = base64.b64encode(numbered_picture(7)).decode()
    used = subprocess.run(
        [sys.executable, "-c", USE, service.url, service.key, picture],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert used.returncode == 0, used.stderr
    assert json.loads(used.stdout) == ["succeeded", "Image 1 shows 7.", 11, "not_found"]
