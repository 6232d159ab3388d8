"""Following a job: rows come while it runs, and an answer that is gone is never paid again in silence."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from cli.client import Client
from cli.run import follow as following
from cli.run.follow import Board, follow, waits_of
from cli.run.options import Options
from cli.run.plan import Limits
from cli.run.progress import Reporter
from cli.run.scan import Found
from cli.run.send import Run, next_job, send
from cli.run.state import State
from pipeline.notes import WARNINGS
from pipeline.types import ItemCode
from tests.fakes.engine import FakeEngine
from tests.harness import running


class Told(Reporter):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__(quiet=True)
        self.failures, self.warnings = [], []

    def failure(self, name, code, message):
        self.failures.append((name, code, message))

    def warn(self, event, text, **_):
        self.warnings.append((event, text))


@contextmanager
def run_of(house, count):
    """A run of `count` URLs with one job that was sent."""
    state = State(None)
    client = Client("http://service.example", house.key, transport=httpx2.WSGITransport(app=house.app))
    with client:
        run = Run(
            options=Options(paths=("-",), outputs={"csv": Path("unused.csv")}),
            client=client,
            state=state,
            reporter=Told(),
            limits=Limits.of(client.formats(), None),
            salt="",
            keep=False,
            of_images=count,
            stop=threading.Event(),
            full=threading.Event(),
            packing=threading.Lock(),
        )
        state.begin_scan()
        state.add([Found(name=url, source=url, is_url=True) for url in house.urls(count)])
        job = send(run, next_job(run))
        yield run, job
        run.stop.set()
    state.close()


def names(rows):
    return [row.name[-1] for row in rows]


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A service whose model answers the first call, about two images, and waits with each later one until it is told to go on."""
    monkeypatch.setattr(following, "POLL_SECONDS", 1)
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.1)
    go_on = threading.Event()
    engine = FakeEngine(script=lambda _call, number: number > 1 and go_on.wait() and None)
    with running(tmp_path, workers_count=1, engine=engine, IMAGES_PER_CALL="2") as house:
        try:
            yield house, go_on
        finally:
            go_on.set()


def test_rows_come_while_their_job_runs_and_each_row_comes_once(slow):
    house, go_on = slow
    came, first = [], threading.Event()

    def on_rows(rows):
        came.append(names(rows))
        first.set()

    with run_of(house, 4) as (run, job):
        thread = threading.Thread(target=follow, args=(run, job, Board(), on_rows))
        thread.start()
        assert first.wait(20)
        assert came == [["0", "1"]]
        assert run.state.tally().done == 0  # the state takes them with the end of their job
        go_on.set()
        thread.join(20)
        assert came == [["0", "1"], ["2", "3"]]
        assert [row.result for row in run.state.rows()] == ["img0", "img1", "img2", "img3"]


def test_answers_that_the_service_deleted_fail_with_a_reason_and_are_not_sent_again_in_the_same_run(tmp_path):
    with running(tmp_path, workers_count=0) as house, run_of(house, 2) as (run, job):
        house.drain()
        house.make_expired()
        house.supervisor.purge()
        came = []
        follow(run, job, Board(), came.extend)
        assert [(row.state, row.code) for row in came] == [("failed", "results_expired")] * 2
        assert "was read and paid" in run.reporter.failures[0][2]
        assert next_job(run) is None
        run.state.try_again(also_lasting=False)
        assert next_job(run).images == 2


def test_a_job_that_the_service_deleted_is_said_to_be_paid_again(tmp_path):
    with running(tmp_path, workers_count=0) as house, run_of(house, 2) as (run, job):
        run.client.delete(job.id)
        follow(run, job, Board(), lambda _: None)
        [(event, text)] = run.reporter.warnings
        assert event == "job_gone"
        assert "Its 2 images will be sent, and paid, again" in text
        assert next_job(run).images == 2


def test_a_failed_image_is_named_once(tmp_path):
    with running(tmp_path, workers_count=0) as house, run_of(house, 2) as (run, job):
        del house.fetch.pages["https://pictures.example/1"]
        house.drain()
        came = []
        follow(run, job, Board(), came.extend)
        assert [code for _, code, _ in run.reporter.failures] == [ItemCode.FETCH_FAILED]
        assert names(came) == ["0", "1"]


def test_what_was_not_read_of_an_image_is_said_once_and_is_nothing_to_wait_for(tmp_path):
    with running(tmp_path, workers_count=0) as house, run_of(house, 2) as (run, job):
        seen = replace(run.client.job(job.id), warnings=(*WARNINGS.values(), "The model is overloaded."))
        assert waits_of(seen) == ["The model is overloaded."]
        board = Board()
        assert board.new_notes(seen) == list(WARNINGS.values())
        assert board.new_notes(seen) == []
