"""Each job's end is told to its webhook: at least once, under one id, in the same bytes, signed."""

from __future__ import annotations

import json
from dataclasses import replace
from threading import Event

import pytest
from click.testing import CliRunner
from sqlalchemy import select, update
from standardwebhooks import Webhook

from cli.main import main
from pipeline.errors import Transient
from pipeline.outbound.webhook import WebhookResponse, as_text
from storage import schema
from storage.account import webhook_secrets
from storage.account.webhook_secrets import SecretUnreadable, rotate, signing_secrets
from tests.fakes.deliver import ACCEPTED, FAILED, GONE, UNREACHABLE
from tests.harness import b64, running
from tests.rows import at_once, new_account, step_ids, step_row
from workers.run import OTHER_WORK
from workers.webhook_places import WebhookPlaces

HOOK = "https://hooks.example/extract"
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, WEBHOOK_SCHEDULE="1,2,3") as made:
        yield made


def accepted(house, *texts, **fields):
    body = {"inputMethod": "base64", "images": [b64(text) for text in texts or (b"img0",)], "prompt": "p", "webhookUrl": HOOK}
    return house.post({**body, **fields}, headers=ASYNC).json["id"]


def delivery(house, job):
    with house.database.read() as connection:
        return connection.execute(select(schema.deliveries_table).where(schema.deliveries_table.c.job == job)).one()


def secret_of(house):
    with house.database.write() as connection:
        return signing_secrets(connection, house.account, b"secret")[0]


def work_through(house):
    """All attempts, whatever time is between them."""
    for _ in range(10):
        house.drain()
        house.skip_waits()


def test_a_job_that_has_ended_is_told_with_its_results(house):
    job = accepted(house)
    house.drain()
    [(url, headers, body)] = house.deliver.calls
    assert url == HOOK
    event = json.loads(body)
    assert event == Webhook(as_text(secret_of(house))).verify(body, headers)
    assert event["type"] == "job.succeeded"
    shown = house.get(f"/api/v1/jobs/{job}").json
    assert event["timestamp"] == shown["finishedAt"]
    assert event["data"] == {**shown, "results": house.get(f"/api/v1/jobs/{job}/results").json["results"]}
    row = delivery(house, job)
    assert (row.state, row.id, row.attempts[0]["status"]) == ("delivered", headers["webhook-id"], 204)


@pytest.mark.parametrize(
    ("texts", "event"), [((b"img0", b"none"), "job.partial"), ((b"none",), "job.failed"), ((b"img0",), "job.succeeded")]
)
def test_each_kind_of_end_is_an_event_of_its_own(house, texts, event):
    accepted(house, *texts)
    house.drain()
    assert json.loads(house.deliver.calls[0][2])["type"] == event


def test_a_job_that_is_cancelled_is_told_too(house):
    job = accepted(house)
    house.client.post(f"/api/v1/jobs/{job}/cancel", headers={"Authorization": f"Bearer {house.key}"})
    house.drain()
    assert json.loads(house.deliver.calls[0][2])["type"] == "job.cancelled"


def test_a_job_without_a_webhook_tells_nobody(house):
    accepted(house, webhookUrl=None)
    house.drain()
    assert house.deliver.calls == []
    assert house.count_rows("deliveries") == 0


def test_results_that_do_not_fit_are_left_to_their_link(house):
    house.engine.script = lambda _call, _number: None
    job = accepted(house, b"img" + b"x" * 30_000)
    house.drain()
    with house.database.read() as connection:
        size = len(connection.scalar(select(schema.jobs_table.c.result)))
    body = house.deliver.calls[0][2]
    assert len(body) < 20_000
    assert ("results" in json.loads(body)["data"]) == (size < 15_000)
    assert json.loads(body)["data"]["links"]["results"] == f"/api/v1/jobs/{job}/results"


def test_a_receiver_that_fails_gets_the_same_id_and_bytes_again_until_it_takes_them(house):
    house.deliver.script = lambda number: FAILED if number < 3 else WebhookResponse(status=200)
    job = accepted(house)
    work_through(house)
    assert len(house.deliver.calls) == 4
    assert len({body for _, _, body in house.deliver.calls}) == 1
    assert {headers["webhook-id"] for _, headers, _ in house.deliver.calls} == {delivery(house, job).id}
    assert [attempt["status"] for attempt in delivery(house, job).attempts] == [500, 500, 500, 200]
    assert delivery(house, job).state == "delivered"


def test_a_receiver_that_never_takes_it_is_given_up_after_the_schedule(house):
    house.deliver.script = lambda _: UNREACHABLE
    job = accepted(house)
    work_through(house)
    assert len(house.deliver.calls) == 4
    assert delivery(house, job).state == "dead"
    assert step_row(house.database, step_ids(house.database, job, "webhook")[0]).state == "done"


def test_a_webhook_whose_step_fails_often_is_not_given_up(house):
    """The fault may be ours, and then it says nothing about the receiver."""
    deliver = house.work.deliver
    house.work = replace(house.work, deliver=fails)
    job = accepted(house)
    work_through(house)
    assert delivery(house, job).state == "pending"
    house.work = replace(house.work, deliver=deliver)
    work_through(house)
    assert delivery(house, job).state == "delivered"


def fails(*_, **__):
    raise RuntimeError("a bug")


def test_a_receiver_that_is_gone_is_told_once(house):
    house.deliver.script = lambda _: GONE
    job = accepted(house)
    work_through(house)
    assert len(house.deliver.calls) == 1
    assert delivery(house, job).state == "dead"


