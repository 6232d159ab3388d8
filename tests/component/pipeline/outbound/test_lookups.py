"""Names whose server never answers delay only the account that asks for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from pipeline.outbound.addresses import Target, read_url
from pipeline.outbound.guard import Names, shorten_lookups
from pipeline.outbound.lookup_turns import Asker

PUBLIC = "93.184.215.14"


class Resolver:
    """Answers for every name at once, but for names that start with `dead` only after `answer` is set."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, _port: int) -> list[str]:
        self.asked.append(host)
        if host.startswith("dead"):
            self.answer.wait(30)
        return [PUBLIC]


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    made = Resolver()
    yield made
    made.answer.set()


def target(host: str) -> Target:
    found = read_url(f"https://{host}/a.png", ())
    assert isinstance(found, Target)
    return found


def ask(names: Names, count: int, *, jobs: int) -> list[Future[tuple[str, ...]]]:
    """Has an account ask for many names that never answer."""
    askers = [Asker("greedy", f"job{job}") for job in range(jobs)]
    return [
        names.look_up(target(f"dead{index}.d{index}-{asker.job}.example"), asker) for asker in askers for index in range(count)
    ]


def test_while_an_accounts_names_never_answer_another_accounts_names_are_looked_up_at_once(resolver):
    names = Names((), resolve=resolver, places=16)
    dead = ask(names, 100, jobs=20)
    for number in range(200):
        assert names.look_up(target(f"live{number}.example"), Asker("other", "job")).result(timeout=20) == (PUBLIC,)
    assert not any(future.done() for future in dead)
    assert sum(host.startswith("dead") for host in resolver.asked) == 8


def test_a_name_for_which_nobody_waits_any_more_is_not_looked_up(resolver):
    names = Names((), resolve=resolver, places=2)
    dead = ask(names, 5, jobs=1)
    twice = names.look_up(target("dead4.d4-job0.example"), Asker("greedy", "job0"))
    assert twice is dead[4]
    for future in dead:
        names.give_up(future)
    resolver.answer.set()
    assert twice.result(timeout=20) == (PUBLIC,)  # one caller still waits for it
    assert resolver.asked == ["dead0.d0-job0.example", "dead4.d4-job0.example"]


def test_the_systems_resolver_gives_up_soon_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.setenv("RES_OPTIONS", "")  # so that it is set back
    monkeypatch.delenv("RES_OPTIONS")
    shorten_lookups()
    assert os.environ["RES_OPTIONS"] == "timeout:2 attempts:2"
    monkeypatch.setenv("RES_OPTIONS", "timeout:9")
    shorten_lookups()
    assert os.environ["RES_OPTIONS"] == "timeout:9"
