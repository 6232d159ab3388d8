"""When a process dies that had one chunk and nothing else in hand, the chunk is split until the image is alone that did it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from pipeline.asking.ask import ChunkOutcome
from pipeline.asking.progress import Progress
from pipeline.finalize import conclude
from pipeline.scratch_key import ScratchKey
from pipeline.stage import StagedChunk
from pipeline.types import Failure, ItemCode, Question, Reply, Usage
from storage import schema
from storage.job import accepting, chunk_work, chunks, closing
from storage.job.outcome import job_outcome
from storage.job.views import job_view
from storage.queue import steps
from storage.queue.steps import LostLease
from tests.rows import (
    at_once,
    claimed,
    everything,
    job_of,
    job_row,
    new_account,
    set_steps,
    staged_images,
    step_ids,
    step_row,
    stolen,
)

KINDS = pytest.mark.parametrize("kind", ["stage", "extract"])


def accepted(database, images, chunk=None, *, question=None):
    """A job of a new account's, all in one chunk where nothing else is said."""
    new = job_of(new_account(database), images=images, chunk=chunk or images)
    new = replace(
        new,
        question=question or new.question,
        inputs={part.no: str(ScratchKey.of_input(new.id, chunk=part.no)) for part in new.plan},
    )
    with database.write() as connection:
        accepting.accept(connection, new, max_open=10, max_scratch=10**12)
    return new.id


def suspected(database, job, kind, part=0):
    """The lease of one who works alone on the chunk's step; what comes before it is done."""
    step = step_ids(database, job)[part]
    if kind == "extract":
        step = staged(database, claimed(database, step))
    set_steps(database, step, expiries=steps.ALONE_AFTER)
    lease = claimed(database, step)
    assert lease.alone
    return lease


def staged(database, lease):
    """Stages what is pending of the lease's chunk; the id of its extract step."""
    with database.write() as connection:
        work = chunk_work.work_of(connection, lease)
        images = [image for image in staged_images(work.first, work.count) if image.index in work.pending]
        key = str(ScratchKey.of_staged(lease.job, round_=lease.round, chunk=lease.part, epoch=lease.epoch))
        (step,) = chunks.record_staged(connection, lease, key=key, chunk=StagedChunk(staged=images))
    return step


def died(database, lease):
    """Ids of the steps that follow the death over this lease."""
    with database.write() as connection:
        return chunks.record_death(connection, lease)


def settle(database, lease, *, replies=(), failures=(), last=False, merged=False):
    """As one model call does it: an answer for each of `replies`, or one for all of them."""
    said = [Reply(indexes=(index,), text="", result=f"saw {index}") for index in replies]
    if merged:
        said = [Reply(indexes=tuple(replies), text=f"saw {replies}")]
    lost = [Failure(index=index, code=ItemCode.SAFETY_BLOCKED, detail="d") for index in failures]
    outcome = ChunkOutcome(replies=tuple(said), failures=tuple(lost), usage=Usage(model_calls=1, input_tokens=7))
    with database.write() as connection:
        return chunks.record_outcome(connection, lease, outcome, last=last)


def pending(database, lease):
    with database.read() as connection:
        return list(chunk_work.work_of(connection, lease).pending)


def chunk_rows(database, job):
    columns = schema.chunks_table.c
    with database.read() as connection:
        return connection.execute(select(schema.chunks_table).where(columns.job == job).order_by(columns.no)).all()


def outcomes(database, job):
    columns = schema.images_table.c
    with database.read() as connection:
        rows = connection.execute(select(columns.state, columns.code).where(columns.job == job).order_by(columns.index))
        return [row.code or row.state for row in rows]


def movements(database, job):
    columns = schema.ledger_table.c
    with database.read() as connection:
        query = select(columns.kind, columns.amount).where(columns.job == job)
        return [tuple(row) for row in connection.execute(query.order_by(columns.id))]


def finalized(database, job):
    """Ends the job as its one finalize step does it; its verdict."""
    (step,) = step_ids(database, job, "finalize")
    lease = claimed(database, step)
    with database.write() as connection:
        verdict = conclude(job_outcome(connection, job))
        closing.finish_job(connection, lease, verdict)
    return verdict


