"""What `pipeline.ports.EngineModule` promises, of the module of each engine in the table of config/engines.py."""

from __future__ import annotations

import socket

import pytest

from config.engines import ENGINES
from pipeline.ports import EngineConfig, EngineModule, ProbeFailed
from tests.fakes.reencode import fake_reencode


def config_of(name, tmp_path, base_url):
    return EngineConfig(model="m", api_key="k", base_url=base_url, directory=tmp_path)


@pytest.fixture
def closed_port():
    """The address of a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("name", ENGINES)
def test_it_opens_an_engine_of_its_own_name_and_asks_nobody(name, tmp_path, closed_port):
    module: EngineModule = ENGINES[name].load()
    engine = module.open_engine(config_of(name, tmp_path, closed_port), fake_reencode)
    try:
        assert engine.name == name
        assert engine.limits.pictures >= 1
    finally:
        engine.close()


@pytest.mark.parametrize("name", [name for name, kind in ENGINES.items() if kind.base_url])
def test_a_probe_of_a_server_that_is_away_fails_and_says_what_to_do(name, tmp_path, closed_port):
    with pytest.raises(ProbeFailed) as failed:
        ENGINES[name].load().probe(config_of(name, tmp_path, closed_port), 5.0)
    assert str(failed.value)
    assert ENGINES[name].base_url in failed.value.todo


def test_a_probe_of_an_engine_without_a_server_says_what_it_found(tmp_path):
    [name] = [name for name, kind in ENGINES.items() if not kind.base_url]
    assert "installed" in ENGINES[name].load().probe(config_of(name, tmp_path, ""), 5.0)
