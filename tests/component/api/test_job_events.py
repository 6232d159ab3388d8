"""A job followed as Server-Sent Events: each state once, in order, to the end; over real sockets, as browsers read it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from tests.harness import running
from tests.rows import eventually

JOBS = "/api/v1/jobs"


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="1", MAX_WAITERS="1") as made:
        yield made


def make(house, count=2):
    body = {"inputMethod": "url", "images": house.urls(count), "prompt": "p", "granularity": "perImage"}
    return house.ask("POST", JOBS, json=body).json["id"]


def follow(house, job, seen=None, **options):
    headers = {"Last-Event-ID": seen} if seen else {}
    return house.ask("GET", f"{JOBS}/{job}/events", headers=headers, buffered=False, **options)


def events(answer) -> Iterator[tuple[str, dict]]:
    """Id and data of each event, as the stream has them."""
    text = ""
    for piece in answer.iter_encoded():
        text += piece.decode()
        while "\n\n" in text:
            block, _, text = text.partition("\n\n")
            lines = dict(line.partition(": ")[::2] for line in block.splitlines())
            if "data" in lines:
                assert lines["event"] == "job"
                yield lines["id"], json.loads(lines["data"])


def test_an_ended_job_is_one_event_and_the_end(house):
    job = make(house)
    house.drain()
    answer = follow(house, job)
    assert answer.mimetype == "text/event-stream"
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-store, no-transform", "no")
    [(_, shown)] = events(answer)
    assert shown == house.get(f"{JOBS}/{job}").json


def test_who_has_seen_the_end_is_told_not_to_come_back(house):
    job = make(house)
    house.drain()
    [(last, _)] = events(follow(house, job))
    assert follow(house, job, last).status_code == 204


def test_each_change_is_an_event_and_the_last_is_the_end(house):
    job = make(house)
    stream = events(follow(house, job))
    _, first = next(stream)
    assert first["status"] == "queued"
    working = threading.Thread(target=house.drain)
    working.start()
    rest = [shown for _, shown in stream]
    working.join()
    assert rest[-1] == house.get(f"{JOBS}/{job}").json
    assert rest[-1]["status"] == "succeeded"
    progress = [first["progress"], *(shown["progress"] for shown in rest)]
    assert progress == sorted(progress)


def test_what_was_seen_is_not_sent_again(house):
    job = make(house)
    seen, _ = next(events(follow(house, job)))
    again = follow(house, job, seen)
    working = threading.Thread(target=house.drain)
    working.start()
    states = [shown["status"] for _, shown in events(again)]
    working.join()
    assert states[-1] == "succeeded"
    assert "queued" not in states


def test_an_id_that_was_never_sent_begins_anew(house):
    job = make(house)
    assert next(events(follow(house, job, "never")))[1]["status"] == "queued"


def test_who_follows_holds_a_place_and_gives_it_back(house):
    job = make(house)
    answer = follow(house, job)
    next(events(answer))
    refused = follow(house, job)
    assert (refused.status_code, refused.json["code"]) == (429, "no_waiting_place")
    assert house.ask("GET", f"{JOBS}/{job}", query_string={"wait": 1}).status_code == 429
    answer.close()
    assert next(events(follow(house, job)))[1]["status"] == "queued"
    ended = make(house)
    house.drain()
    assert follow(house, ended).status_code == 200


def test_a_head_request_holds_no_place(house):
    job = make(house)
    for _ in range(2):
        assert house.ask("HEAD", f"{JOBS}/{job}/events").status_code == 200


def test_a_job_that_is_deleted_ends_the_stream(house):
    job = make(house)
    stream = events(follow(house, job))
    next(stream)
    deleting = threading.Thread(target=lambda: house.ask("DELETE", f"{JOBS}/{job}"))
    deleting.start()
    assert {shown["status"] for _, shown in stream} <= {"cancelled"}
    deleting.join()


def test_a_process_that_stops_ends_the_stream(house):
    job = make(house)
    stream = events(follow(house, job))
    next(stream)
    house.stopping = True
    assert list(stream) == []


def test_a_further_round_is_followed_to_its_end(house):
    body = {"inputMethod": "url", "images": [*house.urls(1), "https://pictures.example/none"], "prompt": "p"}
    job = house.ask("POST", JOBS, json=body).json["id"]
    house.drain()
    house.page("https://pictures.example/none")
    house.ask("POST", f"{JOBS}/{job}/retry")
    working = threading.Thread(target=house.drain)
    working.start()
    states = [shown["status"] for _, shown in events(follow(house, job))]
    working.join()
    assert states[-1] == "succeeded"


def test_somebody_else_s_job_can_not_be_followed(house):
    job = make(house)
    _, other = house.new_key()
    assert follow(house, job, key=other).status_code == 404
    eventually(lambda: house.web.waiting_places.free == 1)
