"""The connection breaks while the job's commit is under way. The answer is true all the same, and nothing is left in scratch."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import make_url, text

from pipeline.errors import StorageFull, Transient
from storage.sql_errors import OutcomeUnknown
from tests.harness import b64

BODY = {"inputMethod": "base64", "images": [b64(b"img a")], "prompt": "p"}
ASYNC = {"Prefer": "respond-async"}
#: Makes each commit that adds a job take 0.3 s, as the commit of a slow disk or of a synchronous standby does.
SLOW_COMMIT = """
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
"""


class CommitCutter:
    """Forwards connections to a Unix socket. Once `armed`, it forwards the next COMMIT of a new job and ends that connection."""

    def __init__(self, target: str) -> None:
        self.url = ""
        self.armed = False
        self.cut = 0
        self._target = target
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for end in (self._listener, *self._sockets):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                self._sockets += [client, server]
                server.connect(self._target)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(*pair, client), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, client: socket.socket) -> None:
        of_a_job = False
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
                of_a_job = of_a_job or b"INSERT INTO jobs" in piece
                if source is client and self.armed and of_a_job and b"COMMIT" in piece:
                    self.armed = False
                    self.cut += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cutter(postgres_server) -> Iterator[CommitCutter]:
    """Stands before an empty Postgres database whose URL is `cutter.url`."""
    with postgres_server.database() as url:
        parsed = make_url(url)
        cutter = CommitCutter(f"{parsed.query['host']}/.s.PGSQL.5432")
        cutter.url = parsed.set(host="127.0.0.1", port=cutter.port, query={}).render_as_string(hide_password=False)
        try:
            yield cutter
        finally:
            cutter.close()


def test_a_job_whose_slow_commit_lost_its_reply_is_accepted_once(cutter, make_harness):
    house = make_harness(workers_count=0, DATABASE_URL=cutter.url)
    with house.database.write() as connection:
        connection.execute(text(SLOW_COMMIT))
    cutter.armed = True
    answer = house.post(BODY, headers=ASYNC)
    assert cutter.cut == 1
    assert answer.status_code == 202
    assert house.count_rows("jobs") == 1
    house.drain()
    assert house.get(answer.headers["Location"]).json["status"] == "succeeded"


class Failing:
    """A database whose next writes fail: each with the next error of the list, and None lets the write through."""

    def __init__(self, house, *errors: Exception | None) -> None:
        self._write = house.database.write
        self._errors = list(errors)
        house.database.write = self

    @contextmanager
    def __call__(self):
        error = self._errors.pop(0) if self._errors else None
        with self._write() as connection:
            yield connection
            if error:
                raise error


def test_a_job_that_was_not_committed_leaves_nothing_in_scratch(harness):
    for error, code in [
        (StorageFull("full"), "storage_full"),
        (Transient("deadlock"), "unavailable"),
        (OutcomeUnknown("cut"), "unavailable"),
    ]:
        Failing(harness, error)
        answer = harness.post(BODY, headers=ASYNC)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, code)
        assert "nothing was accepted or charged" in answer.json["error"]
        assert list(harness.scratch.list("")) == []
    assert harness.balance() == (100_000, 0, 0)


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
def test_where_nobody_can_say_whether_a_job_was_accepted_the_answer_says_so_and_keeps_its_images(harness, headers):
    Failing(harness, OutcomeUnknown("cut"), Transient("still away"))
    answer = harness.post(BODY, headers={**ASYNC, **headers})
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "maybe_accepted")
    assert "Idempotency-Key" in answer.json["error"]
    kept = list(harness.scratch.list(""))
    assert len(kept) == 1
    harness.scratch.delete(kept)  # as the sweep does, since the job does not exist
