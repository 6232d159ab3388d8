"""Signing by Standard Webhooks, and when a receiver is tried again."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from pipeline.outbound.webhook import LONGEST_WAIT, WebhookResponse, as_text, headers, next_try

BODY = json.dumps({"type": "job.succeeded", "data": {"text": "größer ✓"}}).encode()
SCHEDULE = (5, 300, 1800)


def signed(*secrets, body=BODY):
    now = int(datetime.now(UTC).timestamp())  # a receiver refuses what is older than five minutes: the suite runs longer
    return headers(secrets, event_id="evt_1", timestamp=now, body=body)


@given(st.binary(min_size=24, max_size=64))
def test_the_reference_library_verifies_it(secret):
    assert Webhook(as_text(secret)).verify(BODY, signed(secret)) == json.loads(BODY)


def test_while_a_secret_changes_receivers_with_either_verify_it():
    old, new = b"o" * 24, b"n" * 24
    for secret in (old, new):
        Webhook(as_text(secret)).verify(BODY, signed(new, old))
    with pytest.raises(WebhookVerificationError):
        Webhook(as_text(b"x" * 24)).verify(BODY, signed(new, old))


def test_another_body_is_not_verified():
    with pytest.raises(WebhookVerificationError):
        Webhook(as_text(b"s" * 24)).verify(BODY + b" ", signed(b"s" * 24))


@pytest.mark.parametrize(
    ("status", "accepted"), [(200, True), (204, True), (299, True), (199, False), (302, False), (404, False)]
)
def test_two_hundred_and_something_is_success_and_nothing_else(status, accepted):
    assert WebhookResponse(status=status).accepted is accepted


def test_a_receiver_is_tried_by_the_schedule_and_then_no_more():
    failed = WebhookResponse(status=500)
    waits = [next_try(failed, attempt=attempt, schedule=SCHEDULE, jitter=0) for attempt in range(4)]
    assert waits == [5, 300, 1800, None]


@given(st.floats(0, 1))
def test_the_jitter_only_stretches_and_by_a_fifth_at_most(jitter):
    wait = next_try(WebhookResponse(status=None), attempt=0, schedule=SCHEDULE, jitter=jitter)
    assert wait is not None
    assert 5 <= wait <= 6


def test_one_that_is_gone_is_told_no_more():
    assert next_try(WebhookResponse(status=410), attempt=0, schedule=SCHEDULE, jitter=0) is None


@pytest.mark.parametrize(
    ("status", "asked", "wait"), [(429, 60, 60), (503, 60, 60), (429, 1, 5), (500, 60, 5), (503, 1e9, LONGEST_WAIT)]
)
def test_a_receiver_that_is_busy_says_when_to_come_back(status, asked, wait):
    assert next_try(WebhookResponse(status=status, retry_after=asked), attempt=0, schedule=SCHEDULE, jitter=0) == wait