# The split


@KINDS
def test_the_chunk_is_split_into_two_with_fresh_numbers_over_the_same_objects(database, kind):
    job = accepted(database, 10, 5)
    lease = suspected(database, job, kind)
    before = chunk_rows(database, job)[0]
    follow = died(database, lease)
    rows = chunk_rows(database, job)
    assert [(row.no, row.first, row.count, row.open) for row in rows] == [
        (0, 0, 5, False),
        (1, 5, 5, True),
        (2, 0, 2, True),
        (3, 2, 3, True),
    ]
    assert {(row.input, row.object) for row in rows if row.no in {0, 2, 3}} == {(before.input, before.object)}
    assert before.object if kind == "extract" else before.input
    row = step_row(database, lease.step)
    assert (row.state, row.deaths, row.tries, row.owner, row.lease_until) == ("split", 1, 0, None, None)
    assert follow == step_ids(database, job, kind)[-2:]
    assert step_ids(database, job, "finalize") == []


@KINDS
def test_each_half_runs_alone_and_can_do_all_that_its_images_need(database, kind):
    job = accepted(database, 5)
    follow = died(database, suspected(database, job, kind))
    halves = [claimed(database, step) for step in follow]
    assert [(lease.kind, lease.part, lease.alone, lease.tries) for lease in halves] == [(kind, 1, True, 0), (kind, 2, True, 0)]
    assert [pending(database, lease) for lease in halves] == [[0, 1], [2, 3, 4]]
    if kind == "stage":
        halves = [claimed(database, staged(database, lease)) for lease in halves]
        assert not any(lease.alone for lease in halves), "what staging has died of need not kill who asks"
    for lease in halves:
        settle(database, lease, replies=pending(database, lease), last=True)
    assert finalized(database, job).status.value == "succeeded"
    assert movements(database, job) == [("reserve", 15), ("charge", 15), ("release", 0)]


def test_each_half_goes_on_from_how_far_the_chunk_had_come(database):
    job = accepted(database, 5)
    lease = suspected(database, job, "extract")
    progress = {"planned": [[[0, 1], []], [[2, 3, 4], [0, 1]]], "culprits": [], "faults": {"0": 1}, "spoiled": {}, "re_asked": {}}
    with database.write() as connection:
        chunks.record_outcome(connection, lease, ChunkOutcome(progress={**progress, "wrong": {}}), last=False)
    halves = [claimed(database, step) for step in died(database, lease)]
    assert [chunk.progress for chunk in chunk_rows(database, job)[1:]] == [{**progress, "wrong": {}}] * 2
    with database.read() as connection:
        works = [chunk_work.work_of(connection, half) for half in halves]
    left = [Progress.of(work.progress, open_=work.pending) for work in works]
    assert [[call.images for call in begun.planned] for begun in left] == [[(0, 1)], [(2, 3, 4)]]


def test_what_was_settled_before_stays_and_only_the_others_are_split(database):
    job = accepted(database, 7)
    lease = suspected(database, job, "extract")
    settle(database, lease, replies=[0, 1])
    settle(database, lease, failures=[4])
    follow = died(database, lease)
    assert outcomes(database, job) == ["done", "done", "staged", "staged", "safety_blocked", "staged", "staged"]
    halves = [claimed(database, step) for step in follow]
    assert [pending(database, half) for half in halves] == [[2, 3], [5, 6]]
    for half in halves:
        settle(database, half, replies=pending(database, half), last=True)
    verdict = finalized(database, job)
    assert [f'"index":{index},' in verdict.result for index in range(7)] == [True, True, True, True, False, True, True]
    with database.read() as connection:
        assert job_view(connection, job, job_row(database, job).account).usage == Usage(model_calls=4, input_tokens=28)
    assert movements(database, job) == [("reserve", 17), ("charge", 16), ("release", 1)]


