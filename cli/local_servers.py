"""Looks for servers of local models on this machine, and says with which settings the service would use one."""

from __future__ import annotations

import http.client
import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

#: Port → the server that listens there if nobody says otherwise.
PORTS: Mapping[int, str] = {
    11434: "Ollama",
    1234: "LM Studio",
    8080: "llama.cpp",
    8000: "vLLM",
    1337: "Jan",
    5001: "KoboldCpp",
    30000: "SGLang",
    4000: "LiteLLM",
}
SECONDS = 0.3  #: for one answer; a server on this machine needs a few milliseconds
MOST_BYTES = 1 << 20  #: of a list of models
_SEES = ("vl", "vision", "llava", "gemma3", "gemma-3", "minicpm-v", "moondream", "pixtral", "internvl", "mistral-small3")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalServer:
    """A server on this machine that lists models."""

    name: str  #: by its port, so it may be another one
    port: int
    models: tuple[str, ...]

    @property
    def advice(self) -> str:
        """One sentence with the settings that use the server."""
        found = f"{self.name} answers on port {self.port}"
        settings = f"ENGINE=openai OPENAI_BASE_URL=http://127.0.0.1:{self.port}/v1 MODEL="
        if not self.models:
            return f"{found}, without a model: load one that sees images, then set {settings}NAME."
        best = next((name for name in self.models if any(word in name.lower() for word in _SEES)), self.models[0])
        return f"{found}: to use it, set {settings}{best} (the model must see images)."


def local_servers(*, without: Collection[int] = (), ports: Mapping[int, str] = PORTS) -> list[LocalServer]:
    """The servers that list models by GET /v1/models, in the order of `ports`. Takes about SECONDS.

    `without`: ports that are not asked, because our own service listens there.
    """
    asked = {port: name for port, name in ports.items() if port not in without}
    if not asked:
        return []
    with ThreadPoolExecutor(len(asked), thread_name_prefix="local-server") as pool:
        return [found for found in pool.map(_ask, asked, asked.values()) if found]


def _ask(port: int, name: str) -> LocalServer | None:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
            connection.request("GET", "/v1/models", headers={"Accept": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                return None
            document = json.loads(answer.read(MOST_BYTES))
        entries = document["data"]
        models = tuple(str(entry["id"]) for entry in entries)
    except (OSError, http.client.HTTPException, ValueError, RecursionError, LookupError, TypeError):
        return None
    return LocalServer(name=name, port=port, models=models)
