"""`extract-image check`: compares what the database and scratch say with each other."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from config.settings import Settings
    from storage.books.findings import Checked
    from storage.database import Database

PROGRESS_SECONDS = 5.0  #: between two lines about objects that were listed


class Outcome(IntEnum):
    """The exit codes. Scripts rely on these numbers."""

    CLEAN = 0
    FINDINGS = 1
    COULD_NOT_LOOK = 2


@click.command()
@click.option("--json", "as_json", is_flag=True, help='Print {"ok", "seconds", "checks"}.')
@click.option("--only", metavar="CHECK", multiple=True, help="Run only this check. You can repeat the option.")
def check(*, as_json: bool, only: tuple[str, ...]) -> None:
    """Check the books: credits, holds, steps, leases, kept sums, webhooks, and the objects in scratch.

    It only reads, and you can run it while the service works. The exit code is 0 if all is well, 1 if something is wrong, and 2 if it
    could not look.
    """
    import logging

    from cli.logs import configure_logs
    from storage.books.table import CHECKS, examine

    configure_logs(json=not sys.stderr.isatty(), level=logging.ERROR)
    if unknown := [name for name in only if name not in CHECKS]:
        _could_not_look(f"There is no check {unknown[0]}. The checks are {', '.join(CHECKS)}.")
    began = time.monotonic()
    with _faults():
        from storage.scratch.open import open_scratch

        settings = _settings()
        with closing(_database(settings)) as database:
            checks = examine(database, open_scratch(settings), only=frozenset(only), progress=_Progress())
    seconds = time.monotonic() - began
    wrong = sum(one.found for one in checks)
    if as_json:
        shown = [{**asdict(one), "holds": CHECKS[one.check].holds, "todo": CHECKS[one.check].todo} for one in checks]
        click.echo(json.dumps({"ok": not wrong, "seconds": round(seconds, 1), "checks": shown}))
    else:
        _print_table(checks)
    sys.exit(Outcome.FINDINGS if wrong else Outcome.CLEAN)


def _settings() -> Settings:
    from config.roles import WITHOUT
    from config.settings import load_settings

    return load_settings(os.environ, without=WITHOUT["check"])


def _database(settings: Settings) -> Database:
    """Opens the database and makes nothing: a missing file or folder of the embedded parts is a mistake in the settings."""
    from sqlalchemy import make_url

    from storage.database import Database, schema_serves

    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not (url.database and Path(url.database).is_file()):
        _could_not_look(f"There is no database {url.database}. Look at DATABASE_URL and DATA_DIR.")
    kind, _, folder = settings.scratch_url.partition(":")
    if kind == "file" and not Path(folder).is_dir():
        _could_not_look(f"There is no folder {folder} with scratch. Look at SCRATCH_URL and DATA_DIR.")
    database = Database(settings.database_url)
    if not schema_serves(database):
        database.close()
        _could_not_look("The database's schema is older than this version. Run `extract-image migrate`.")
    return database


@contextmanager
def _faults() -> Iterator[None]:
    """Ends the command with code 2 if a setting is wrong or a part can't be read."""
    from cli.faults import told
    from config.settings import SettingsFault

    try:
        yield
    except SettingsFault as fault:
        _could_not_look(str(fault))
    except Exception as error:
        if (text := told(error)) is None:
            raise
        _could_not_look(text)


def _could_not_look(text: str) -> NoReturn:
    click.echo(f"Could not look: {text}", err=True)
    sys.exit(Outcome.COULD_NOT_LOOK)


class _Progress:
    """Says on standard error what is being checked. Objects are counted every few seconds, because a large bucket takes minutes."""

    def __init__(self) -> None:
        self._told_at = 0.0

    def __call__(self, name: str, objects: int) -> None:
        now = time.monotonic()
        if not objects:
            click.echo(f"checking {name} …", err=True)
        elif now - self._told_at < PROGRESS_SECONDS:
            return
        else:
            click.echo(f"checking {name}: {objects} objects so far …", err=True)
        self._told_at = now


def _print_table(checks: Sequence[Checked]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from storage.books.table import CHECKS

    table = Table("check", "state", "looked at", "under way", Column("found", overflow="fold"))
    for one in checks:
        about = CHECKS[one.check]
        state = "[red]wrong[/]" if one.found else "[green]ok[/]"
        found = about.holds if not one.found else _said(one, about.todo)
        table.add_row(one.check, state, f"{one.looked_at} {about.unit}", str(one.in_flight or ""), escape(found))
    Console().print(table)


def _said(one: Checked, todo: str) -> str:
    more = one.found - len(one.examples)
    examples = [*one.examples, *([f"and {more} more"] if more > 0 else [])]
    return "\n".join([*examples, f"What to do: {todo}"])
