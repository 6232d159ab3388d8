"""When the steps of a new job are announced: as soon as its images are in scratch, or after its commit."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from api.announcing import Announcement, EarlyAccounts
from api.putting import Putting
from pipeline.errors import Transient
from storage.queue.ringing import Ring
from storage.redis.messages import EARLY_SECONDS
from tests.fakes.signals import MemorySignals


class Doorbell(MemorySignals):
    """Notes what is announced, in order."""

    def __init__(self, *, takes: bool = True) -> None:
        super().__init__()
        self.takes = takes
        self.heard: list[str] = []

    def ring_early(self, ring: Ring) -> bool:
        self.heard.append(f"early {ring.step}")
        return self.takes

    def ring(self, rings: Any) -> None:
        self.heard += [f"{ring.step} {ring.input}" for ring in rings]


IMAGES = Ring(7, waited=True, input="images")


def announcement_of(bell: Doorbell, *, early: EarlyAccounts | None, account: str = "acc_1", now: Any = None) -> Announcement:
    made = partial(bell.heard.append, "made")
    return Announcement(bell, lambda _job: made(), account=account, early=early, clock=now or (lambda: 1000.0))


def put(*, fails: bool = False) -> tuple[Putting, threading.Event]:
    """A put that ends when the event is set."""
    go_on = threading.Event()

    def putting() -> None:
        go_on.wait(20)
        if fails:
            raise Transient("S3 is away")

    return Putting(putting), go_on


@pytest.mark.parametrize(
    ("rings", "takes", "seconds", "heard"),
    [
        ([IMAGES], True, EARLY_SECONDS / 2, ["made", "early 7"]),
        ([IMAGES], True, EARLY_SECONDS, ["made", "early 7", "7 None"]),
        ([IMAGES], True, 100.0, ["made", "early 7", "7 None"]),
        ([IMAGES], False, 0.0, ["made", "early 7", "7 images"]),
        ([Ring(7, waited=True)], True, 0.0, ["made", "7 None"]),
        ([], True, 0.0, ["made"]),
    ],
)
def test_a_step_is_announced_after_the_commit_unless_a_worker_is_sure_to_find_it(rings, takes, seconds, heard):
    bell, now, (putting, go_on) = Doorbell(takes=takes), [1000.0], put()
    with announcement_of(bell, early=EarlyAccounts(), now=lambda: now[0]) as announcement:
        announcement.when_put("job_1", rings, putting)
        go_on.set()
        ended(putting)
        now[0] += seconds
        announcement.after_commit("job_1", rings)
    assert bell.heard == heard


def ended(putting: Putting) -> None:
    """Waits until the put has ended, and all that follows it. Raises what the put has raised."""
    putting.settle()
    for thread in threading.enumerate():
        if thread.name in {"putting", "announcing"}:
            thread.join(20)
    putting.end()


def test_nothing_is_announced_before_the_images_are_there():
    bell, (putting, go_on) = Doorbell(), put()
    with announcement_of(bell, early=EarlyAccounts()) as announcement:
        announcement.when_put("job_1", [IMAGES], putting)
        assert bell.heard == ["made"]
        go_on.set()
        ended(putting)
        assert bell.heard == ["made", "early 7"]


def test_images_that_could_not_be_put_are_not_announced():
    bell, (putting, go_on) = Doorbell(), put(fails=True)
    with announcement_of(bell, early=EarlyAccounts()) as announcement:
        announcement.when_put("job_1", [IMAGES], putting)
        go_on.set()
        with pytest.raises(Transient):
            ended(putting)
    assert bell.heard == ["made"]


def test_a_transaction_never_waits_for_redis():
    """A put that has ended before has no thread any more, so the message gets one of its own."""
    bell, (putting, go_on) = Doorbell(), put()
    go_on.set()
    ended(putting)
    threads: list[str] = []
    real = bell.ring_early

    def rung(ring: Ring) -> bool:
        threads.append(threading.current_thread().name)
        return real(ring)

    bell.ring_early = rung
    with announcement_of(bell, early=EarlyAccounts()) as announcement:
        announcement.when_put("job_1", [IMAGES], putting)
        ended(putting)
        announcement.after_commit("job_1", [IMAGES])
    assert bell.heard == ["made", "early 7"]
    assert threads == ["announcing"]


def test_a_step_that_is_not_committed_after_all_is_not_taken_for_the_one_that_is():
    """The transaction was made anew, with another step, because the put took long. Its message is sent at the worst moment."""
    bell, (putting, go_on) = Doorbell(), put()
    with announcement_of(bell, early=EarlyAccounts()) as announcement:
        announcement.when_put("job_1", [IMAGES], putting)
        go_on.set()
        ended(putting)
        announcement.forget()
        announcement.when_put("job_1", [replace(IMAGES, step=8)], putting)
        announcement.after_commit("job_1", [replace(IMAGES, step=8)])
    assert bell.heard == ["made", "early 7", "8 images"]


def test_a_message_that_is_late_is_not_sent_after_the_other_one():
    """The commit was quicker than the thread that was to announce the step."""
    bell, (putting, go_on) = Doorbell(), put()
    with announcement_of(bell, early=EarlyAccounts()) as announcement:
        announcement.when_put("job_1", [IMAGES], putting)
        announcement.after_commit("job_1", [IMAGES])
        go_on.set()
        ended(putting)
    assert bell.heard == ["made", "7 images"]


def test_with_a_database_of_one_writer_nothing_is_announced_early():
    bell, (putting, go_on) = Doorbell(), put()
    with announcement_of(bell, early=None) as announcement:
        announcement.when_put("job_1", [IMAGES], putting)
        go_on.set()
        ended(putting)
        announcement.after_commit("job_1", [IMAGES])
    assert bell.heard == ["made", "7 images"]


def test_a_step_that_is_forgotten_is_not_announced():
    bell, (putting, go_on) = Doorbell(), put()
    with announcement_of(bell, early=EarlyAccounts()) as announcement:
        announcement.when_put("job_1", [IMAGES], putting)
        announcement.forget()
        go_on.set()
        ended(putting)
        announcement.after_commit("job_1", [replace(IMAGES, step=8)])
    assert bell.heard == ["made", "8 images"]


def test_of_jobs_that_an_account_sends_at_once_one_is_announced_early():
    bell, early = Doorbell(), EarlyAccounts()
    with announcement_of(bell, early=early) as first:
        for other, account in (("job_2", "acc_1"), ("job_3", "acc_2")):
            putting, go_on = put()
            first_putting, first_go_on = put()
            first.when_put("job_1", [IMAGES], first_putting)
            first_go_on.set()
            ended(first_putting)
            with announcement_of(bell, early=early, account=account) as second:
                second.when_put(other, [replace(IMAGES, step=8)], putting)
                go_on.set()
                ended(putting)
                second.after_commit(other, [replace(IMAGES, step=8)])
    assert bell.heard == ["made", "early 7", "made", "8 images", "made", "early 8"]


def test_an_account_is_free_again_however_its_request_ends():
    early = EarlyAccounts()
    for _ in range(2):
        putting, go_on = put()
        go_on.set()
        bell = Doorbell()

        def refused() -> None:
            with announcement_of(bell, early=early) as announcement:  # noqa: B023 - called at once
                announcement.when_put("job_1", [IMAGES], putting)  # noqa: B023
                ended(putting)  # noqa: B023
                raise RuntimeError

        with pytest.raises(RuntimeError):
            refused()
        assert bell.heard == ["made", "early 7"]
