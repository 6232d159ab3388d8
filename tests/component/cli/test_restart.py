"""A --restart gives up the jobs of earlier runs only when it begins, and says what it can't give up."""

from __future__ import annotations

from contextlib import closing

import httpx2
import pytest

from cli.client import Client
from cli.run.earlier import Restart
from cli.run.progress import Reporter
from cli.run.scan import Found
from cli.run.state import State
from tests.harness import running

HERE, ELSEWHERE = "http://service.example", "http://other.example"


class Told(Reporter):
    """Keeps what the user is warned of."""

    def __init__(self):
        super().__init__(quiet=True)
        self.texts = []

    def warn(self, _event, text, **_):
        self.texts.append(text)


@pytest.fixture
def house(tmp_path):
    with running(tmp_path / "house", workers_count=0) as made:
        yield made


@pytest.fixture
def client(house):
    with Client(HERE, house.key, transport=httpx2.WSGITransport(app=house.app)) as made:
        yield made


def state_at(service, path=None):
    state = State(path)
    state.set_fact("service", service)
    return state


def sent(state, client, url):
    """Makes a job whose answer the earlier run did not see. Returns its id at the service."""
    state.begin_scan()
    state.add([Found(name="a", source=url, is_url=True)])
    state.write_job("key", {"prompt": "p"}, state.take_new(9)[1])
    fields = {"prompt": "p", "granularity": "perImage", "metadata": {"run": "key"}}
    return client.create_job([url], fields, idempotency_key="key").id


def restart(old, folder, service=HERE):
    return Restart(old=old, fresh=state_at(service), old_folder=folder / "old", new_folder=folder / "new")


def test_a_job_whose_answer_was_lost_is_found_and_cancelled_when_the_restart_begins(house, client, tmp_path):
    with closing(state_at(HERE, tmp_path / "o.csv.state")) as old:
        job = sent(old, client, *house.urls(1))
        begun, told = restart(old, tmp_path), Told()
        begun.tell(told)
        assert client.job(job).status == "queued"
        assert len(old.unfinished_jobs()) == 1
        assert begun.begin(client, told) is old
        assert client.job(job).status == "cancelled"
        assert old.unfinished_jobs() == []
        assert "1 job of the earlier run cancelled; the jobs given up cost 0 credits" in told.texts[-1]
        begun.fresh.close()


def test_jobs_at_another_service_are_named_because_they_go_on(house, client, tmp_path):
    with closing(state_at(ELSEWHERE)) as old:
        job = sent(old, client, *house.urls(1))
        begun, told = restart(old, tmp_path), Told()
        begun.tell(told)
        assert f"may still run, and be paid, at {ELSEWHERE}" in told.texts[-1]
        begun.begin(client, told)
        assert client.job(job).status == "queued"
        begun.fresh.close()


def test_data_of_an_embedded_service_stays_until_the_restart_begins(client, tmp_path):
    with closing(state_at("embedded")) as old:
        declined, begun = restart(old, tmp_path, "embedded"), restart(old, tmp_path, "embedded")
        for folder in (declined.old_folder, declined.new_folder):
            folder.mkdir()
        declined.end()
        assert [path.name for path in tmp_path.iterdir() if path.name in {"old", "new"}] == ["old"]
        begun.new_folder.mkdir()
        begun.begin(client, Told())
        begun.end()
        assert [path.name for path in tmp_path.iterdir() if path.name in {"old", "new"}] == ["new"]
        for each in (declined, begun):
            each.fresh.close()
