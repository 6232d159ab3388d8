"""Compares the end of a step beside 20,000 webhooks that wait for their next attempt with one beside none, on SQLite and on Postgres."""

from __future__ import annotations

import argparse
import statistics
import time

from sqlalchemy import insert, text

from bench.report import Row, at_most, print_report, spread
from bench.sides import Side, on_both
from pipeline.types import StepKind, StepState
from storage import schema
from storage.database import now_ms
from storage.job import accepting
from storage.queue import ringing, steps
from storage.queue.steps import USUAL
from testbed import job_of

WEBHOOKS = 20_000
OF_JOB = 100  #: waiting webhooks of a job; what costs time is how many the account has
ENDS, ROUNDS = 100, 5  #: steps that end beside the webhooks and beside none, in turns; and how often that is done
HOUR = 3_600_000


class Ends(Side):
    """A database in which steps of an account end."""

    def fill(self) -> None:
        """Has the webhooks of jobs of the account wait for an hour, as after a failed attempt."""
        waiting = {
            "round": 1,
            "kind": StepKind.WEBHOOK.value,
            "state": StepState.READY.value,
            "priority": USUAL,
            "account": self.account,
        }
        for _ in range(WEBHOOKS // OF_JOB):
            new = job_of(self.account)
            with self.database.write() as connection:
                accepting.accept(connection, new, max_open=10**6, max_scratch=10**12)
                connection.execute(text("UPDATE steps SET state = 'done' WHERE job = :job"), {"job": new.id})
                rows = [{**waiting, "job": new.id, "part": part} for part in range(1, OF_JOB + 1)]
                connection.execute(
                    insert(schema.steps_table).values(added_at=now_ms(), not_before=now_ms() + HOUR, tries=1), rows
                )
        self.settle()

    def end(self) -> float:
        """Milliseconds of the transaction that ends a step and announces the account's next ones."""
        new = job_of(self.account, images=2)
        with self.database.write() as connection:
            accepting.accept(connection, new, max_open=10**6, max_scratch=10**12)
            step = connection.scalars(text("SELECT id FROM steps WHERE job = :job ORDER BY id"), {"job": new.id}).first()
            lease = steps.claim(connection, int(step or 0), owner="bench", lease_ms=60_000)
        assert lease
        began = time.perf_counter()
        with self.database.write() as connection:
            steps.finish(connection, lease)
            ringing.to_ring(connection, beside=new.id)
        took = time.perf_counter() - began
        with self.database.write() as connection:
            connection.execute(text("UPDATE steps SET state = 'done' WHERE job = :job"), {"job": new.id})
        return took * 1000


def measure(name: str, empty_url: str, full_url: str) -> list[Row]:
    none, many = Ends(empty_url), Ends(full_url)
    many.fill()
    alone, beside = [], []
    for _ in range(ROUNDS):
        pairs = [(none.end(), many.end()) for _ in range(ENDS)]
        alone.append(statistics.median(pair[0] for pair in pairs))
        beside.append(statistics.median(pair[1] for pair in pairs))
    none.database.close()
    many.database.close()
    return [
        (f"{name}: beside no webhook", spread(alone, "ms"), ""),
        (f"{name}: beside {WEBHOOKS:,}", spread(beside, "ms"), ""),
        (f"{name}: more", spread([more - less for more, less in zip(beside, alone, strict=True)], "ms"), at_most(0.5)),
    ]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_report(f"The end of a step beside {WEBHOOKS:,} waiting webhooks, {ROUNDS} times {ENDS} ends", on_both(measure))


if __name__ == "__main__":
    main()
