"""The images of a job with their outcomes, and the job's results in three formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from flask import Blueprint, Response

from api.auth import authenticate
from api.errors import ApiError, encode_json, json_response
from api.openapi.building import text
from api.openapi.document import Parameter, ResponseSpec, describe
from api.paging import asked, asked_limit, asked_place, asked_status, cursor_of, list_parameters, own_job
from api.render import ITEM_STATUSES, as_corrected, corrections_json, item_json
from api.spreadsheet import BOM, Sheet, merged_rows, merged_table
from api.waiting import held_place
from api.wiring import WebParts
from api.workbook import XLSX, workbook
from pipeline.job_object import JobView, result_json
from pipeline.types import Form
from storage.job.listing import ItemView, corrected_items, form_of, items_page
from storage.job.views import finished_at_of, result_view

DEFAULT_LIMIT, MOST_ITEMS = 100, 1000
PAGE = 50  #: images per page of a stream; the record of one image may have 30 kB
STATES = {status: state for state, status in ITEM_STATUSES.items()}
CSV = "text/csv; charset=utf-8"
CHECKED = Parameter(
    name="checked", schema=text(enum=["true", "false"]), what="Show only those that a person has checked, or has not."
)
NEEDS_REVIEW = Parameter(
    name="needsReview", schema=text(enum=["true", "false"]), what="Show only those that `reviewWhen` selects, or the others."
)
FORMATS = ["json", "jsonl", "csv", "xlsx"]


class Changed(Exception):
    """The job was deleted, expired or began another round while its results were sent. The connection is then broken off."""


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("job_items", __name__)

    @routes.get("/api/v1/jobs/<job>/items")
    @describe(
        "The images of a job",
        tag="Jobs",
        parameters=[*list_parameters(list(STATES), DEFAULT_LIMIT, MOST_ITEMS), CHECKED, NEEDS_REVIEW],
        answers=[ResponseSpec(status=200, what="In the order of `images`.", schema="ItemList")],
        errors=["not_found", "invalid_status", "invalid_limit", "invalid_cursor", "invalid_checked", "invalid_needs_review"],
    )
    def items(job: str) -> Response:
        """Answers with the outcome of each image so far."""
        view = own_job(parts, job, authenticate(parts))
        status, limit, place = asked_status(list(STATES)), asked_limit(DEFAULT_LIMIT, MOST_ITEMS), asked_place(int)
        checked, reviewed = _asked_checked(), _asked_reviewed()
        after = place[0] if place else -1
        with parts.database.read() as connection:
            state = STATES[status] if status else None
            found = items_page(connection, view, limit=limit + 1, state=state, checked=checked, reviewed=reviewed, after=after)
        shown = found[:limit]
        following = cursor_of(shown[-1].index) if len(found) > limit else None
        return json_response({"items": [item_json(item) for item in shown], "nextCursor": following})

    @routes.get("/api/v1/jobs/<job>/results")
    @describe(
        "The results of a job",
        tag="Jobs",
        parameters=[
            Parameter(
                name="format",
                schema=text(enum=FORMATS),
                what="The form of the results, by default `json`. The answers describe each.",
            ),
            Parameter(name="corrections", schema=text(enum=["none"]), what="`none`: the records as the model gave them."),
        ],
        answers=[
            ResponseSpec(
                status=200,
                what="`json`: what the compatible endpoint would have answered with. `jsonl`: an Item a line, in the order of "
                "`images`. `csv` and `xlsx`: the same as a table, with the members of each record in columns of their own. "
                "The answers of a merged job are one row, or a row for each element of an array.",
                schema="Result",
                others={"application/jsonl": text(), "text/csv": text(), XLSX: text(format="binary")},
            )
        ],
        errors=[
            "not_found",
            "not_finished",
            "results_expired",
            "invalid_format",
            "invalid_corrections",
            "no_records",
            "no_waiting_place",
        ],
    )
    def results(job: str) -> Response:
        """Answers with the compatible body, or with one record per line, which is read and sent page by page."""
        account = authenticate(parts)
        view = own_job(parts, job, account)
        wanted = asked("format") or "json"
        if wanted not in FORMATS:
            raise ApiError(400, "invalid_format", f"format must be one of {', '.join(FORMATS)}.")
        original = _asked_original()
        if not view.status.ended:
            raise ApiError(409, "not_finished", f"The job is {view.status.value}; its results come when it has ended.")
        if view.expired:
            raise ApiError(410, "results_expired", "The results of this job have expired. Send its images as a new job.")
        with parts.database.read() as connection:
            if wanted == "json":
                corrected = [] if original else corrected_items(connection, view)
                return json_response(_with_corrections(result_json(view, result_view(connection, job)), corrected))
            form = form_of(connection, job)
            if form is not Form.RECORDS:
                return _merged(job, wanted, result_view(connection, job).result, is_json=form is Form.JSON)
        pages = partial(_shown_pages, parts, view, original=original)
        if wanted == "jsonl":
            return _held(parts, account, _streamed(_lines(pages()), "application/jsonl", f"{job}.jsonl"))
        return _as_table(parts, account, job, wanted, pages)

    return routes


def _asked_checked() -> bool | None:
    given = asked("checked")
    if given not in {"", "true", "false"}:
        raise ApiError(400, "invalid_checked", "checked must be true or false.")
    return given == "true" if given else None


def _asked_reviewed() -> bool | None:
    given = asked("needsReview")
    if given not in {"", "true", "false"}:
        raise ApiError(400, "invalid_needs_review", "needsReview must be true or false.")
    return given == "true" if given else None


def _asked_original() -> bool:
    """Whether the records are asked for as the model gave them."""
    given = asked("corrections")
    if given not in {"", "none"}:
        raise ApiError(400, "invalid_corrections", "corrections may be none, or be left out.")
    return given == "none"


def _with_corrections(body: dict[str, Any], corrected: list[tuple[int, str | None, dict[str, Any]]]) -> dict[str, Any]:
    """The compatible body. What people corrected stands beside it, so that it is as it was for those who do not look for it."""
    if not corrected:
        return body
    shown = [{"index": index, "customId": custom_id, **corrections_json(found)} for index, custom_id, found in corrected]
    return {**body, "corrections": shown}


def _shown_pages(parts: WebParts, view: JobView, *, original: bool) -> Iterator[list[ItemView]]:
    """As `_pages`, with the corrected records, or with the original ones and without a word about corrections."""
    for page in _pages(parts, view):
        yield [replace(item, corrections=None) if original else as_corrected(item) for item in page]


def _as_table(parts: WebParts, account: str, job: str, wanted: str, pages: Callable[[], Iterator[list[ItemView]]]) -> Response:
    """The records as CSV or as a workbook. All are read twice: once for the columns, and once for the rows."""
    sheet = Sheet()
    for page in pages():
        sheet.learn(page)
    if wanted == "xlsx":
        rows = (sheet.cells(item) for page in pages() for item in page)
        return _held(parts, account, _streamed(workbook(sheet.titles(), rows), XLSX, f"{job}.xlsx"))
    return _held(parts, account, _streamed(_table(sheet, pages()), CSV, f"{job}.csv"))


def _merged(job: str, wanted: str, result: str, *, is_json: bool) -> Response:
    """The answer of a job without a result for each image as a table. Raises ApiError for `jsonl`."""
    if wanted == "csv":
        return _streamed(iter((BOM + merged_table(result, is_json=is_json).encode(),)), CSV, f"{job}.csv")
    if wanted == "xlsx":
        titles, *rows = merged_rows(result, is_json=is_json)
        return _streamed(workbook(titles, rows), XLSX, f"{job}.xlsx")
    reason = (
        "The answers of this job are merged, so there are no lines: ask for format=json, csv or xlsx, or send "
        '"granularity": "perImage" for a record for each image.'
    )
    raise ApiError(409, "no_records", reason)


def _pages(parts: WebParts, view: JobView) -> Iterator[list[ItemView]]:
    """All images in order. Each page has its own transaction, so that a slow client holds no connection. Raises Changed."""
    after = -1
    while after < view.total - 1:
        with parts.database.read() as connection:
            page = items_page(connection, view, limit=PAGE, after=after)
            if not page or finished_at_of(connection, view.id) != view.finished_at:
                raise Changed(view.id)
        yield page
        after = page[-1].index


def _lines(pages: Iterator[list[ItemView]]) -> Iterator[bytes]:
    for page in pages:
        yield b"".join(encode_json(item_json(item)) + b"\n" for item in page)


def _table(sheet: Sheet, pages: Iterator[list[ItemView]]) -> Iterator[bytes]:
    yield BOM + sheet.header().encode()
    for page in pages:
        yield "".join(map(sheet.row, page)).encode()


def _streamed(pieces: Iterator[bytes], content_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return Response(pieces, content_type=content_type, headers=headers)


def _held(parts: WebParts, account: str, answer: Response) -> Response:
    """The answer, which has a waiting place until its client has read it, because it is made in a thread as the client reads."""
    place = ExitStack()
    place.enter_context(held_place(parts, account, "Too many results are being read at once; try again."))
    answer.call_on_close(place.close)
    return answer
