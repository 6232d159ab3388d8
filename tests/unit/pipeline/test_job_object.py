"""The job as answers and webhooks show it."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from pipeline.job_object import JobView, ResultView, job_json, result_json, time_json
from pipeline.types import Failure, ItemCode, JobStatus, Usage


def job(**changed):
    values = {
        "id": "job_1",
        "status": JobStatus.PARTIAL,
        "tier": "standard",
        "total": 3,
        "succeeded": 2,
        "failed": 1,
        "progress": 1.0,
        "credits": 12,
        "usage": Usage(nanodollars=1_500_000),
        "created_at": 0,
        "started_at": 1,
        "finished_at": 1_500,
        "expires_at": None,
        "inputs_expire_at": None,
        "expired": False,
        "has_result": True,
        "error_code": None,
        "error_message": None,
        "warnings": (),
        "metadata": None,
        "name": None,
        "batch": None,
    }
    return JobView(**{**values, **changed})


RESULT = ResultView(
    prompt="p",
    result="text",
    failures=[
        Failure(index=1, code=ItemCode.MODEL_REFUSED, detail="no"),
        Failure(index=2, code=ItemCode.FETCH_TIMEOUT, detail="late"),
    ],
    custom_ids={2: "mine"},
)


def test_a_job_says_where_it_and_what_came_of_it_can_be_read():
    assert job_json(job())["links"]["self"] == "/api/v1/jobs/job_1"
    assert all(link.startswith("/api/v1/jobs/job_1") for link in job_json(job())["links"].values())


def test_money_is_in_dollars_and_what_is_not_known_is_null():
    shown = job_json(job())
    assert shown["usage"]["money"] == 0.0015
    assert (shown["usage"]["modelVersion"], shown["error"], shown["expiresAt"]) == (None, None, None)


def test_an_error_has_its_code_and_its_message():
    shown = job_json(job(status=JobStatus.FAILED, error_code="total_too_large", error_message="Send fewer."))
    assert shown["error"] == {"code": "total_too_large", "message": "Send fewer."}


def test_a_failure_has_the_caller_s_name_of_its_image_where_there_is_one():
    assert result_json(job(), RESULT)["errors"] == [
        {"index": 1, "code": ItemCode.MODEL_REFUSED.value, "message": "no"},
        {"index": 2, "code": ItemCode.FETCH_TIMEOUT.value, "message": "late", "customId": "mine"},
    ]


@pytest.mark.parametrize(("status", "count"), [(JobStatus.PARTIAL, 2), (JobStatus.FAILED, 0)])
def test_a_failed_job_counts_no_images(status, count):
    assert result_json(job(status=status), RESULT)["imageCount"] == count


def test_a_time_is_rfc_3339_in_utc_with_milliseconds():
    assert time_json(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert time_json(None) is None


def test_a_usage_that_another_version_has_stored_is_read_as_far_as_it_is_known():
    before = {"model_calls": 2, "input_tokens": 30, "nanodollars": 7, "model_version": "m-1"}
    assert Usage.stored(before) == Usage(model_calls=2, input_tokens=30, nanodollars=7, model_version="m-1")
    later = {**asdict(Usage(model_calls=3, economy_calls=1)), "priority_calls": 1}
    assert Usage.stored(later) == Usage(model_calls=3, economy_calls=1)


def test_a_stored_usage_has_only_what_is_used_so_that_an_older_version_meets_no_new_value_without_need():
    usage = Usage(model_calls=2, input_tokens=30, model_version="m-1")
    assert usage.to_store() == {"model_calls": 2, "input_tokens": 30, "model_version": "m-1"}
    assert Usage.stored(usage.to_store()) == usage
    assert Usage().to_store() == {}
