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


def test_a_round_over_thirty_failed_images_of_three_thousand_costs_thirty():
    first = charge(JobStatus.PARTIAL, 2970)
    assert reservation(3000, charged=first) == charge(JobStatus.SUCCEEDED, 3000, charged=first) == 30


@given(images=st.integers(1, 3000), data=st.data(), fail=st.booleans())
def test_over_all_rounds_each_image_is_paid_for_once_and_the_base_once(images, data, fail):
    charged = 0
    for processed in [*sorted(data.draw(st.lists(st.integers(0, images), max_size=5))), images]:
        status = JobStatus.FAILED if processed == 0 else JobStatus.PARTIAL if processed < images else JobStatus.SUCCEEDED
        cost = charge(status, processed, fail_on_error=fail, charged=charged)
        assert 0 <= cost <= reservation(images, charged=charged)
        charged += cost
        assert charged == (0 if processed == 0 or (fail and processed < images) else 10 + processed)


@given(status=ended, images=st.integers(1, 3000), data=st.data(), fail=st.booleans())
def test_no_more_is_charged_than_was_reserved(status, images, data, fail):
    processed = data.draw(st.integers(0, images))
    assert 0 <= charge(status, processed, fail_on_error=fail) <= reservation(images)