def test_a_text_is_merged_in_image_order_whatever_the_numbers_of_its_chunks(database):
    job = accepted(database, 8, 5, question=Question(prompt="p"))
    first = suspected(database, job, "extract")
    settle(database, first, replies=[0], merged=True)
    early, late = (claimed(database, step) for step in died(database, first))
    other = suspected(database, job, "extract", part=1)
    for lease in (late, other, early):
        settle(database, lease, replies=pending(database, lease), merged=True, last=True)
    assert finalized(database, job).result.split("\n\n") == [
        "Image 1\nsaw [0]",
        "Images 2 to 3\nsaw [1, 2]",
        "Images 4 to 5\nsaw [3, 4]",
        "Images 6 to 8\nsaw [5, 6, 7]",
    ]


@pytest.mark.parametrize("culprits", [{0}, {7}, {3, 4}, set(range(8)), {5}])
@KINDS
def test_halving_goes_on_until_each_image_that_kills_has_failed_and_none_beside_it(database, kind, culprits):
    job = accepted(database, 8)
    waiting = [suspected(database, job, kind).step]
    set_steps(database, *waiting, state="ready")
    deaths = 0
    while waiting:
        lease = claimed(database, waiting.pop())
        if lease.kind == "finalize":
            assert waiting == [], "nothing is open when the job is put together"
            set_steps(database, lease.step, state="ready")
        elif lease.kind == kind and culprits & {*pending(database, lease)}:
            assert lease.alone
            deaths += 1
            again = died(database, lease)
            waiting += again if again or step_row(database, lease.step).state == "dead" else [lease.step]
        elif lease.kind == "stage":
            waiting.append(staged(database, lease))
        else:
            waiting += settle(database, lease, replies=pending(database, lease), last=True)
    expected = ["worker_crashed" if index in culprits else "done" for index in range(8)]
    assert outcomes(database, job) == expected
    assert deaths <= len(culprits) * 5
    finalized(database, job)
    charge = 10 + 8 - len(culprits) if len(culprits) < 8 else 0
    assert movements(database, job) == [("reserve", 18), ("charge", charge), ("release", 18 - charge)]
    assert [row.open for row in chunk_rows(database, job)] == [False] * len(chunk_rows(database, job))


# One image


@KINDS
def test_a_single_image_is_given_a_second_chance_and_fails_at_the_second_death(database, kind):
    job = accepted(database, 2, 1)
    lease = suspected(database, job, kind)
    assert died(database, lease) == []
    row = step_row(database, lease.step)
    assert (row.state, row.deaths, row.tries, row.rung_at) == ("ready", 1, 0, None)
    assert "worker_crashed" not in outcomes(database, job)
    again = claimed(database, lease.step)
    assert again.alone
    assert died(database, again) == [], "the other chunk is still open"
    row = step_row(database, lease.step)
    assert (row.state, row.deaths) == ("dead", 2)
    assert outcomes(database, job)[0] == "worker_crashed"
    assert [row.open for row in chunk_rows(database, job)] == [False, True]
    other = suspected(database, job, "extract", part=1)
    settle(database, other, replies=[1], last=True)
    assert finalized(database, job).status.value == "partial"
    assert movements(database, job) == [("reserve", 12), ("charge", 11), ("release", 1)]


def test_a_job_of_which_every_image_kills_costs_nothing(database):
    job = accepted(database, 1)
    lease = suspected(database, job, "extract")
    died(database, lease)
    (step,) = died(database, claimed(database, lease.step))
    assert step == step_ids(database, job, "finalize")[0]
    verdict = finalized(database, job)
    assert (verdict.status.value, verdict.error[0]) == ("failed", "worker_crashed")
    assert movements(database, job) == [("reserve", 11), ("charge", 0), ("release", 11)]


def test_of_a_chunk_with_one_image_left_that_image_alone_is_accused(database):
    job = accepted(database, 3)
    lease = suspected(database, job, "extract")
    settle(database, lease, replies=[0, 2])
    assert died(database, lease) == []
    assert died(database, claimed(database, lease.step)) == step_ids(database, job, "finalize")
    assert outcomes(database, job) == ["done", "worker_crashed", "done"]


def test_who_dies_when_all_is_settled_accuses_nobody(database):
    job = accepted(database, 2)
    lease = suspected(database, job, "extract")
    settle(database, lease, replies=[0, 1])
    assert died(database, lease) == step_ids(database, job, "finalize")
    assert outcomes(database, job) == ["done", "done"]
    assert [row.open for row in chunk_rows(database, job)] == [False]


