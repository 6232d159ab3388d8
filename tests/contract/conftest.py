"""The real model servers. A test that asks for one is skipped until `make real-servers` has installed it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.model_servers import LITELLM, LLAMA_SERVER, ModelServer, litellm, llama_server, missing
from tests.fakes.openai import FakeOpenAI

NOWHERE = ModelServer(base_url="http://127.0.0.1:9/v1", api_key="", model="away")  #: nobody listens on this port


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A llama-server whose model sees pictures, and answers nonsense."""
    if why := missing(LLAMA_SERVER):
        pytest.skip(why)
    with llama_server(tmp_path_factory.mktemp("llama")) as server:
        yield server


@pytest.fixture(scope="session")
def behind_the_proxy() -> Iterator[FakeOpenAI]:
    """The fake server that LiteLLM passes the calls of its first model on to."""
    with FakeOpenAI() as server:
        yield server


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory, behind_the_proxy: FakeOpenAI) -> Iterator[ModelServer]:
    """A LiteLLM. Its models: "vision:7b" of the fake, "gone", which the fake does not have, "locked", for which LiteLLM has a
    wrong key, "dead", whose server is away, and "llama" of a llama-server.
    """
    if why := missing(LITELLM):
        pytest.skip(why)
    fake = ModelServer(base_url=behind_the_proxy.base_url, api_key=behind_the_proxy.key, model=behind_the_proxy.models[0])
    behind = {
        fake.model: fake,
        "gone": ModelServer(base_url=fake.base_url, api_key=fake.api_key, model="gone"),
        "locked": ModelServer(base_url=fake.base_url, api_key="sk-a-wrong-key-of-the-proxy", model=fake.model),
        "dead": NOWHERE,
        "llama": NOWHERE,
    }
    folder = tmp_path_factory.mktemp("litellm")
    if LLAMA_SERVER.exists():
        with llama_server(folder) as llama, litellm(folder, {**behind, "llama": llama}) as server:
            yield server
        return
    with litellm(folder, behind) as server:
        yield server
