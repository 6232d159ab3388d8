"""The command `run`: its options, and what they mean. The work is done in cli/run/."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import connection
from cli.exits import CommandFault, Exit

if TYPE_CHECKING:
    from cli.run.options import Form, Options

EXIT_CODES = """\b
Exit codes:
  0    every image was read
  1    some or all images failed; the rows are written
  2    an option, the prompt or the schema is wrong
  3    the service or its model can't be reached
  4    the key is refused, or credits or limits on cost do not suffice
  130  interrupted
"""
PATHS = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=EXIT_CODES)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-p", "--prompt", default="", help="What to read in each image.")
@click.option("--schema", "schema_text", metavar="FILE|FIELDS", help='A JSON Schema, or fields: "shop, date, total number".')
@click.option("--csv", "csv_file", type=PATHS, metavar="FILE", help="Write the table to this CSV file.")
@click.option("--jsonl", "jsonl_file", type=PATHS, metavar="FILE", help="Write it as one JSON object a line.")
@click.option("--xlsx", "xlsx_file", type=PATHS, metavar="FILE", help="Write it as a workbook.")
@connection.options
@click.option("--include", multiple=True, metavar="GLOB", help="Take only files that fit. You can repeat the option.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out files that fit. You can repeat the option.")
@click.option("--no-recursive", is_flag=True, help="Leave out folders inside folders.")
@click.option("--model", help="The model that is asked.")
@click.option(
    "--fallback-model", "fallback_models", multiple=True, help="Asked if the model can't be. You can repeat the option."
)
@click.option("--detail", type=click.Choice(["low", "medium", "high", "ultra"]), help="How closely the model looks.")
@click.option("--tier", type=click.Choice(["standard", "economy"]), help="economy: half the price, ready within four hours.")
@click.option("--evidence", is_flag=True, help="Name the fields whose values do not stand in the picture, by OCR.")
@click.option("--explode", default="", metavar="FIELD", help="Write a row for each element of this array of the schema.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Read only N images, to try the prompt.")
@click.option("--estimate", "only_estimate", is_flag=True, help="Print what the run would cost, and send nothing.")
@click.option("--max-credits", type=click.IntRange(min=0), metavar="N", help="Send nothing if the run may cost more credits.")
@click.option("--max-money", type=click.FloatRange(min=0), metavar="N", help="Spend at most about this many dollars.")
@click.option("--images-per-job", type=click.IntRange(min=1), metavar="N", help="Send at most N images in a job.")
@click.option("--yes", is_flag=True, help="Do not ask before a large run.")
@click.option("--retry-failed", is_flag=True, help="Also send again what failed for a lasting reason.")
@click.option("--restart", is_flag=True, help="Forget what was read before, and read everything again.")
@click.option("--json", "as_json", is_flag=True, help="Report events on standard error as JSON, one a line.")
@click.option("-q", "--quiet", is_flag=True, help="Report only what needs you.")
@click.pass_context
def run(context: click.Context, /, **given: Any) -> None:
    """Read images and write a table with a row for each.

    PATH is a folder, a file, a glob, a URL, or - for a list of these on standard input. If no service is configured, one runs on this
    machine for the time of the command. The same command again goes on where it ended: it sends only what is new, changed, or failed
    for a passing reason. Without a file, a terminal gets a table and a pipe gets CSV.
    """
    from cli.run.flow import run as run_all
    from cli.run.progress import Reporter
    from cli.run.types import Context

    started = time.monotonic()
    # The output is the user's, so it gets the permissions that the shell gives to files. `main` keeps them in the context.
    umask = context.obj if isinstance(context.obj, int) else 0o077
    reporter = Reporter(as_json=given["as_json"], quiet=given["quiet"])
    try:
        options = _options(given)
        code = run_all(
            options,
            Context(
                service=connection.find_service(given["url"], given["key"]),
                reporter=reporter,
                can_ask=sys.stdin.isatty() and sys.stderr.isatty() and not given["as_json"],
                mode=0o666 & ~umask,
                command=_as_written(given),
                started=started,
            ),
        )
    except (KeyboardInterrupt, click.Abort):
        reporter.end_bar()
        reporter.warn("interrupted", "Interrupted. The same command goes on where this one ended.")
        code = Exit.INTERRUPTED
    sys.exit(int(code))


def _options(given: dict[str, Any]) -> Options:
    from cli.run.options import Options
    from cli.schema_text import SchemaTextFault, read_schema

    try:
        schema = read_schema(given["schema_text"]) if given["schema_text"] else None
    except SchemaTextFault as fault:
        raise CommandFault(Exit.USAGE, str(fault)) from None
    if given["max_money"] is not None and not math.isfinite(given["max_money"]):
        raise CommandFault(Exit.USAGE, "--max-money must be a number of dollars, such as 2.50.")
    named: dict[Form, Path | None] = {"csv": given["csv_file"], "jsonl": given["jsonl_file"], "xlsx": given["xlsx_file"]}
    names = (
        "explode",
        "sample",
        "images_per_job",
        "only_estimate",
        "max_credits",
        "max_money",
        "yes",
        "retry_failed",
        "restart",
        "model",
        "detail",
        "tier",
        "evidence",
    )
    return Options(
        paths=tuple(_paths(given["paths"])),
        prompt=given["prompt"],
        schema=schema,
        outputs={form: path for form, path in named.items() if path is not None},
        include=given["include"],
        exclude=given["exclude"],
        recursive=not given["no_recursive"],
        fallback_models=given["fallback_models"],
        **{name: given[name] for name in names},
    )


def _paths(paths: tuple[str, ...]) -> list[str]:
    """The paths, with the list on standard input in the place of `-`."""
    found: list[str] = []
    for path in paths:
        if path != "-":
            found.append(path)
            continue
        lines = sys.stdin.buffer.read().split(b"\n")
        found += [os.fsdecode(line.strip(b"\r")) for line in lines if line.strip()]
    if not found:
        raise CommandFault(Exit.USAGE, "The list on standard input is empty.")
    return found


def _as_written(given: dict[str, Any]) -> list[str]:
    """The arguments after `run`, without the key, because they are shown."""
    written = sys.argv[sys.argv.index("run") + 1 :] if "run" in sys.argv else list(given["paths"])
    shown: list[str] = []
    skip = False
    for each in written:
        if not skip and each != "--key" and not each.startswith("--key="):
            shown.append(each)
        skip = each == "--key"
    return shown
