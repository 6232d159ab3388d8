"""Real model servers: llama.cpp's `llama-server` with a tiny vision model, and the proxy LiteLLM.

`make real-servers` installs them into a virtual environment of their own, because LiteLLM brings 100 packages that are not ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from testbed.production import free_port
from testbed.service import ROOT

FOLDER = ROOT / ".venv-servers"  #: the Makefile's SERVERS
LLAMA_SERVER = FOLDER / "bin" / "llama-server"
LITELLM = FOLDER / "bin" / "litellm"
#: A model with random weights: see its make_model.py. It answers nonsense, but under a JSON grammar valid JSON.
TINY = Path(__file__).with_name("tiny_vision")
START_SECONDS = 300.0  #: LiteLLM's first start compiles its packages, and took 170 s on a busy machine


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelServer:
    """A running server with OpenAI's API."""

    base_url: str
    api_key: str  #: "" if it asks for none
    model: str  #: the name of a model that it has


def missing(*programs: Path) -> str:
    """Which of the programs are not installed, as a reason to skip a test. "" if all are."""
    names = ", ".join(program.name for program in programs if not program.exists())
    return f"{names}: not installed; `make real-servers` installs and asks them" if names else ""


@contextmanager
def llama_server(folder: Path, *options: str, eyes: bool = True, api_key: str = "") -> Iterator[ModelServer]:
    """Starts `llama-server` with the tiny model. `eyes`: whether it is given the part of the model that sees pictures.

    The seed makes its answers the same each time. With some other seeds a text is empty now and then.
    """
    port = free_port()
    command = [LLAMA_SERVER, "-m", TINY / "tiny.gguf", "--alias", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--seed", "7"]
    command += ["--mmproj", TINY / "mmproj.gguf"] if eyes else []
    command += ["--api-key", api_key] if api_key else []
    with _running([*command, *options], folder / "llama-server.log", f"http://127.0.0.1:{port}/health", {}):
        yield ModelServer(base_url=f"http://127.0.0.1:{port}/v1", api_key=api_key, model="tiny")


@contextmanager
def litellm(folder: Path, behind: Mapping[str, ModelServer]) -> Iterator[ModelServer]:
    """Starts LiteLLM before other servers. `behind` has the server of each of its models, by the model's name in LiteLLM."""
    port = free_port()
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{at.model}", "api_base": at.base_url, "api_key": at.api_key or "none"},
        }
        for name, at in behind.items()
    ]
    key = "sk-key-of-the-proxy"
    config = folder / "litellm.json"
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": key}}))
    # It would fetch a list of prices, and the environment's proxy does not know this machine's ports.
    given = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*", "HOME": str(folder)}
    command = [LITELLM, "--config", config, "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    with _running(command, folder / "litellm.log", f"http://127.0.0.1:{port}/health/liveliness", given):
        yield ModelServer(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, model=next(iter(behind)))


@contextmanager
def _running(command: Sequence[str | Path], log: Path, health: str, given: Mapping[str, str]) -> Iterator[None]:
    """Runs the server in the block, after `health` has answered 200."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={"PATH": os.environ["PATH"], **given}
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(health):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False