def test_between_attempts_the_step_waits_in_the_database(house):
    house.deliver.script = lambda _: WebhookResponse(status=503, retry_after=500)
    job = accepted(house)
    house.drain()
    (step,) = step_ids(house.database, job, "webhook")
    row = step_row(house.database, step)
    assert (row.state, row.tries) == ("ready", 1)
    with house.database.read() as connection:
        from storage.database import now_ms

        assert row.not_before > connection.scalar(select(now_ms())) + 400_000
    house.deliver.script = lambda _: WebhookResponse(status=200)
    house.skip_waits()


def test_an_attempt_whose_end_was_not_written_comes_again_with_the_same_id_and_bytes(house):
    """A worker that died after the receiver had taken it."""
    job = accepted(house)
    real = house.work
    seen = []

    def die(parts, lease):
        commit = real_webhook(parts, lease)
        seen.append(commit)
        raise Transient("the database is away")

    real_webhook = OTHER_WORK["webhook"]
    OTHER_WORK["webhook"] = die
    try:
        house.drain()
    finally:
        OTHER_WORK["webhook"] = real_webhook
    assert len(seen) == 1
    house.work = real
    work_through(house)
    first, second = house.deliver.calls
    assert first[2] == second[2]
    assert first[1]["webhook-id"] == second[1]["webhook-id"]
    assert delivery(house, job).state == "delivered"


def test_slow_receivers_hold_no_more_than_their_share_of_the_threads(house):
    job = accepted(house)
    house.work = replace(house.work, webhook_places=WebhookPlaces(0, of_host=1))
    house.drain()
    row = step_row(house.database, step_ids(house.database, job, "webhook")[0])
    assert (row.state, row.tries) == ("ready", 0)
    assert house.deliver.calls == []
    house.work = replace(house.work, webhook_places=WebhookPlaces(1, of_host=1))
    house.skip_waits()


def test_when_results_expire_what_was_delivered_is_forgotten_and_what_was_not_is_kept(house):
    told = accepted(house)
    house.drain()
    house.deliver.script = lambda _: FAILED
    untold = accepted(house)
    house.drain()
    house.make_expired()
    house.supervisor.purge()
    assert delivery(house, told).body is None
    assert json.loads(delivery(house, untold).body)["data"]["id"] == untold
    house.deliver.script = lambda _: WebhookResponse(status=200)
    house.skip_waits()


# Secrets


def test_an_account_s_secret_is_made_once_however_many_need_it_at_once(database):
    account = new_account(database)

    def need():
        with database.write() as connection:
            return signing_secrets(connection, account, b"key")

    assert len({tuple(secrets) for secrets in at_once(*[need] * 6)}) == 1


def test_a_stolen_database_shows_no_secret(database):
    account = new_account(database)
    with database.write() as connection:
        (secret,) = signing_secrets(connection, account, b"key")
        stored = connection.scalar(select(schema.accounts_table.c.webhook_secret))
    assert as_text(secret).removeprefix("whsec_") not in stored
    with database.write() as connection, pytest.raises(SecretUnreadable):
        signing_secrets(connection, account, b"another key")


def test_after_a_rotation_both_sign_for_a_day(database):
    account = new_account(database)
    with database.write() as connection:
        (before,) = signing_secrets(connection, account, b"key")
        fresh = rotate(connection, account, b"key")
        assert signing_secrets(connection, account, b"key") == [fresh, before]
        connection.execute(update(schema.accounts_table).values(webhook_secret_before_until=1))
        assert signing_secrets(connection, account, b"key") == [fresh]


def test_a_rotation_mends_a_secret_that_another_key_encrypted(database):
    account = new_account(database)
    with database.write() as connection:
        signing_secrets(connection, account, b"former key")
        fresh = rotate(connection, account, b"key")
        assert signing_secrets(connection, account, b"key") == [fresh]


def test_the_command_shows_and_rotates_it(tmp_path):
    environ = {"DATA_DIR": str(tmp_path)}

    def run(*arguments):
        ran = CliRunner().invoke(main, [*arguments, "--json"], env=environ)
        assert ran.exit_code == 0, ran.output
        return json.loads(ran.output)

    account = run("keys", "create", "shop")["account"]
    first = run("webhooks", "secret", "show", "shop")
    assert first == run("webhooks", "secret", "show", account)
    assert first["secrets"][0].startswith("whsec_")
    rotated = run("webhooks", "secret", "rotate", "shop")["secrets"]
    assert len(rotated) == 2
    assert rotated[1:] == first["secrets"]
    wrong = CliRunner().invoke(main, ["webhooks", "secret", "show", "shop"], env={**environ, "SECRET_KEY": "x" * 40})
    assert wrong.exit_code == 1
    assert "another SECRET_KEY" in wrong.output
    assert webhook_secrets.BOTH_SIGN_MS == 86_400_000


def test_while_receivers_of_an_account_never_answer_another_accounts_webhook_comes_at_once(tmp_path):
    with running(tmp_path, workers_count=10, WORKER_CONCURRENCY="10") as house:
        told, answer = Event(), Event()

        def answers(number: int) -> WebhookResponse:
            if "silent" in house.deliver.calls[number][0]:
                answer.wait(30)
            else:
                told.set()
            return ACCEPTED

        house.deliver.script = answers
        try:
            for number in range(20):
                accepted(house, webhookUrl=f"https://silent{number % 2}.example/")
            _, key = house.new_key()
            body = {"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p", "webhookUrl": HOOK}
            house.post(body, headers=ASYNC, key=key)
            assert told.wait(20)  # all silent receivers still hold their calls
            assert len(house.deliver.calls) <= 4  # of six places, the account with silent receivers holds three
        finally:
            answer.set()
            house.skip_waits()
