"""Every command and example of the documents is run, or checked where running it here would end nothing."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client as McpClient
from mcp import StdioServerParameters
from opentelemetry.sdk import environment_variables

from cli.demo import MERGED
from cli.main import main
from cli.serve import _say
from config.settings import SECRETS, Settings, load_settings
from pipeline.credits import reservation
from pipeline.request.fields import FIELDS
from testbed import Service, environment, serving
from tests.compose import COMPOSE, SERVICES
from tests.docs.markdown import NAMES, ROOT, Block, blocks
from tests.docs.terminal import session

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ocr")]

#: `sh production` and `sh sqlite` are run by tests/e2e/test_backup.py and test_upgrade.py, each with the service that the page is about.
KINDS = {
    "sh",
    "sh production",
    "sh sqlite",
    "python",
    "php",
    "json request",
    "json node",
    "json mcp",
    "text help",
    "text session",
    "mermaid",
}
#: What stays up, or takes minutes: checked, and run by tests of its own (tests/e2e).
LONG_RUNNING = re.compile(
    r"(?P<settings>(?:[A-Z_]+=\S+ )*)(?:make (?P<target>[a-z-]+)|extract-image (?P<command>serve|demo))(?P<rest>.*)"
)
#: What would change this checkout, or needs Docker: checked, and run by tests/component/deploy/test_compose_runs.py as far as may be.
PRODUCTION = re.compile(
    r"cp (?P<copied>\S+) \S+|sh (?P<script>deploy/\S+)|printf %s \S+ > secrets/(?P<secret>\w+)"
    r"|docker compose (?P<verb>[a-z]+)(?P<rest>.*)"
)
TOKEN = "the token of Prometheus"
EXPORT = re.compile(r"export (\w+=\S+ ?)+")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A running service, and what stands for it in the documents."""

    service: Service
    folder: Path

    def put_in(self, text: str) -> str:
        """The text with this service's own values instead of the documents'."""
        text = re.sub(r"--csv (\w+\.csv)", rf'--csv "{self.folder}/\1"', text)  # not into this checkout
        return (
            text.replace("http://127.0.0.1:8000", self.service.url)
            .replace("xim_…", self.service.key)
            .replace("service.log", str(self.service.folder / "serve.log"))
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a reader's shell: the address and the key of the service, in the names that the documents use."""
        return {
            **environment(self.service.folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "URL": self.service.url,
            "KEY": self.service.key,
            "TOKEN": TOKEN,
            "EXTRACT_IMAGE_URL": self.service.url,
            "EXTRACT_IMAGE_KEY": self.service.key,
            "XDG_STATE_HOME": str(self.folder / "xdg-state"),
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(self.folder),
        }

    def run(self, *command: str) -> str:
        """What a command prints, run as a reader would: in the project's folder, with the key in KEY."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("docs")
    # The service serves the pictures itself, as `make serve` does. The port is the one of docs/how-to/webhooks.md.
    with serving(folder / "data", ENGINE="ocr", WEBHOOK_ALLOW="127.0.0.1/32:9009", METRICS_TOKEN=TOKEN) as service:
        yield Stage(service=service, folder=folder)


@pytest.mark.parametrize("name", [name for name in NAMES if any(block.kind != "mermaid" for block in blocks(name))])
def test_what_a_document_shows_happens(name: str, stage: Stage, tmp_path: Path) -> None:
    for block in blocks(name):
        try:
            check(block, stage, tmp_path)
            if block.kind == "text session":
                check_session(name, block, stage)
        except (AssertionError, subprocess.SubprocessError) as error:
            raise AssertionError(f"{name}:{block.line}: {error}") from error


@pytest.mark.parametrize("name", NAMES)
def test_no_block_of_a_document_escapes_its_test(name: str) -> None:
    assert [(block.line, block.kind) for block in blocks(name) if block.kind not in KINDS] == []


def check(block: Block, stage: Stage, folder: Path) -> None:
    ways: dict[str, Callable[[], str | None]] = {
        "sh": lambda: check_shell(block, stage, folder),
        "python": lambda: stage.run(sys.executable, "-W", "error", "-c", stage.put_in(block.text)),
        "php": lambda: check_php(block, stage, folder),
        "json request": lambda: send(stage, "/api/v1/extract-image", stage.put_in(block.text).encode(), {}),
        "json node": lambda: check_node(block, stage),
        "json mcp": lambda: check_mcp(block, stage),
    }
    printed = ways[block.kind]() if block.kind in ways else None  # the others: test_reference.py
    if printed is not None and block.answer is not None:
        assert_like(printed, block.answer, json_answer=block.answer_kind == "json answer")


def check_session(name: str, block: Block, stage: Stage) -> None:
    """Runs the command of the first line in a terminal, and compares what is on the screen then.

    With RECORD_SESSIONS=1 it writes what it sees into the document instead. Times are shown as `…`.
    """
    first, _, shown = block.text.partition("\n")
    seen, code = session(stage.put_in(first.removeprefix("$ ")), cwd=str(ROOT), environment=stage.environment)
    assert code == 0, seen
    seen = re.sub(r"\d+ s,", "… s,", seen.replace(f"{stage.folder}/", ""))
    if os.environ.get("RECORD_SESSIONS"):
        path = ROOT / name
        path.write_text(path.read_text(encoding="utf-8").replace(block.text, f"{first}\n{seen}"), encoding="utf-8")
        return
    assert_like(seen, shown, json_answer=False)


def check_mcp(block: Block, stage: Stage) -> None:
    """Starts the servers of the configuration as an agent's program does, and calls a tool of each."""

    async def used(config: dict[str, Any]) -> bool:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = StdioServerParameters(**{**config, "env": {**config["env"], "PATH": path}})
        async with McpClient(command) as agent:
            return not (await agent.call_tool("usage", {})).is_error

    for config in json.loads(stage.put_in(block.text))["mcpServers"].values():
        assert asyncio.run(used(config))


def check_shell(block: Block, stage: Stage, folder: Path) -> str | None:
    lines = [line for line in block.text.splitlines() if line.strip()]
    calls = [LONG_RUNNING.fullmatch(line) for line in lines]
    if any(calls):
        assert all(calls), "a line that is run stands beside one that is only checked"
        compared = [check_long_running(call, block.answer, folder) for call in calls if call]
        assert block.answer is None or any(compared), "nobody compares the answer"
        return None
    production = [PRODUCTION.fullmatch(line) for line in lines]
    if any(production):
        assert all(production), "a line that is run stands beside one that is only checked"
        assert block.answer is None, "nobody compares the answer"
        for line in production:
            check_production(line)
        return None
    if not all(EXPORT.fullmatch(line) for line in lines):
        return stage.run("sh", "-eu", "-c", stage.put_in(block.text))
    # A valid key is told that there is no such job; any other is refused.
    ask = 'curl -s -o /dev/null -w "%{http_code}" "$URL/api/v1/jobs/none" -H "Authorization: Bearer $KEY"'
    assert stage.run("sh", "-eu", "-c", f"unset URL KEY\n{stage.put_in(block.text)}\n{ask}") == "404"
    return None


def check_long_running(call: re.Match[str], answer: str | None, folder: Path) -> bool:
    """Checks the command and its settings; whether it is one whose answer is compared."""
    given = dict(pair.split("=", 1) for pair in call["settings"].split())
    fields = {name.upper() for name in Settings.model_fields}
    others = {name for name in dir(environment_variables) if name.startswith("OTEL_")}
    assert set(given) <= fields | {f"{name}_FILE" for name in SECRETS} | others
    secret = folder / "secret"
    secret.write_text("the secret\n")
    settings = load_settings({name: str(secret) if name.endswith("_FILE") else value for name, value in given.items()})
    if call["target"]:
        assert re.search(rf"^{call['target']}:", (ROOT / "Makefile").read_text(), re.MULTILINE), call["target"]
        assert re.fullmatch(r"(?: SEED=\d)?(?: REVISION=\S+)?(?: 2> service\.log)?", call["rest"])
    what = call["target"] or call["command"]
    if answer is None or what not in {"serve", "demo"}:
        return False
    if what == "demo":
        check_demo_excerpt(answer)
        return True
    out = io.StringIO()
    _say(settings, "http://127.0.0.1:8000", "xim_…", out)
    assert_like(out.getvalue(), answer, json_answer=False)
    return True


def check_production(line: re.Match[str] | None) -> None:
    """The files, services and commands that it names exist."""
    assert line is not None
    for named in (line["copied"], line["script"]):
        assert named is None or (ROOT / named).is_file()
    assert line["secret"] is None or line["secret"] in COMPOSE["secrets"]
    assert line["verb"] in {None, "build", "exec", "logs", "ls", "port", "ps", "restart", "run", "stats", "up"}
    if line["verb"] in {"logs", "restart"}:
        named = [word for word in line["rest"].partition("|")[0].split() if not word.startswith("-") and not word[0].isdigit()]
        assert named
        assert set(named) <= set(SERVICES)
    if line["verb"] in {"exec", "run"}:
        service, *command = line["rest"].replace("-T ", "").replace("--rm --no-deps ", "").split()
        assert service in SERVICES
        if line["verb"] == "run" and "entrypoint" not in SERVICES[service]:  # the image's own is the command
            command.insert(0, "extract-image")
        if command[0] == "extract-image":
            words = itertools.takewhile(str.islower, command[1:3])
            found: Any = main
            for word in words:
                found = found.commands[word] if hasattr(found, "commands") else found


def check_demo_excerpt(excerpt: str) -> None:
    """The rows name pictures that exist, and say what examples/expected.json says is printed on them."""
    expected: dict[str, Any] = json.loads((ROOT / "examples" / "expected.json").read_text())
    said: dict[str, str] = {}
    name = ""
    for line in excerpt.splitlines():
        if cells := re.fullmatch(r"│ (\S*) +│ (.*) │", line):
            name = cells[1] or name
            said[name] = said.get(name, "") + cells[2]
    assert said, "the excerpt shows no picture"
    squeezed = {picture: re.sub(r"[\s/…]", "", text.lower()) for picture, text in said.items()}
    for picture, text in squeezed.items():
        found = [words for words in expected[picture]["contains"] if re.sub(r"[\s/]", "", words.lower()) in text]
        assert len(found) >= 2, f"{picture} says other things"
    runs = re.findall(r"│ succeeded │ (\d+) of (\d+) +│ (\d+) +│", excerpt)
    assert runs == [(str(count), str(count), str(reservation(count))) for count in (len(expected), MERGED)]
    assert excerpt.rstrip().endswith("Scratch is empty.")


def check_php(block: Block, stage: Stage, folder: Path) -> str | None:
    """Run where there is PHP; its fields and its address are looked at in any case."""
    assert set(re.findall(r"^ {4}'(\w+)' =>", block.text.partition("$context")[0], re.MULTILINE)) <= set(FIELDS)
    assert "'/api/v1/extract-image'" in block.text
    program = shutil.which("php")
    if program is None:
        return None
    script = folder / "example.php"
    script.write_text(block.text)
    return stage.run(program, str(script))


def check_node(block: Block, stage: Stage) -> str:
    """Sends what an n8n HTTP Request node with these parameters sends."""
    [node] = json.loads(stage.put_in(block.text))["nodes"]
    parameters = node["parameters"]
    assert node["type"] == "n8n-nodes-base.httpRequest"
    assert (parameters["method"], parameters["sendBody"], parameters["sendHeaders"]) == ("POST", True, True)
    assert parameters["url"].startswith(stage.service.url)
    headers = {header["name"]: header["value"] for header in parameters["headerParameters"]["parameters"]}
    return send(stage, parameters["url"].removeprefix(stage.service.url), parameters["jsonBody"].encode(), headers)


def send(stage: Stage, path: str, body: bytes, headers: dict[str, str]) -> str:
    status, _, answer = stage.service.send("POST", path, body, headers)
    assert status == 200, answer
    assert "errors" not in answer
    return json.dumps(answer)


def assert_like(printed: str, shown: str, *, json_answer: bool) -> None:
    """`…` in what is shown stands for anything."""
    if json_answer:
        assert_like_json(json.loads(printed), json.loads(shown))
        return
    pattern = re.escape(shown.strip()).replace("…", ".*?")
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"not what is shown:\n{printed}"


def assert_like_json(printed: Any, shown: Any) -> None:
    if isinstance(shown, dict):
        assert list(printed) == list(shown)
        for name in shown:
            assert_like_json(printed[name], shown[name])
    elif isinstance(shown, list):
        assert len(printed) == len(shown)
        for one, other in zip(printed, shown, strict=True):
            assert_like_json(one, other)
    elif isinstance(shown, str):
        assert isinstance(printed, str)
        assert_like(printed, shown, json_answer=False)
    else:
        assert (type(printed), printed) == (type(shown), shown)
