"""The compatible endpoint: POST and GET /api/v1/extract-image."""

from __future__ import annotations

import hashlib
import mmap
import re
import tempfile
from contextlib import suppress
from functools import partial

import structlog
from flask import Blueprint, Response, request
from sqlalchemy.exc import DBAPIError

from api.auth import authenticate, optional_account
from api.body import parse_body, read_body
from api.errors import AWAY, ApiError, json_response
from api.patience import hung_up
from api.waiting import preference, wait_for_end, waiting_place
from api.wiring import Parts
from pipeline.credits import BASE, PER_IMAGE, reservation
from pipeline.finalize import is_input_fault
from pipeline.packed import PackWriter
from pipeline.plan import ChunkPlan, cut
from pipeline.record_schema import SchemaFault
from pipeline.request import Request, RequestFault, check
from pipeline.sniff import CONVERTED_FORMATS, NATIVE_FORMATS
from pipeline.types import MAX_IMAGE_BYTES, MAX_IMAGES, MAX_OUTPUT_TOKENS, MAX_TOTAL_BYTES, JobStatus, Question
from pipeline.validate import compile_schema
from storage import accepting, steps
from storage.accounts import available_credits, random_id
from storage.ledger import InsufficientCredits
from storage.render import job_json, links_json, result_json
from storage.views import job_view, result_view

log = structlog.get_logger(__name__)

MOST_WAITED_CHUNKS = 4  #: a larger job does not go before others because its caller waits: it takes its time anyway
LONGEST_REQUEST_SOURCE = 200
IN_MEMORY = 1 << 20
NO_CACHE = "This service keeps no answers (CACHE_TTL is 0): cache had no effect."
_KEY = re.compile(r"[!-~]{1,255}")

FORMATS = {
    "supportedFormats": list(NATIVE_FORMATS),
    "convertedFormats": list(CONVERTED_FORMATS),
    "limits": {
        "maxImages": MAX_IMAGES,
        "maxImageBytes": MAX_IMAGE_BYTES,
        "maxTotalBytes": MAX_TOTAL_BYTES,
        "maxOutputTokensPerCall": MAX_OUTPUT_TOKENS,
    },
    "credits": {"base": BASE, "perImage": PER_IMAGE},
}


def blueprint(parts: Parts) -> Blueprint:
    routes = Blueprint("extract_image", __name__)

    @routes.get("/api/v1/extract-image", strict_slashes=False)
    def formats() -> Response:
        """What can be sent, and what it costs. A key and any query are tolerated."""
        optional_account(parts)
        return json_response(FORMATS)

    @routes.post("/api/v1/extract-image", strict_slashes=False)
    def extract() -> Response:
        """Answers with the result if it is there in time, else with the job."""
        account = authenticate(parts)
        prefer = preference(request.headers.get("Prefer"), parts.settings.sync_wait)
        applied = {"Preference-Applied": prefer.applied} if prefer.applied else {}
        with waiting_place(parts, needed=prefer.seconds > 0):
            try:
                job = _accept(parts, account, waited=prefer.seconds > 0)
            except accepting.SentBefore as before:
                if not before.same_body:
                    text = "This Idempotency-Key came with another body before. Use a new one for a new request."
                    raise ApiError(409, "idempotency_key_reused", text) from None
                job = before.job
                applied["Idempotent-Replayed"] = "true"
            try:
                if prefer.seconds > 0 and wait_for_end(parts, job, prefer.seconds, partial(hung_up, request.environ)):
                    return _answer(parts, account, job, applied)
                return _accepted(parts, account, job, applied)
            except AWAY:
                # It is accepted, so whoever tried again would pay twice: an answer that can be followed, without a look at SQL.
                log.warning("job_not_seen", job=job, exc_info=True)
                return _accepted_unseen(job, applied)

    return routes


def _accept(parts: Parts, account: str, *, waited: bool) -> str:
    """Checks the request and makes its job; the job's id. Nothing is left behind where it raises.

    Raises SentBefore for a request whose idempotency key has made a job already.
    """
    job = random_id("job_", 24)
    key = _idempotency_key()
    with read_body(request, parts.settings.max_body, parts.large_bodies) as body:
        idempotency = accepting.IdempotencyKey(key=key, body_hash=hashlib.sha256(body).hexdigest()) if key else None
        if idempotency:
            # Before anything else is looked at: what was accepted once needs no credits and no room now.
            with parts.database.read() as connection:
                accepting.check_not_sent_before(connection, account, idempotency)
        wanted = wanted_of(parts, body)
        _check_balance(parts, account, len(wanted.images))
        plan = plan_of(parts, wanted)
        try:
            inputs = _put_texts(parts, job, wanted, plan) if wanted.input_method == "base64" else {}
            by_url = wanted.input_method == "url"
            new = accepting.NewJob(
                id=job,
                account=account,
                waited=waited and len(plan) <= MOST_WAITED_CHUNKS,
                input_method=wanted.input_method,
                question=wanted.question,
                sources=[_url(text) if by_url else None for text in wanted.images],
                plan=plan,
                inputs=inputs,
                scratch_bytes=sum(map(len, wanted.images)) if inputs else 0,
                request_source=(request.headers.get("Request-Source") or "")[:LONGEST_REQUEST_SOURCE] or None,
                engine=parts.engine,
                model=wanted.question.model,
                warnings=_warnings(parts, wanted.question),
                deadline_ms=wanted.deadline_seconds * 1000,
                ttl_ms=int(parts.settings.result_ttl * 1000),
                webhook_url=wanted.webhook_url,
                idempotency=idempotency,
            )
            rings = _commit(parts, new)
        except DBAPIError:
            # It may have come after the commit, and the job may live: what it does not need the supervisor sweeps.
            raise
        except BaseException:
            with suppress(OSError):  # the supervisor sweeps what is left
                parts.scratch.delete(list(parts.scratch.list(f"{job}/")))
            raise
    log.info("job_accepted", job=job, images=len(wanted.images), input_method=wanted.input_method, waited=waited)
    parts.signals.ring(rings)
    return job


