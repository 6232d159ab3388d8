"""What earlier runs have left at the service: jobs whose answers are gone, and jobs that --restart gives up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cli.client import ApiError, Client, Job
from cli.run.embedded import forget
from cli.run.follow import expired, gone_text
from cli.run.progress import Reporter, counted
from cli.run.send import known_as
from cli.run.state import State
from cli.run.types import SentJob

GONE = "gone"  #: the fact with what is said about deleted answers
EMBEDDED = "embedded"  #: stands for the address of the embedded service, which differs each time


def drop_gone(client: Client, state: State, reporter: Reporter) -> None:
    """Makes images new whose answers the service has deleted. It is done before the price is asked, so the price has them.

    What is said about them is said by every run until one sends them (`forget_gone`).
    """
    told: list[str] = json.loads(state.fact(GONE, "[]"))
    for job in state.unfinished_jobs():
        service_id = job.id or known_as(client, job)  # without an id, the answer of an earlier run's request was lost
        if service_id and _is_gone(client, service_id):
            told.append(gone_text(state, job, service_id))
            state.set_fact(GONE, json.dumps(told))
            state.dissolve(job)
    for text in told:
        reporter.warn("job_gone", text)


def forget_gone(state: State) -> None:
    """Says no more about deleted answers, because the user has agreed to pay again."""
    state.set_fact(GONE, "[]")


def _is_gone(client: Client, service_id: str) -> bool:
    try:
        return expired(client.job(service_id))
    except ApiError as error:
        if error.status not in (404, 410):
            raise
        return True


@dataclass(kw_only=True, slots=True)
class Restart:
    """A run that begins anew although there is a state file. Nothing is forgotten before the user has agreed to the new price."""

    old: State  #: the file
    fresh: State  #: in memory; becomes the file's content
    old_folder: Path  #: data of the embedded service of the earlier runs
    new_folder: Path  #: the same for this run
    begun: bool = False

    def tell(self, reporter: Reporter) -> None:
        """Says what is paid again and which jobs are given up."""
        done, jobs = self.old.tally().done, self.old.unfinished_jobs()
        credits_, money = self.old.cost()
        if done or credits_:
            dollars = f" and ${money:,.2f}" if money >= 0.005 else ""
            text = f"--restart: {counted(done, 'image')} of earlier runs, which cost {counted(credits_, 'credit')}{dollars}, "
            reporter.warn("restart", f"{text}will be read and paid again.", images=done, credits=credits_, money=round(money, 6))
        if jobs and self._service(self.old) in (self._service(self.fresh), EMBEDDED):
            text = (
                f"{counted(len(jobs), 'job')} of the earlier run did not end or was not read. --restart cancels what still runs."
            )
            reporter.warn("restart_jobs", text, jobs=[job.id for job in jobs])
        elif jobs:
            text = f"{counted(len(jobs), 'job')} of the earlier run may still run, and be paid, at {self._service(self.old)}: "
            text += f"this run can't cancel them there. Use `extract-image jobs cancel` with that --url: {_ids(jobs)}."
            reporter.warn("restart_jobs", text, jobs=[job.id for job in jobs])

    def begin(self, client: Client, reporter: Reporter) -> State:
        """Cancels the open jobs, and forgets what was read. Returns the file, which has the content of the new run now."""
        jobs = self.old.unfinished_jobs()
        service = self._service(self.fresh)
        if jobs and self._service(self.old) == service and service != EMBEDDED:
            seen = [job for job in (_cancelled(client, each) for each in jobs) if job]
            stopped = sum(job.status == "cancelled" for job in seen)
            cost = sum(job.spent.credits for job in seen)
            text = f"{counted(stopped, 'job')} of the earlier run cancelled; the jobs given up cost {counted(cost, 'credit')}."
            reporter.warn("given_up", text, jobs=[job.id for job in seen], credits=cost)
        self.old.become(self.fresh)
        self.begun = True
        forget(self.old_folder)
        return self.old

    def end(self) -> None:
        """Deletes the data of a service that was started only to find out the price."""
        if not self.begun:
            forget(self.new_folder)

    @staticmethod
    def _service(state: State) -> str:
        return state.fact("service", "")


def _cancelled(client: Client, job: SentJob) -> Job | None:
    """The job after it was cancelled, or as it had ended before. None if the service does not know it."""
    service_id = job.id or known_as(client, job)
    if not service_id:
        return None
    try:
        return client.cancel(service_id)
    except ApiError as error:
        if error.status == 409:
            return client.job(service_id)
        if error.status == 404:
            return None
        raise


def _ids(jobs: list[SentJob]) -> str:
    return ", ".join(job.id or f"(the one with metadata.run {job.key})" for job in jobs)
