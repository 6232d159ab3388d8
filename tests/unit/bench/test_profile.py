"""Each trip of a request belongs to one stage, also if a worker begins before the job is committed."""

from __future__ import annotations

import pytest

from bench.counted import Trip
from bench.profile import STAGES, Times, profile

TIMES = Times(sent=0.0, asked=0.020, replied=0.021, answered=0.030, next=1.0)
WEB = [(5, "statement", "INSERT jobs"), (12, "commit", "")]
CLOSING = [(22, "statement", "UPDATE steps"), (24, "statement", "INSERT ledger"), (26, "commit", ""), (40, "s3", "POST ?delete")]


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        # One after the other, as with SQLite.
        ([(13, "transaction", ""), (14, "statement", "UPDATE steps"), (15, "commit", "")], [12, 1, 2, 5, 1, 5, 4, 14]),
        # Staged while the job is written, and claimed in one statement, as with Postgres.
        ([(9, "s3", "GET"), (14, "statement", "WITH jobs"), (15, "commit", "")], [12, 0, 3, 5, 1, 5, 4, 14]),
        # The worker has looked for the step before it was committed.
        (
            [(10, "statement", "WITH jobs"), (11, "commit", ""), (14, "statement", "WITH jobs"), (15, "commit", "")],
            [12, 0, 3, 5, 1, 5, 4, 14],
        ),
    ],
)
def test_stages_follow_each_other(claim, expected):
    trips = [Trip(at=at / 1000, role="web", kind=kind, name=name) for at, kind, name in WEB]
    trips += [Trip(at=at / 1000, role="worker", kind=kind, name=name) for at, kind, name in [*claim, *CLOSING]]
    found = profile(trips, TIMES)
    assert [round(found.ms[stage], 3) for stage in STAGES] == expected
    assert found.counts["claim"]["statements"] == sum(kind == "statement" for _, kind, _ in claim)
    assert found.counts["close"]["statements"] == 2
    assert found.counts["clean"]["S3"] == 1
