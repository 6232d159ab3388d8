"""Compares the transaction of a POST beside 20,000 open jobs with one beside none, on SQLite and on Postgres."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import text

from bench.report import print_report
from bench.sides import Side, on_both
from storage.job import accepting, closing
from testbed import job_of, new_account

OPEN_JOBS = 20_000
OF_ACCOUNT = 100  #: open jobs of an account, as many as MAX_OPEN_JOBS allows
POSTS = 200  #: posts beside the open jobs, and as many beside none; they take turns

#: What a POST counted before the totals were kept.
COUNTED = (
    "SELECT COUNT(*) FROM jobs WHERE account = :account AND finished_at IS NULL",
    "SELECT SUM(scratch_bytes) FROM jobs WHERE finished_at IS NULL",
    "SELECT SUM(input_bytes) FROM jobs WHERE inputs_expire_at IS NOT NULL",
)


class Posts(Side):
    """A database in which an account posts."""

    def fill(self) -> None:
        for _ in range(OPEN_JOBS // OF_ACCOUNT):
            account = new_account(self.database, 10**6)
            with self.database.write() as connection:
                for _ in range(OF_ACCOUNT):
                    accepting.accept(connection, job_of(account, waited=False), max_open=OF_ACCOUNT, max_scratch=10**12)
        self.settle()

    def post(self, *, count: bool) -> float:
        """Seconds that a POST's transaction takes. `count`: it also runs the queries of before."""
        new = job_of(self.account, waited=True)
        began = time.perf_counter()
        with self.database.write() as connection:
            if count:
                for query in COUNTED:
                    connection.execute(text(query), {"account": self.account} if ":account" in query else {})
            accepting.accept(connection, new, max_open=1000, max_scratch=10**12, announces=True)
        took = time.perf_counter() - began
        with self.database.write() as connection:
            closing.cancel(connection, new.id)
        return took


def measure(name: str, empty_url: str, full_url: str) -> list[tuple[str, str, str]]:
    none, many = Posts(empty_url), Posts(full_url)
    many.fill()
    alone, beside = in_turns(partial(none.post, count=False), partial(many.post, count=False))
    alone_then, before = in_turns(partial(none.post, count=False), partial(many.post, count=True))
    none.database.close()
    many.database.close()
    return [
        (f"{name}: a POST beside no open job", f"{alone * 1000:.2f} ms", ""),
        (f"{name}: beside {OPEN_JOBS:,} / beside none", f"{beside / alone:.2f} x", "1.2 x"),
        (f"{name}: the same with the counts of before", f"{before / alone_then:.2f} x", ""),
    ]


def in_turns(first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    """The medians of both. Each goes first as often as the other: what runs after a slow one finds other memory in the caches."""
    took: tuple[list[float], list[float]] = [], []
    for turn in range(POSTS):
        for which in (0, 1) if turn % 2 else (1, 0):
            took[which].append((first, second)[which]())
    return statistics.median(took[0]), statistics.median(took[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    print_report(f"The transaction of a POST beside {OPEN_JOBS:,} open jobs, {POSTS} posts each", on_both(measure))


if __name__ == "__main__":
    main()
