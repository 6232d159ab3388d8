"""The commands `jobs` and `usage`: what the account has at the service."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import connection
from cli.exits import Exit, client_faults

if TYPE_CHECKING:
    from cli.client import Job

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON as the service sends it.")
LEAST_BESIDE = 30  #: characters beside the first column; a narrower terminal breaks the lines itself
PIPE_WIDTH = 200  #: characters of a table's line if it is not shown on a terminal
STATUSES = click.Choice(["queued", "running", "finalizing", "succeeded", "partial", "failed", "cancelled"])
#: The status of a job that has ended → the exit code of `jobs watch`.
CODES = {"succeeded": Exit.ALL, "partial": Exit.SOME_FAILED, "failed": Exit.SOME_FAILED, "cancelled": Exit.SOME_FAILED}


@click.group()
def jobs() -> None:
    """List, show, watch, cancel, retry and delete jobs, and get their results."""


@jobs.command("list")
@click.option("--status", type=STATUSES, help="Only jobs with this status.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The most jobs that are shown.")
@JSON
@connection.options
def list_jobs(*, status: str | None, limit: int, as_json: bool, url: str | None, key: str | None) -> None:
    """List the account's jobs, newest first."""
    from itertools import islice

    with client_faults(), connection.open_client(url, key) as client:
        found = list(islice(client.jobs(status=status or "", page=min(limit, 100)), limit))
    if as_json:
        click.echo(json.dumps([dict(job.raw) for job in found]))
        return
    _print_table(
        ("job", "status", "images", "failed", "credits", "created"),
        [
            (
                job.id,
                job.status,
                f"{job.counts.done}/{job.counts.total}",
                str(job.counts.failed),
                str(job.spent.credits),
                (job.created_at or "")[5:16].replace("T", " "),  # month to minute, so that a row fits in 80 columns
            )
            for job in found
        ],
    )


@jobs.command()
@click.argument("job")
@JSON
@connection.options
def show(*, job: str, as_json: bool, url: str | None, key: str | None) -> None:
    """Show a job, and the images of it that failed."""
    with client_faults(), connection.open_client(url, key) as client:
        found = client.job(job)
        if as_json:
            click.echo(json.dumps(dict(found.raw)))
            return
        failed = list(client.items(job, status="failed")) if found.counts.failed else []
    _describe(found)
    for item in failed:
        click.echo(f"✗ {item.custom_id or item.index}: {item.message or item.code}")


@jobs.command()
@click.argument("job")
@connection.options
def watch(*, job: str, url: str | None, key: str | None) -> None:
    """Wait until a job has ended, and show how far it is. The exit code is 0 if every image was read, else 1."""
    from cli.run.follow import POLL_SECONDS, waits_of
    from cli.run.progress import Reporter, Standing

    reporter = Reporter()

    def tell(seen: Job) -> None:
        counts, waits = seen.counts, waits_of(seen)
        standing = Standing(
            total=counts.total,
            done=counts.succeeded,
            failed=counts.failed,
            credits=seen.spent.credits,
            waiting=waits[0] if waits else "",
        )
        reporter.standing(standing)

    with client_faults(), connection.open_client(url, key) as client:
        try:
            ended = client.wait(job, on_change=tell, poll=POLL_SECONDS)
        finally:
            reporter.end_bar()
    _describe(ended)
    sys.exit(int(CODES[ended.status]))


@jobs.command()
@click.argument("job")
@connection.options
def cancel(*, job: str, url: str | None, key: str | None) -> None:
    """End a job now, with the results that it has."""
    with client_faults(), connection.open_client(url, key) as client:
        _describe(client.cancel(job))


@jobs.command()
@click.argument("job")
@connection.options
def retry(*, job: str, url: str | None, key: str | None) -> None:
    """Try the failed images of a job again."""
    with client_faults(), connection.open_client(url, key) as client:
        _describe(client.retry(job))


@jobs.command()
@click.argument("job")
@click.option("--format", "form", type=click.Choice(["json", "jsonl", "csv", "xlsx"]), default="json", show_default=True)
@connection.options
def results(*, job: str, form: Any, url: str | None, key: str | None) -> None:
    """Write the results of a job to standard output."""
    with client_faults(), connection.open_client(url, key) as client, client.results(job, form) as pieces:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
    if form == "json":
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


@jobs.command()
@click.argument("job")
@connection.options
def delete(*, job: str, url: str | None, key: str | None) -> None:
    """Delete a job with its results. A job that runs is cancelled first."""
    with client_faults(), connection.open_client(url, key) as client:
        client.delete(job)
    click.echo(f"{job} is deleted.")


@click.command()
@click.option("--days", type=click.IntRange(1, 366), default=31, show_default=True, help="How many days are shown.")
@JSON
@connection.options
def usage(*, days: int, as_json: bool, url: str | None, key: str | None) -> None:
    """Show the account's credits, and what was charged by day."""
    with client_faults(), connection.open_client(url, key) as client:
        found = client.usage(days=days)
    if as_json:
        click.echo(json.dumps(found))
        return
    balance = found["balance"]
    click.echo(f"{balance['available']} credits available, {balance['held']} held by jobs, {balance['charged']} charged.")
    rows = [(day["date"], str(day["jobs"]), str(day["credits"])) for day in found["days"]]
    if rows:
        _print_table(("day", "jobs", "credits"), rows)


def _describe(job: Job) -> None:
    counts, spent = job.counts, job.spent
    money = f", ${spent.money:.4f}" if spent.money else ""
    click.echo(
        f"{job.id} is {job.status}: {counts.succeeded} of {counts.total} images succeeded, {counts.failed} failed; "
        f"{spent.credits} credits{money}."
    )
    for text in [*([job.error] if job.error else []), *job.warnings]:
        click.echo(f"  {text}")


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    widest = max(map(len, (titles[0], *(row[0] for row in rows))))
    # The first column is never folded or cut, because an id is copied. On a narrow terminal, the other columns shrink.
    table = Table(Column(titles[0], no_wrap=True, min_width=widest), *titles[1:], box=None, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*row)
    # A program that reads the table, such as `grep`, needs each row in one line.
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.width = max(console.width, widest + LEAST_BESIDE)
    console.print(table)
