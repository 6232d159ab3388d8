"""What others make of /openapi.json: schemathesis tries the running service by it, and three generated clients use it."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
positive_data_acceptance = {{ expected-statuses = ["2xx", "302", "401", "402", "404", "409", "410"] }}

[generation]
max-examples = {examples}
"""


HOOKS = Path(__file__).with_name("schemathesis_hooks.py")


@contextmanager
def described_service(folder: Path, **settings: str) -> Iterator[Service]:
    with (
        FakeGemini() as fake,
        serving(
            folder / "data",
            GEMINI_API_KEY=fake.key,
            GEMINI_BASE_URL=fake.base_url,
            RATE_LIMIT="1000000/minute",
            MAX_OPEN_JOBS="10000",
            SYNC_WAIT="2",
            **settings,
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with described_service(tmp_path_factory.mktemp("openapi")) as running:
        yield running


def key_with_credits(service: Service, name: str) -> str:
    return json.loads(service.cli("keys", "create", name, "--credits", "100000000", "--json"))["key"]


def assert_schemathesis_finds_nothing(service: Service, folder: Path, *, examples: int, seconds: float) -> None:
    """Tries the service with all checks and two accounts. `examples`: random requests for each operation, beside the planned ones."""
    who = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key_with_credits(service, name)}"}]}
        for name in ("anna", "otto")
    ]
    (folder / "auth.json").write_text(json.dumps({"auth": who}))
    (folder / "schemathesis.toml").write_text(CONFIG.format(folder=folder, hooks=HOOKS, examples=examples))
    done = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis",
            *("--config-file", folder / "schemathesis.toml", "--no-color"),
            *("run", f"{service.url}/openapi.json", "--checks", "all"),
        ],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]


def test_schemathesis_finds_nothing_with_all_checks_and_two_accounts(service, tmp_path):
    assert_schemathesis_finds_nothing(service, tmp_path, examples=4, seconds=280)


@pytest.mark.real
@pytest.mark.timeout(1300)
def test_schemathesis_finds_nothing_on_postgres_with_more_examples_either(tmp_path, postgres_server):
    with postgres_server.database() as url, described_service(tmp_path, DATABASE_URL=url) as service:
        assert_schemathesis_finds_nothing(service, tmp_path, examples=10, seconds=1200)


#: The programs that use the clients. `make generators` installs TypeScript beside them.
PROGRAMS = Path(__file__).with_name("clients")
TSC = PROGRAMS / "node_modules" / "typescript" / "bin" / "tsc"
TOOLS = Path(sys.executable).parent
#: Imports every module of the client, because a module of which no other makes use may fail alone.
IMPORT_ALL = """
import importlib, pkgutil, extract_image_client as client
for module in pkgutil.walk_packages(client.__path__, "extract_image_client."):
    importlib.import_module(module.name)
"""

needs_openapi_generator = pytest.mark.skipif(
    importlib.util.find_spec("openapi_generator_cli") is None or shutil.which("java") is None,
    reason="openapi-generator needs Java: run `make generators`",
)
needs_typescript = pytest.mark.skipif(
    not TSC.exists() or shutil.which("node") is None, reason="TypeScript and Node are not installed: run `make generators`"
)


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def openapi_generator(service: Service, generator: str, folder: Path, *options: str) -> None:
    """Makes a client as a user does, without options that mend anything."""
    (folder / "openapi.json").write_text(json.dumps(service.send("GET", "/openapi.json")[2]))
    given = ("generate", "--input-spec", folder / "openapi.json", "--generator-name", generator, *options)
    run(TOOLS / "openapi-generator-cli", *given, folder=folder)


def check_and_use(service: Service, program: str, folder: Path, *mypy: str) -> dict[str, Any]:
    """Imports all of a client in Python, checks its types and those of the program, and returns what the program saw."""
    shutil.copy(PROGRAMS / program, folder / "use.py")
    run(sys.executable, "-W", "error", "-c", IMPORT_ALL, folder=folder)
    run(sys.executable, "-m", "mypy", "--cache-dir", os.devnull, *mypy, "use.py", "extract_image_client", folder=folder)
    seen: dict[str, Any] = json.loads(run(sys.executable, "use.py", service.url, service.key, picture(), folder=folder))
    return seen


def picture() -> str:
    return base64.b64encode(numbered_picture(7)).decode()


#: What each program sees, besides what only one of them does.
SEEN = {
    "plain": ["succeeded", "Image 1 shows 7.", 11],
    "records": ["partial", ["succeeded", None, {"seen": "picture 7"}], ["failed", "unsupported_format", None]],
    "each": "succeeded",
    "waited": "Image 1 shows 7.",
    "estimate": 12,
    "unknown": "not_found",
    "refused": [401, "unauthorized"],
}


def test_a_client_of_openapi_python_client_is_imported_checked_and_used(service, tmp_path):
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    run(
        TOOLS / "openapi-python-client",
        *("generate", "--url", f"{service.url}/openapi.json", "--meta", "none", "--fail-on-warning"),
        *("--config", "config.yml", "--output-path", "extract_image_client"),
        folder=tmp_path,
    )
    seen = check_and_use(service, "openapi_python_client.py", tmp_path, "--strict")
    assert seen.pop("uploaded") == "succeeded"
    assert seen == SEEN


@needs_openapi_generator
def test_a_python_client_of_openapi_generator_is_imported_checked_and_used(service, tmp_path):
    openapi_generator(service, "python", tmp_path, "--package-name", "extract_image_client")
    # The clients of this generator use python-dateutil, which has no types.
    assert check_and_use(service, "openapi_generator.py", tmp_path, "--disable-error-code", "import-untyped") == SEEN


@needs_openapi_generator
@needs_typescript
def test_a_typescript_client_of_openapi_generator_is_checked_and_used(service, tmp_path):
    options = ("--additional-properties", "importFileExtension=.js")  # so that Node finds the modules
    openapi_generator(service, "typescript-fetch", tmp_path, "--output", "client", *options)
    shutil.copy(PROGRAMS / "typescript_fetch.ts", tmp_path / "use.ts")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    rules = ("--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom")
    run("node", TSC, *rules, "use.ts", folder=tmp_path)
    assert json.loads(run("node", "use.js", service.url, service.key, picture(), folder=tmp_path)) == SEEN