# An old lease, and others at the same time


def overtaken(database, lease):
    stolen(database, lease)


def expired(database, lease):
    set_steps(database, lease.step, lease_until=0)
    with database.write() as connection:
        steps.reclaim_expired(connection)


def cancelled(database, lease):
    with database.write() as connection:
        closing.cancel(connection, lease.job)


def overdue(database, lease):
    with database.write() as connection:
        closing.close_overdue(connection, lease.job)


def split(database, lease):
    died(database, lease)


def handed_back(database, lease):
    with database.write() as connection:
        steps.hand_back(connection, lease, delay_ms=0, counts=False)


@pytest.mark.parametrize("what", [overtaken, expired, cancelled, overdue, split, handed_back], ids=lambda what: what.__name__)
@KINDS
def test_a_death_over_a_lease_that_is_lost_changes_nothing(database, kind, what):
    lease = suspected(database, accepted(database, 4), kind)
    what(database, lease)
    before = everything(database)
    with pytest.raises(LostLease):
        died(database, lease)
    assert everything(database) == before


@KINDS
def test_a_job_that_is_cancelled_after_a_split_ends_both_halves(database, kind):
    job = accepted(database, 4)
    follow = died(database, suspected(database, job, kind))
    working = claimed(database, follow[0])
    cancelled(database, working)
    assert [step_row(database, step).state for step in follow] == ["cancelled", "cancelled"]
    assert outcomes(database, job) == ["cancelled"] * 4
    assert movements(database, job) == [("reserve", 14), ("charge", 0), ("release", 14)]
    with pytest.raises(LostLease):
        died(database, working)


def test_two_chunks_of_a_job_that_are_split_at_once_get_numbers_of_their_own(database):
    for _ in range(5):
        job = accepted(database, 8, 4)
        leases = [suspected(database, job, "extract", part=part) for part in (0, 1)]
        follow = at_once(*[lambda lease=lease: died(database, lease) for lease in leases])
        assert all(isinstance(ids, list) and len(ids) == 2 for ids in follow), follow
        assert [(row.no, row.open) for row in chunk_rows(database, job)] == [(no, no > 1) for no in range(6)]
        halves = sorted((row.first, row.count) for row in chunk_rows(database, job) if row.open)
        assert halves == [(0, 2), (2, 2), (4, 2), (6, 2)]


def test_the_last_two_images_that_die_at_once_finalize_their_job_once(database):
    for _ in range(5):
        job = accepted(database, 2, 1)
        leases = [suspected(database, job, "extract", part=part) for part in (0, 1)]
        for lease in leases:
            died(database, lease)
        leases = [claimed(database, lease.step) for lease in leases]
        follow = at_once(*[lambda lease=lease: died(database, lease) for lease in leases])
        assert sorted(map(len, follow)) == [0, 1]
        assert finalized(database, job).error[0] == "worker_crashed"


@pytest.mark.parametrize("replies", [[0, 1], [0, 1, 2, 3]], ids=["some", "all"])
def test_a_death_a_cancel_and_a_late_answer_at_once_end_the_job_once(database, replies):
    for _ in range(5):
        job = accepted(database, 4)
        lease = suspected(database, job, "extract")

        def late_answer(lease=lease):
            settle(database, lease, replies=replies, last=len(replies) == 4)

        given = at_once(lambda lease=lease: died(database, lease), late_answer, lambda lease=lease: cancelled(database, lease))
        assert all(isinstance(result, LostLease | list | None) for result in given), given
        done = outcomes(database, job).count("done")
        assert outcomes(database, job) == ["done"] * done + ["cancelled"] * (4 - done)
        charge = 10 + done if done else 0
        assert movements(database, job) == [("reserve", 14), ("charge", charge), ("release", 14 - charge)]
        assert job_row(database, job).status == "cancelled"
        assert open_steps(database, job) == []


def open_steps(database, job):
    columns = schema.steps_table.c
    working = columns.kind.in_(("stage", "extract", "finalize")) & columns.state.in_(("ready", "leased"))
    with database.read() as connection:
        return list(connection.execute(select(columns.id).where(columns.job == job, working)).scalars())
