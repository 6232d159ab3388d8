"""A webhook's log, sending it again, and what receivers' own libraries say of it."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from sqlalchemy import delete, select, update
from standardwebhooks import Webhook, WebhookVerificationError

from pipeline.outbound.webhook import WebhookResponse, as_text
from storage import schema
from storage.account.webhook_secrets import rotate, signing_secrets
from tests.fakes.deliver import FAILED, GONE, UNREACHABLE
from tests.harness import b64, running
from tests.rows import at_once, step_ids

HOOK = "https://hooks.example/extract"


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, WEBHOOK_SCHEDULE="1,2,3,4") as made:
        yield made


def accepted(house):
    body = {"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p", "webhookUrl": HOOK}
    return house.post(body, headers={"Prefer": "respond-async"}).json["id"]


def log_of(house, job):
    [shown] = house.get(f"/api/v1/jobs/{job}/deliveries").json["deliveries"]
    return shown


def redeliver(house, delivery, key=None):
    return house.client.post(f"/api/v1/deliveries/{delivery}/redeliver", headers={"Authorization": f"Bearer {key or house.key}"})


def work_through(house):
    """All attempts, whatever time is between them."""
    for _ in range(8):
        house.drain()
        house.skip_waits()


def secrets_of(house):
    with house.database.write() as connection:
        return [as_text(secret) for secret in signing_secrets(connection, house.account, b"secret")]


def test_a_job_s_webhook_is_shown_with_each_attempt_and_when_the_next_is(house):
    house.deliver.script = lambda number: UNREACHABLE if number == 0 else FAILED
    job = accepted(house)
    assert house.get(f"/api/v1/jobs/{job}/deliveries").json == {"deliveries": []}
    house.drain()
    house.skip_waits()
    house.drain()
    shown = log_of(house, job)
    assert (shown["status"], shown["event"], shown["url"], shown["round"]) == ("pending", "job.succeeded", HOOK, 1)
    assert [(made["status"], made["error"]) for made in shown["attempts"]] == [(None, "not reachable"), (500, None)]
    assert shown["nextAttemptAt"] > shown["attempts"][1]["at"] >= shown["attempts"][0]["at"] >= shown["createdAt"]
    house.deliver.script = lambda _: WebhookResponse(status=200)
    house.skip_waits()
    house.drain()
    assert (log_of(house, job)["status"], log_of(house, job)["nextAttemptAt"]) == ("delivered", None)


def test_a_receiver_that_fails_four_times_gets_the_same_id_and_bytes_a_fifth(house):
    house.deliver.script = lambda number: FAILED if number < 4 else WebhookResponse(status=200)
    job = accepted(house)
    work_through(house)
    assert len(house.deliver.calls) == 5
    assert {(headers["webhook-id"], body) for _, headers, body in house.deliver.calls} == {
        (log_of(house, job)["id"], house.deliver.calls[0][2])
    }
    for _, headers, body in house.deliver.calls:
        Webhook(secrets_of(house)[0]).verify(body, headers)


@pytest.mark.parametrize("answer", [FAILED, GONE, WebhookResponse(status=200)], ids=["dead", "gone", "delivered"])
def test_one_that_is_over_is_sent_again_under_the_same_id_in_the_same_bytes_signed_anew(house, answer):
    house.deliver.script = lambda _: answer
    job = accepted(house)
    work_through(house)
    before = log_of(house, job)
    calls = len(house.deliver.calls)
    with house.database.write() as connection:
        rotate(connection, house.account, b"secret")
        connection.execute(update(schema.accounts_table).values(webhook_secret_before_until=1))
    house.deliver.script = lambda _: WebhookResponse(status=204)
    answered = redeliver(house, before["id"])
    assert (answered.status_code, answered.json["status"]) == (202, "pending")
    house.drain()
    first, last = house.deliver.calls[0], house.deliver.calls[-1]
    assert len(house.deliver.calls) == calls + 1
    assert (first[1]["webhook-id"], first[2]) == (last[1]["webhook-id"], last[2])
    Webhook(secrets_of(house)[0]).verify(last[2], last[1])
    with pytest.raises(WebhookVerificationError):
        Webhook(secrets_of(house)[0]).verify(first[2], first[1])
    assert log_of(house, job)["status"] == "delivered"
    assert len(log_of(house, job)["attempts"]) == len(before["attempts"]) + 1


def test_one_that_waits_for_its_next_attempt_is_sent_now_and_once(house):
    house.deliver.script = lambda number: (
        WebhookResponse(status=503, retry_after=5000) if number == 0 else WebhookResponse(status=200)
    )
    job = accepted(house)
    house.drain()
    assert redeliver(house, log_of(house, job)["id"]).status_code == 202
    house.drain()
    assert len(house.deliver.calls) == 2
    assert log_of(house, job)["status"] == "delivered"
    assert len(step_ids(house.database, job, "webhook")) == 1


def test_many_who_ask_at_once_cause_one_attempt(house):
    job = accepted(house)
    house.drain()
    delivery = log_of(house, job)["id"]
    answers = at_once(*[lambda: redeliver(house, delivery).status_code] * 6)
    assert set(answers) == {202}
    house.drain()
    assert len(house.deliver.calls) == 2


def test_a_redelivery_that_fails_is_tried_again_by_the_schedule(house):
    house.deliver.script = lambda number: FAILED if 0 < number < 3 else WebhookResponse(status=200)
    job = accepted(house)
    work_through(house)
    redeliver(house, log_of(house, job)["id"])
    work_through(house)
    assert len(house.deliver.calls) == 4
    assert log_of(house, job)["status"] == "delivered"


def test_when_the_results_have_expired_a_redelivery_says_so(house):
    job = accepted(house)
    house.drain()
    house.make_expired()
    house.supervisor.purge()
    refused = redeliver(house, log_of(house, job)["id"])
    assert (refused.status_code, refused.json["code"]) == (410, "delivery_gone")


def test_when_the_job_is_gone_a_redelivery_says_so(house):
    job = accepted(house)
    house.drain()
    delivery = log_of(house, job)["id"]
    with house.database.write() as connection:
        connection.execute(delete(schema.jobs_table).where(schema.jobs_table.c.id == job))
        connection.execute(delete(schema.ledger_table).where(schema.ledger_table.c.job == job))
        connection.execute(update(schema.accounts_table).values(available=schema.accounts_table.c.available + 11, charged=0))
    refused = redeliver(house, delivery)
    assert (refused.status_code, refused.json["code"]) == (410, "delivery_gone")
    assert house.get(f"/api/v1/jobs/{job}/deliveries").status_code == 404


def test_what_was_tried_past_the_expiry_is_forgotten_with_its_last_attempt(house):
    house.deliver.script = lambda number: FAILED if number == 0 else WebhookResponse(status=200)
    job = accepted(house)
    house.drain()
    house.make_expired()
    house.supervisor.purge()
    house.skip_waits()
    house.drain()
    assert json.loads(house.deliver.calls[1][2])["data"]["id"] == job
    with house.database.read() as connection:
        assert connection.scalar(select(schema.deliveries_table.c.body)) is None
    assert redeliver(house, log_of(house, job)["id"]).status_code == 410


def test_another_account_s_webhooks_are_not_there(house):
    job = accepted(house)
    house.drain()
    _, key = house.new_key()
    assert house.get(f"/api/v1/jobs/{job}/deliveries", key=key).status_code == 404
    refused = redeliver(house, log_of(house, job)["id"], key=key)
    unknown = redeliver(house, "evt_none", key=key)
    assert (refused.status_code, refused.json) == (unknown.status_code, unknown.json)
    assert refused.status_code == 404
    assert len(house.deliver.calls) == 1


def test_of_many_attempts_the_last_fifty_are_kept(house):
    job = accepted(house)
    house.drain()
    for _ in range(55):
        redeliver(house, log_of(house, job)["id"])
        house.drain()
    assert len(house.deliver.calls) == 56
    assert len(log_of(house, job)["attempts"]) == 50


# What receivers check with


@pytest.fixture
def while_rotating(house):
    """A webhook as it is sent on the day after a rotation, and the secrets before and after it."""
    before = secrets_of(house)[0]
    with house.database.write() as connection:
        after = as_text(rotate(connection, house.account, b"secret"))
    accepted(house)
    house.drain()
    _, headers, body = house.deliver.calls[0]
    return headers, body, [before, after]


def test_the_python_library_verifies_with_both_secrets_while_one_takes_the_other_s_place(while_rotating):
    headers, body, secrets = while_rotating
    for secret in secrets:
        assert Webhook(secret).verify(body, headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook(secrets[0]).verify(body + b" ", headers)


VERIFY = """
const { Webhook } = require("standardwebhooks");
const { headers, body, secrets } = JSON.parse(require("fs").readFileSync(0, "utf8"));
for (const secret of secrets) console.log(new Webhook(secret).verify(body, headers).type);
try { new Webhook(secrets[0]).verify(body + " ", headers); } catch (error) { console.log(error.name || "refused"); }
"""


def test_the_npm_library_verifies_with_both_secrets_while_one_takes_the_other_s_place(while_rotating, tmp_path):
    if not shutil.which("npm"):
        pytest.skip("node is not here")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(tmp_path), "standardwebhooks@1"]
    if subprocess.run(install, capture_output=True, timeout=120, check=False).returncode:
        pytest.skip("npm can't install standardwebhooks here")
    headers, body, secrets = while_rotating
    said = subprocess.run(
        ["node", "-e", VERIFY],
        cwd=tmp_path,
        input=json.dumps({"headers": headers, "body": body.decode(), "secrets": secrets}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.stdout.split() == ["job.succeeded", "job.succeeded", "WebhookVerificationError"], said.stderr
