"""What others make of /openapi.json: schemathesis tries the running service by it, a generated client uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.service import Service, serving
from tests.fakes.gemini import FakeGemini

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("openapi")]

#: schemathesis: what the document can't say of a request, and who asks.
CONFIG = """
seed = 7
continue-on-failure = true
request-timeout = 20.0
headers = {{ Prefer = "respond-async" }}

[auth.wfc]
path = "{folder}/auth.json"
peers = ["anna", "otto"]

[checks]
enabled = true
positive_data_acceptance = {{ expected-statuses = ["2xx", "401", "402", "404", "409", "410"] }}

[generation]
max-examples = {examples}
"""


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
    (tmp_path / "schemathesis.toml").write_text(CONFIG.format(folder=tmp_path, examples=15))
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
    Path("/tmp/w7b-st.out").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-20_000:]
