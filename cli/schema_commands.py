"""The commands `schema check` and `schema suggest`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import connection
from cli.exits import CommandFault, Exit, client_faults

if TYPE_CHECKING:
    from cli.client import Client, File

MOST_PICTURES = 3
ASK = (
    "Propose the columns of a table that has one row for each picture of this kind. Name each field in the language of the picture, in a "
    "few words, and choose its type. Leave out what differs in meaning from picture to picture."
)


@click.group()
def schema() -> None:
    """Check a schema, or let the model propose one."""


@schema.command()
@click.argument("text", metavar="FILE|FIELDS")
def check(*, text: str) -> None:
    """Check whether the service can use a schema, and print it.

    FILE has a JSON Schema of one image's record. FIELDS is the short form: "shop, date, total number".
    """
    from cli.schema_text import SchemaTextFault, read_schema
    from pipeline.records.schema import SchemaFault
    from pipeline.records.validate import compile_schema

    try:
        found = read_schema(text)
        compile_schema(found)
    except SchemaTextFault as fault:
        raise CommandFault(Exit.USAGE, str(fault)) from None
    except SchemaFault as fault:
        raise CommandFault(Exit.USAGE, f"The schema can't be used: {fault}") from None
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


@schema.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-p", "--prompt", default="", help="A sentence that says what you want to know.")
@connection.options
def suggest(*, paths: tuple[str, ...], prompt: str, url: str | None, key: str | None) -> None:
    """Let the model propose a schema for pictures like these, and print it.

    It looks at three pictures. If no service is configured, one runs on this machine for the time of the command.
    """
    with client_faults(), _client(url, key) as client:
        fields = {
            "prompt": f"{ASK} The user wants to know: {prompt}" if prompt else ASK,
            "schema": _proposal_schema(),
            "granularity": "perImage",
        }
        job = client.wait(client.create_job(_pictures(paths), fields).id)
        items = list(client.items(job.id))
    proposals = [item.result["fields"] for item in items if item.status == "succeeded"]
    if not proposals:
        why = next((item.message for item in items if item.message), None) or job.error or "no picture could be read"
        raise CommandFault(Exit.SOME_FAILED, f"The model proposed no schema: {why}")
    click.echo(json.dumps(united(proposals), indent=2, ensure_ascii=False))


def united(proposals: Sequence[Sequence[dict[str, str]]]) -> dict[str, Any]:
    """One schema with the fields of all proposals, in the order in which they first come."""
    from cli.schema_text import TYPES

    properties: dict[str, Any] = {}
    for proposal in proposals:
        for field in proposal:
            kept = dict(TYPES[field["type"]])
            if field.get("description") and "description" not in kept:
                kept["description"] = field["description"]
            properties.setdefault(field["name"], kept)
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _proposal_schema() -> dict[str, Any]:
    from cli.schema_text import TYPES

    field = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "type": {"type": "string", "enum": list(TYPES)},
            "description": {"type": "string"},
        },
        "required": ["name", "type", "description"],
    }
    return {"type": "object", "properties": {"fields": {"type": "array", "items": field}}, "required": ["fields"]}


@contextmanager
def _client(url: str | None, key: str | None) -> Iterator[Client]:
    """A client of the configured service, or of an embedded one."""
    from cli.client import Client
    from cli.run.check import KEY_HINT
    from cli.run.embedded import embedded, what_reads
    from cli.run.progress import Reporter

    if connection.find_service(url, key):
        with connection.open_client(url, key) as client:
            yield client
        return
    if not what_reads().follows_prompts:
        raise CommandFault(Exit.USAGE, f"Only a model can propose a schema, and there is only OCR here. {KEY_HINT}")
    folder = Path(tempfile.mkdtemp(prefix="suggest-", dir=_made(connection.state_home(os.environ))))
    try:
        Reporter().say("embedded", "No service is configured, so one is started on this machine for the time of this command …")
        with embedded(folder) as own, Client(own.url, own.key) as client:
            yield client
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _pictures(paths: tuple[str, ...]) -> list[File | str]:
    """Up to three pictures, spread evenly over what the paths lead to: all files, or all URLs."""
    from cli.client import File
    from cli.run.scan import Found, Wanted, scan

    found = [each for each in scan(paths, Wanted()) if isinstance(each, Found) and not each.code]
    if not found:
        raise CommandFault(Exit.USAGE, f"There is no image in {', '.join(paths)}.")
    alike = sorted((each for each in found if each.is_url == found[0].is_url), key=lambda each: each.name)
    count = min(MOST_PICTURES, len(alike))
    chosen = [alike[at * len(alike) // count] for at in range(count)]
    return [each.source if each.is_url else File(name=each.name, source=Path(each.source), size=each.size) for each in chosen]
