from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.credits import charge, reservation
from pipeline.types import ENDED, JobStatus

ended = st.sampled_from(sorted(ENDED))


def test_three_thousand_images_cost_3010_credits():
    assert reservation(3000) == charge(JobStatus.SUCCEEDED, 3000) == 3010


def test_a_partial_job_pays_for_what_was_processed():
    assert charge(JobStatus.PARTIAL, 2) == 12


def test_a_failed_job_and_one_without_a_processed_image_cost_nothing():
    assert charge(JobStatus.FAILED, 5) == charge(JobStatus.CANCELLED, 0) == 0


def test_all_or_nothing_costs_nothing_unless_all_was_had():
    assert charge(JobStatus.PARTIAL, 5, fail_on_error=True) == 0
    assert charge(JobStatus.SUCCEEDED, 5, fail_on_error=True) == 15


def test_the_base_is_charged_once_over_all_rounds():
    assert reservation(30, base_charged=True) == charge(JobStatus.SUCCEEDED, 30, base_charged=True) == 30


@given(status=ended, images=st.integers(1, 3000), data=st.data(), fail=st.booleans(), base=st.booleans())
def test_no_more_is_charged_than_was_reserved(status, images, data, fail, base):
    processed = data.draw(st.integers(0, images))
    cost = charge(status, processed, fail_on_error=fail, base_charged=base)
    assert 0 <= cost <= reservation(images, base_charged=base)