def wanted_of(parts: Parts, body: bytes | mmap.mmap) -> Request:
    """What the body asks for. Raises ApiError."""
    try:
        fields, images = parse_body(body)
        wanted = check(fields, images, webhook_allow=parts.settings.webhook_allow, models=list(parts.models))
        if wanted.question.schema is not None:
            compile_schema(wanted.question.schema)
    except RequestFault as fault:
        raise ApiError(400, fault.code, fault.message) from None
    except SchemaFault as fault:
        raise ApiError(400, "invalid_schema", f"schema can't be used: {fault}") from None
    return wanted


def _warnings(parts: Parts, question: Question) -> tuple[str, ...]:
    useless = question.cache and not parts.settings.cache_ttl
    return (*parts.warnings, NO_CACHE) if useless else parts.warnings


def plan_of(parts: Parts, wanted: Request) -> list[ChunkPlan]:
    """The chunks that the request is cut into: each has the images of one call, if their bytes fit."""
    question, settings = wanted.question, parts.settings
    usual = settings.images_per_call if question.per_image else settings.merged_per_call
    return cut(len(wanted.images), question.images_per_call or usual)


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _KEY.fullmatch(key.strip()):
        text = "Idempotency-Key must be 1 to 255 visible ASCII characters, a UUID for example."
        raise ApiError(400, "invalid_idempotency_key", text)
    return key.strip()


def _url(text: bytes) -> str:
    """The URL as it is stored: what no database takes makes it one that is refused when it is fetched."""
    return text.decode("utf-8", "replace").replace("\x00", "\ufffd").strip()


def _check_balance(parts: Parts, account: str, images: int) -> None:
    """Before anything is stored; the reservation itself decides."""
    with parts.database.read() as connection:
        available = available_credits(connection, account)
    if available < reservation(images):
        raise _too_few(reservation(images), available)


def _too_few(needed: int, available: int) -> ApiError:
    text = f"This request may cost {needed} credits, the account has {available}. Grant more, or send fewer images."
    return ApiError(402, "insufficient_credits", text)


def _put_texts(parts: Parts, job: str, wanted: Request, plan: list[ChunkPlan]) -> dict[int, str]:
    """The base64 texts to scratch as they came, one object a chunk; its key by chunk number."""
    keys: dict[int, str] = {}
    for chunk in plan:
        key = f"{job}/in-c{chunk.no}"
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as out:
            pack = PackWriter(out)
            for index in range(chunk.first, chunk.first + chunk.count):
                pack.add(index, wanted.images[index])
            pack.finish()
            parts.scratch.put(key, out)
        keys[chunk.no] = key
    return keys


def _commit(parts: Parts, new: accepting.NewJob) -> list[steps.Ring]:
    """One transaction: the reservation, the job, its images, chunks and steps. Gives what is to be rung."""
    try:
        with parts.database.write() as connection:
            limits = parts.settings
            accepting.accept(connection, new, max_open=limits.max_open_jobs, max_scratch=limits.max_scratch_bytes)
            return steps.to_ring(connection, beside=new.id)
    except InsufficientCredits as error:
        raise _too_few(error.needed, error.available) from None
    except accepting.TooManyOpenJobs:
        text = f"The account has {parts.settings.max_open_jobs} open jobs; wait for one to end."
        raise ApiError(429, "too_many_open_jobs", text, {"Retry-After": "10"}) from None
    except accepting.ScratchFull:
        text = "The service has as many images at work as it may; try again when some jobs have ended."
        raise ApiError(429, "scratch_full", text, {"Retry-After": "30"}) from None
    except DBAPIError:
        # The connection may have broken after the commit: then the job is there, and the supervisor rings it.
        with parts.database.read() as connection:
            if not accepting.exists(connection, new.id):
                raise
        return []


def _answer(parts: Parts, account: str, job: str, headers: dict[str, str]) -> Response:
    """A finished job as the compatible body, or as the error it came to."""
    with parts.database.read() as connection:
        view = job_view(connection, job, account)
        result = result_view(connection, job)
    if view is None:
        raise ApiError(404, "not_found", "The job is gone.")
    if view.expired:
        raise ApiError(410, "results_expired", "The results of this job have expired.", headers)
    if view.status is JobStatus.CANCELLED and not view.succeeded:
        raise ApiError(409, "cancelled", "The job was cancelled before any image was processed.", headers)
    if view.status is JobStatus.FAILED:
        message = view.error_message or "no image could be processed"
        if is_input_fault(view.error_code):
            raise ApiError(400, view.error_code or "failed", message, headers)
        raise ApiError(500, view.error_code or "failed", f"Failed to extract image data: {message}", headers)
    return json_response(result_json(view, result), 200, headers)


def _accepted(parts: Parts, account: str, job: str, headers: dict[str, str]) -> Response:
    with parts.database.read() as connection:
        view = job_view(connection, job, account)
    if view is None:
        raise ApiError(404, "not_found", "The job is gone.")
    return json_response(job_json(view), 202, {"Location": links_json(job)["self"], "Retry-After": "2", **headers})


def _accepted_unseen(job: str, headers: dict[str, str]) -> Response:
    links = links_json(job)
    body = {"id": job, "status": JobStatus.QUEUED.value, "links": links}
    return json_response(body, 202, {"Location": links["self"], "Retry-After": "5", **headers})
