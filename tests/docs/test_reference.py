"""The reference says what the code says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import pytest
from annotated_types import Ge, Le
from click.testing import CliRunner

import pipeline.decode.pool as decoding
import pipeline.decode.wire as decoders
from api.app import create_app
from api.metrics import GAUGES
from api.openapi.error_codes import ERRORS, ITEM_CODES
from cli import keeper
from cli.main import main
from config.settings import PARTS, SECRETS, Settings, load_settings
from pipeline.decode import sniff
from pipeline.decode.parts import MAX_SEGMENTS, MAX_STRIPS, MAX_TAGS
from pipeline.decode.too_many import MAX_PARTS
from pipeline.metrics import COUNTED, PREFIX
from pipeline.notes import NoteCode
from pipeline.request.check import RequestFault
from pipeline.request.check import check as check_request
from pipeline.request.fields import FIELDS
from pipeline.types import (
    INPUT_FAULTS,
    MAX_IMAGE_BYTES,
    MAX_IMAGES,
    MAX_OUTPUT_TOKENS,
    MAX_TOTAL_BYTES,
    Finish,
    ItemCode,
    JobStatus,
    StepState,
)
from storage.books.table import CHECKS
from storage.queue import steps
from storage.schema import metadata
from tests.docs.markdown import ROOT, blocks, prose, read, tables_with
from tests.harness import Harness
from tests.torture.checker import PROMISES

API = "docs/reference/api.md"
CLI = "docs/reference/cli.md"
FORMATS = "docs/reference/formats.md"
SETTINGS = "docs/reference/settings.md"
SETTING_ROWS = tables_with(SETTINGS, "setting", "default", "allowed", "meaning")
#: What Werkzeug raises and api/errors.py names after its phrase.
PHRASES = {(400, "bad_request"), (404, "not_found"), (405, "method_not_allowed")}


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


def source_trees(*folders: str) -> Iterator[ast.Module]:
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            yield ast.parse(path.read_text())


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def constants(call: ast.Call) -> list[Any]:
    return [argument.value if isinstance(argument, ast.Constant) else None for argument in call.args]


def test_the_table_of_settings_has_every_setting_in_order():
    assert [row["setting"] for row in SETTING_ROWS] == [name.upper() for name in Settings.model_fields]


@pytest.mark.parametrize("row", SETTING_ROWS, ids=lambda row: row["setting"])
def test_a_setting_s_default_and_what_it_allows_are_the_code_s(row):
    name = row["setting"].lower()
    field = Settings.model_fields[name]
    default = getattr(load_settings({}), name)
    shown = f"{default:.0f}" if isinstance(default, float) else str(default).strip("()")
    if isinstance(default, bool):
        shown = str(default).lower()  # as it is written in the environment
    assert row["default"] == ("not set" if default in (None, "", ()) else shown)
    lowest: Any = next((found.ge for found in field.metadata if isinstance(found, Ge)), None)
    highest = next((found.le for found in field.metadata if isinstance(found, Le)), None)
    if get_origin(field.annotation) is Literal:
        assert row["allowed"] == " or ".join(f"`{value}`" for value in get_args(field.annotation) if value)
    elif name in PARTS:
        assert row["allowed"].replace("`", "") == f"starts with {' or '.join(PARTS[name])}"
    elif lowest is not None:
        assert row["allowed"] == (f"at least {lowest}" if highest is None else f"{lowest} to {highest}")


def test_the_secrets_that_may_come_from_files_are_named():
    section = prose(SETTINGS).partition("## Secrets from files")[2].partition("may stand in a file")[0]
    assert tuple(re.findall(r"`(\w+)`", section)) == SECRETS


@pytest.mark.parametrize("path", list(commands(main)), ids=lambda path: " ".join(path) or "extract-image")
def test_a_command_s_help_is_in_the_reference(path):
    printed = CliRunner().invoke(main, [*path, "--help"], prog_name="extract-image", terminal_width=100).output
    heading = f"\n## {' '.join(('extract-image', *path))}\n"
    assert f"```text help\n{printed.rstrip()}\n```" in read(CLI).partition(heading)[2].partition("\n## ")[0]


def test_every_check_of_the_books_is_in_the_reference():
    rows = tables_with(CLI, "check", "what holds if it finds nothing")
    assert [(row["check"].strip("`"), row["what holds if it finds nothing"]) for row in rows] == [
        (name, about.holds) for name, about in CHECKS.items()
    ]


def test_the_reference_of_commands_has_no_command_that_is_gone():
    headings = re.findall(r"^## extract-image ?(.*)$", prose(CLI), re.MULTILINE)
    assert sorted(headings) == sorted(" ".join(path) for path in commands(main))
    assert len(blocks(CLI)) == len(headings)


def test_every_endpoint_is_in_the_reference_and_no_other(harness: Harness):
    routed = {
        f"{method} {rule.rule}"
        for rule in create_app(harness.web).url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert {row["endpoint"] for row in tables_with(API, "endpoint", "key", "answers")} == routed


def test_the_table_of_fields_says_what_their_declarations_say():
    rows = {row["field"]: row["rule"] for row in tables_with(API, "field", "rule")}
    assert rows.pop("image") == "see `images`"
    assert list(rows.items()) == [(name, field.rule) for name, field in FIELDS.items()]


def test_the_limits_are_the_code_s():
    for name in (API, FORMATS):
        limits = {row["what"]: row["limit"].replace("`", "") for row in tables_with(name, "what", "limit")}
        settings = load_settings({})
        stated: dict[str, float] = {
            "images a request": MAX_IMAGES,
            "an image, as received": MAX_IMAGE_BYTES,
            "bytes, as received": MAX_IMAGE_BYTES,
            "all images of a request, as received": MAX_TOTAL_BYTES,
            "pixels of an image": decoders.MAX_PIXELS,
            "pixels": decoders.MAX_PIXELS,
            "a side of an image": decoders.MAX_SIDE,
            "a side": decoders.MAX_SIDE,
            "scans of a progressive JPEG": decoders.MAX_SCANS,
            "chunks, blocks or resources of a file": MAX_PARTS,
            "segments before the first scan of a JPEG": MAX_SEGMENTS,
            "tags of a TIFF's first page": MAX_TAGS,
            "strips or tiles of a TIFF's first page": MAX_STRIPS,
            "time to decode": decoding.MAX_SECONDS,
            "memory to decode": decoding.MAX_MEMORY,
            "the body": settings.max_body,
            "output tokens of a model call": MAX_OUTPUT_TOKENS,
            "requests": int(settings.rate_limit.partition("/")[0]),
            "open jobs of an account": settings.max_open_jobs,
            "a job's time": 3600,
        }
        assert limits
        for what, limit in limits.items():
            assert re.search(rf"(?<!\d){stated[what]:.0f}(?!\d)", limit), f"{what}: {limit}"


def error_codes_in_the_code() -> set[tuple[int, str]]:
    """Status and code of each refusal that the code raises."""
    raised = {
        (status, code) for tree in source_trees("api") for status, code, *_ in map(constants, calls(tree, "ApiError")) if code
    }
    raised |= {
        (400, code)
        for tree in source_trees("api", "pipeline")
        for code, *_ in map(constants, calls(tree, "RequestFault"))
        if code
    }
    raised |= {
        (400, code) for tree in source_trees("pipeline") for _, *code in map(constants, calls(tree, "Unfit")) for code in code
    }
    for name in FIELDS:
        with pytest.raises(RequestFault) as refused:
            check_request({"inputMethod": "url", "prompt": "p", name: [5]}, None if name == "images" else [b"https://a.example/"])
        raised.add((400, refused.value.code))
    return raised | PHRASES


def test_every_error_code_is_in_the_reference_with_its_status_and_the_same_words():
    stated = {(int(row["status"]), row["code"], row["when"]) for row in tables_with(API, "status", "code", "when")}
    assert stated == {(error.status, code, error.when) for code, error in ERRORS.items()}


def test_every_item_code_is_in_the_reference_with_whose_fault_it_is_and_the_code_s_words():
    rows = tables_with(API, "code", "fault of", "when")
    assert {row["code"] for row in rows} == {code.value for code in ItemCode}
    assert {row["code"]: row["when"] for row in rows} == ITEM_CODES
    assert {row["code"] for row in rows if row["fault of"] == "input"} == {code.value for code in INPUT_FAULTS}


def test_every_status_of_a_job_is_in_the_reference():
    [row] = [row for row in tables_with(API, "key", "value") if row["key"] == "status"]
    assert set(re.findall(r"`(\w+)`", row["value"])) == {status.value for status in JobStatus}


def test_every_code_of_a_note_is_in_the_reference():
    assert [row["code"] for row in tables_with(API, "code", "means")] == [code.value for code in NoteCode]


def test_the_formats_are_the_code_s():
    rows = tables_with(FORMATS, "format", "type")
    assert {row["format"]: row["type"] for row in rows} == dict(sniff.NATIVE_FORMATS)
    converted = re.search(r"## Converted to PNG\n\n(.*?)\.\n", prose(FORMATS), re.DOTALL)
    assert converted is not None
    assert tuple(re.split(r",\s+", converted[1])) == sniff.CONVERTED_FORMATS


def test_every_format_that_is_refused_by_name_is_in_the_reference():
    section = prose(FORMATS).partition("## Refused")[2].partition("## Limits")[0].lower()
    assert [kind for kind in sniff._REFUSED if kind.lower() not in section] == []


def test_the_diagram_of_a_step_has_the_states_that_the_code_writes():
    [diagram] = [block.text for block in blocks("docs/architecture.md") if "[*] --> ready" in block.text]
    drawn = set(re.findall(r"^\s+(\w+) -->", diagram, re.MULTILINE)) | set(re.findall(r"--> (\w+)", diagram))
    tree = ast.parse((ROOT / "storage" / "queue" / "steps.py").read_text())
    written = set(get_args(get_type_hints(steps.finish)["state"]))
    for node in ast.walk(tree):
        pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
        given = [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "state"]
        if isinstance(node, ast.keyword) and node.arg == "state":
            given.append(node.value)
        written |= {StepState[member] for value in given for member in re.findall(r"StepState\.([A-Z]+)", ast.unparse(value))}
    assert drawn == written == set(StepState)


def test_the_diagram_of_a_job_has_its_statuses():
    [diagram] = [block.text for block in blocks("docs/architecture.md") if "[*] --> queued" in block.text]
    drawn = set(re.findall(r"--> (\w+)", diagram))
    assert drawn == {status.value for status in JobStatus}


def test_the_tables_of_the_database_are_all_described():
    assert {row["table"] for row in tables_with("docs/architecture.md", "table", "a row is")} == set(metadata.tables)


def test_the_promises_that_were_measured_are_the_checker_s():
    rows = tables_with("docs/reference/promises.md", "promise", "seed 1, short", "seed 2")
    assert [row["promise"] for row in rows] == list(PROMISES)


def test_the_events_that_the_how_to_explains_are_logged():
    logged = {
        (call.args[0].value, {"exception": "error"}.get(call.func.attr, call.func.attr))
        for tree in source_trees("api", "cli", "pipeline", "storage", "workers")
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "log"
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }
    logged.add((keeper.ENDED, "error"))
    rows = tables_with("docs/how-to/read-the-logs.md", "event", "level", "what it says", "what to do")
    explained = {(event, row["level"]) for row in rows for event in row["event"].replace("`", "").split(", ")}
    assert explained
    assert explained <= logged


def test_every_metric_is_in_the_reference():
    rows = tables_with("docs/reference/metrics.md", "metric", "type", "labels", "what")
    stated = [(row["metric"], row["type"], re.findall(r"\w+", row["labels"]), row["what"]) for row in rows]
    counted = [(metric.name, metric.kind, list(metric.labels), metric.what) for metric in COUNTED]
    assert stated == counted + [(PREFIX + gauge.name, "gauge", list(gauge.labels), gauge.what) for gauge in GAUGES]


def test_every_outcome_that_is_counted_is_in_the_reference():
    rows = tables_with("docs/reference/metrics.md", "label", "values")
    stated = {value for row in rows for value in re.findall(r"`(\w+)`", row["values"])}
    counted = {finish.value for finish in Finish}
    for tree in source_trees("pipeline", "workers"):
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "_count":
                counted.add(ast.literal_eval(call.args[1]))
            elif isinstance(call, ast.Call) and re.fullmatch(r"[A-Z_]+\.add", ast.unparse(call.func)):
                given = [keyword.value for keyword in call.keywords if keyword.arg in {"outcome", "reason"}]
                counted |= {
                    node.value for value in given for node in ast.walk(value) if isinstance(node, ast.Constant) and node.value
                }
            elif (
                isinstance(call, ast.Assign)
                and ast.unparse(call.targets[0]) == "outcome"
                and isinstance(call.value, ast.Constant)
            ):
                counted.add(call.value.value)
    assert stated == counted
