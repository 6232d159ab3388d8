"""What the jobs of an account keep in SQL is counted, and bounded by MAX_STORED_BYTES."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from storage import schema
from storage.job import stored
from tests.harness import b64, running

ASYNC = {"Prefer": "respond-async"}
PROMPT = "p" * 50_000


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, MAX_STORED_BYTES="150000") as made:
        yield made


def send(house, **fields):
    body = {"inputMethod": "base64", "images": [b64(b"img0")], "prompt": PROMPT}
    return house.post({**body, **fields.pop("body", {})}, headers=ASYNC, **fields)


def counted(house) -> int:
    """The account's number. It must be the sum of its jobs' numbers, and each of these what the job keeps."""
    accounts, jobs = schema.accounts_table, schema.jobs_table
    with house.database.write() as connection:
        of_account = connection.execute(select(accounts.c.stored_bytes).where(accounts.c.id == house.account)).scalar_one()
        rows = connection.execute(select(jobs.c.id, jobs.c.stored_bytes).where(jobs.c.account == house.account)).all()
        assert of_account == sum(row.stored_bytes for row in rows)
        stored.recount(connection, [row.id for row in rows])
        after = connection.execute(select(accounts.c.stored_bytes).where(accounts.c.id == house.account)).scalar_one()
    assert abs(after - of_account) < 200  # of a job that has not begun, small values such as empty lists are not counted
    return of_account


def test_an_account_that_keeps_too_much_is_refused_and_another_one_is_not(house):
    assert [send(house).status_code for _ in range(3)] == [202, 202, 429]
    refused = send(house)
    assert refused.headers["X-Error-Code"] == "account_full"
    assert "150000 bytes" in refused.json["error"]
    assert refused.headers["Retry-After"] == "60"
    _, key = house.new_key()
    assert send(house, key=key).status_code == 202
    assert 100_000 < counted(house) < 150_000


def test_a_deleted_job_counts_no_more(house):
    jobs = [send(house).json["id"] for _ in range(2)]
    house.drain()
    assert send(house).status_code == 429
    assert house.ask("DELETE", f"/api/v1/jobs/{jobs[0]}").status_code == 204
    assert counted(house) < 60_000
    assert send(house).status_code == 202


def test_results_count_from_the_jobs_end_until_they_expire(house):
    send(house, body={"prompt": "p", "images": [b64(b"img" + b"0" * 10)] * 3, "webhookUrl": "https://hooks.example/"})
    before = counted(house)
    house.drain()
    ended = counted(house)
    assert ended > before
    house.make_expired()
    house.supervisor.purge()
    assert counted(house) < ended


def test_an_overlong_url_is_cut_in_what_is_stored(house):
    long = "https://pictures.example/" + "a" * 100_000
    job = house.post({"inputMethod": "url", "images": [long], "prompt": "p"}, headers=ASYNC).json["id"]
    with house.database.read() as connection:
        source = connection.execute(select(schema.images_table.c.source).where(schema.images_table.c.job == job)).scalar_one()
    assert len(source) < 10_000
    assert counted(house) < 10_000


def test_a_prompt_of_more_than_100000_characters_is_refused(house):
    refused = send(house, body={"prompt": "p" * 100_001})
    assert refused.status_code == 400
    assert "prompt has 100001 characters, at most 100000 are taken." in refused.json["error"]
