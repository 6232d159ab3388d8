"""Finds out what can't work before an image is sent: the key, the model, the schema, the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cli.client import ApiError, Client, Formats, Unreachable
from cli.exits import CommandFault, Exit, client_faults
from cli.run.embedded import Reads
from cli.run.options import Options
from cli.run.plan import KEEP_SECONDS
from cli.run.progress import Reporter

#: An address that is never fetched: an estimate looks only at the request.
NOWHERE = "https://images.example/none.png"
#: The fields of the record that the ocr engine makes of every picture.
OCR_RECORD = frozenset(("text", "lines", "barcodes"))
KEY_HINT = (
    "Set GEMINI_API_KEY for Gemini, or ENGINE=openai, OPENAI_BASE_URL and MODEL for a model of your own, and run the command again. "
    "Or name a service that has a model with --url and --key."
)
#: Said instead of the service's own warning about maxMoney, which is about a request.
NO_PRICE = (
    "--max-money does not limit this run: the service has no price for the model, so its calls count as $0. If the model costs money, set "
    "its price in the service's setting MODELS (docs/reference/settings.md), or limit the run with --max-credits."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What the service says about the run."""

    formats: Formats
    available: int  #: credits
    keeps: bool  #: the service keeps the files of jobs for KEEP_SECONDS if it is asked to
    warnings: tuple[str, ...]  #: what the service can't follow


def check(client: Client, options: Options, reporter: Reporter) -> Checked:
    """Raises CommandFault for what can't work."""
    with client_faults():
        formats = client.formats()
        available = int(client.usage(days=1)["balance"]["available"])
        # The service checks the request in the same way when it estimates it. The first image is enough for that.
        money = {"maxMoney": options.max_money} if options.max_money else {}
        said, keeps = _asked(client, {**options.fields(), **money})
    warnings = tuple(NO_PRICE if "maxMoney" in text else text for text in said)
    for warning in warnings:
        reporter.warn("warning", warning)
    try:
        _, parts = client.ready()
    except Unreachable:  # a proxy may hide this address
        parts = {}
    away = [name for name, state in (parts.get("checks") or {}).items() if state != "ok"]
    for name in away:
        detail = (parts.get("details") or {}).get(name)
        reporter.warn(
            "warning", f"The service can't reach its {name} now{f': {detail}' if detail else ''}. The jobs will wait for it."
        )
    return Checked(formats=formats, available=available, keeps=keeps, warnings=warnings)


def _asked(client: Client, fields: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """The estimate's warnings, and whether files may be kept. MAX_INPUT_TTL of the service may be shorter than we ask for."""
    try:
        return client.estimate([NOWHERE], {**fields, "keepInputsSeconds": KEEP_SECONDS}).warnings, True
    except ApiError as error:
        if error.code != "invalid_keep_inputs_seconds":
            raise
    return client.estimate([NOWHERE], fields).warnings, False


def check_engine(options: Options, reads: Reads, reporter: Reporter) -> None:
    """Raises CommandFault for a schema that the embedded OCR can't fill in. It reads text, and its records have a fixed form."""
    if reads.follows_prompts:
        return
    if options.schema is not None and not _fits_ocr(options.schema):
        text = (
            f"The embedded service has no model, only OCR. OCR reads text, but can't fill in the fields of a schema. {KEY_HINT}"
        )
        raise CommandFault(Exit.USAGE, text)
    if options.prompt:
        reporter.warn(
            "warning", f"OCR reads the text of the images and ignores the prompt. For answers to the prompt: {KEY_HINT}"
        )


def _fits_ocr(schema: Mapping[str, Any]) -> bool:
    required, properties = schema.get("required") or (), schema.get("properties") or {}
    return set(required) <= OCR_RECORD and (not properties or set(properties) <= OCR_RECORD)
