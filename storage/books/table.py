"""All checks of the books, in the order in which they run, and what people need to know of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from pipeline.ports import Scratch
from storage.books import credits, kept_sums, objects, queue  # noqa: A004 - the field's word
from storage.books.findings import Checked
from storage.books.snapshot import snapshot
from storage.database import Database


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a check is about."""

    unit: str  #: of what it looks at
    holds: str  #: what holds if it finds nothing
    todo: str  #: what to do about its findings


_SUPERVISOR = "Check that a supervisor runs: `extract-image doctor --only supervisor` beside it, and its log."
_WRITTEN = "Somebody or something else has written to the database. Keep a dump, and correct the rows by hand."

CHECKS: Mapping[str, About] = {
    credits.LEDGER: About(unit="accounts", holds="the credits of each account are the sum of its ledger rows", todo=_WRITTEN),
    credits.ROUNDS: About(unit="rounds", holds="each ended round is charged once, and the rest is released", todo=_WRITTEN),
    credits.HOLDS: About(unit="open jobs", holds="each open job holds credits, and nothing else does", todo=_WRITTEN),
    queue.OWNERLESS: About(unit="rows", holds="each step, chunk, image and merge has its job", todo=_WRITTEN),
    queue.STEPS: About(
        unit="open steps",
        holds="each open job has a step that drives it, and no work is left of ended rounds",
        todo="The job ends at its deadline by itself, or sooner with POST /api/v1/jobs/<job>/cancel. Report it as a bug, with the log of the job.",
    ),
    queue.LEASES: About(unit="leases", holds="expired leases are taken back within a minute", todo=_SUPERVISOR),
    queue.DEADLINES: About(unit="open jobs", holds="jobs end at their deadline", todo=_SUPERVISOR),
    queue.WEBHOOKS: About(
        unit="webhooks that wait",
        holds="each webhook that is not delivered yet will be sent",
        todo="If it is due, check that workers run. If no step sends it, resend it: POST /api/v1/deliveries/<id>/redeliver.",
    ),
    kept_sums.SUMS: About(
        unit="accounts",
        holds="the kept sums are what a count finds",
        todo="The supervisor counts again every 5 minutes. If they differ again, report it as a bug. Stored bytes are not mended.",
    ),
    objects.ORPHANS: About(unit="objects", holds="scratch has no objects that nobody needs", todo=_SUPERVISOR),
    objects.MISSING: About(
        unit="needed objects",
        holds="scratch has each object that a job needs",
        todo="Something else deletes objects: look at the bucket's lifecycle rule. The images of these jobs fail, and may be sent again.",
    ),
}


def examine(
    database: Database, scratch: Scratch, *, only: frozenset[str] = frozenset(), progress: Callable[[str, int], None]
) -> list[Checked]:
    """Runs the checks, or those of `only`. Those of SQL alone see one moment.

    `progress`: called with the name of a check when it begins, and with the number of objects that it has listed. Raises Transient and
    Permanent.
    """

    def wanted(*names: str) -> bool:
        return not only or bool(only & set(names))

    singles: tuple[tuple[str, Callable[[Connection], Checked]], ...] = (
        (credits.LEDGER, credits.ledger),
        (queue.OWNERLESS, queue.ownerless),
        (queue.STEPS, queue.steps),
        (queue.LEASES, queue.leases),
        (queue.DEADLINES, queue.deadlines),
        (queue.WEBHOOKS, queue.webhooks),
        (kept_sums.SUMS, kept_sums.sums),
    )
    found: list[Checked] = []
    with snapshot(database) as connection:
        for name, check in singles:
            if wanted(name):
                progress(name, 0)
                found.append(check(connection))
        if wanted(credits.ROUNDS, credits.HOLDS):
            progress(credits.ROUNDS, 0)
            found += credits.rounds(connection)
    if wanted(objects.ORPHANS, objects.MISSING):
        progress(objects.ORPHANS, 0)
        found += objects.objects(database, scratch, lambda listed: progress(objects.ORPHANS, listed))
    by_name = {one.check: one for one in found}
    return [by_name[name] for name in CHECKS if name in by_name and wanted(name)]
