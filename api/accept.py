"""Accepts a request as a job. Both POST endpoints share this code, up to the answer 202."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog
from flask import Response, g, request

from api.announcing import Announcement
from api.body import BodyRoom, Sent, read_json
from api.errors import ApiError, json_response
from api.putting import Putting, StillPutting
from api.tracing import note_job
from api.uploads import is_upload, read_upload
from api.wiring import WebParts
from pipeline.credits import reservation
from pipeline.economy import LEAST_SECONDS
from pipeline.errors import PartError, StorageFull, os_errors
from pipeline.estimate import Estimate, estimate
from pipeline.job_object import job_json, links_json
from pipeline.outbound.addresses import MAX_URL
from pipeline.packed import PackWriter
from pipeline.plan import ChunkPlan, cut
from pipeline.records.schema import SchemaFault
from pipeline.records.validate import compile_schema, unchecked_patterns
from pipeline.request.check import RequestFault, check
from pipeline.request.fields import ExtractRequest
from pipeline.request.unknown import warning_of
from pipeline.scratch_key import ScratchKey
from pipeline.tracing.spans import span
from pipeline.types import JobStatus, Question, Tier
from storage.account.accounts import available_credits, random_id
from storage.account.ledger import InsufficientCredits
from storage.job import accepting
from storage.job.accepting import IdempotencyKey
from storage.job.stored import StoredFull
from storage.job.views import job_view
from storage.queue import ringing
from storage.sql_errors import OutcomeUnknown

log = structlog.get_logger(__name__)

MOST_WAITED_CHUNKS = 4  #: a larger job gets no priority although its caller waits, because it takes long anyway
LONGEST_REQUEST_SOURCE = 200
IN_MEMORY = 1 << 20
NO_CACHE = "This service keeps no answers (CACHE_TTL is 0): cache had no effect."
WHY_UNCHECKED = "They have look-ahead, look-behind or back-references, which cannot be checked in bounded time."
MOST_PLACES, LONGEST_PLACE = 5, 100  #: how many places in a schema a warning names, and how many characters of each
OWN_READING = (
    "The records are what the OCR itself has read, so evidence, which compares records with what the OCR reads, shows little."
)
NO_PRICE = "MODELS has no price for this model, so its calls count as 0 dollars: maxMoney does not limit them."
NO_TIME = f"deadlineSeconds is under {LEAST_SECONDS:.0f}, which leaves no time for the tier economy: all calls are asked at the standard price."
_KEY = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The job that a request led to."""

    job: str
    replayed: bool = False  #: an earlier request with the same idempotency key made the job


def accept(parts: WebParts, account: str, *, waited: bool, made: Callable[[str], object] = lambda _job: None) -> Accepted:
    """Checks the request and makes its job, or finds the job that it made before. If it raises ApiError, nothing is left behind.

    `made`: called with the id of a new job before any worker is notified of it.
    """
    key = _idempotency_key()
    early = parts.early_accounts if parts.database.many_writers else None
    try:
        with (
            Announcement(parts.signals, made, account=account, early=early) as announcement,
            span("accept") as accepting_span,
            read_sent(parts, account, hashed=key is not None) as sent,
        ):
            idempotency = IdempotencyKey(key=key, body_hash=sent.body_hash) if key else None
            if idempotency:
                # This check comes first, because a request that was accepted before needs no credits and no room now.
                with parts.database.read() as connection:
                    accepting.check_not_sent_before(connection, account, idempotency)
            with span("accept.check") as checking:
                wanted = wanted_of(parts, sent)
                warnings = _warnings(parts, wanted, sent)
                checking.set(images=len(wanted.images), input_method=wanted.input_method)
            job, rings = _make_job(
                parts, account, wanted, sent.names, idempotency, waited=waited, warnings=warnings, announcement=announcement
            )
            accepting_span.set(job=job)
            announcement.after_commit(job, rings)
        note_job(job)
        return Accepted(job=job)
    except RequestFault as fault:
        raise ApiError(400, fault.code, fault.message) from None
    except accepting.SentBefore as before:
        if not before.same_body:
            text = "This Idempotency-Key came with another body before. Use a new one for a new request."
            raise ApiError(409, "idempotency_key_reused", text) from None
        note_job(before.job)
        return Accepted(job=before.job, replayed=True)


def accepted_answer(parts: WebParts, account: str, accepted: Accepted, headers: dict[str, str]) -> Response:
    """202 with the job.

    If SQL fails just now, the answer is still 202, with less about the job. The job is accepted, and a client that got an error
    would send it again and pay twice.
    """
    try:
        with parts.database.read() as connection:
            view = job_view(connection, accepted.job, account)
    except PartError:
        log.warning("job_not_seen", job=accepted.job, exc_info=True)
        return unseen_answer(accepted, headers)
    if view is None:
        raise ApiError(404, "not_found", "The job is gone.")
    return json_response(job_json(view), 202, {"Location": links_json(accepted.job)["self"], "Retry-After": "2", **headers})


def unseen_answer(accepted: Accepted, headers: dict[str, str]) -> Response:
    """202 with the job's id and links, made without SQL."""
    links = links_json(accepted.job)
    body = {"id": accepted.job, "status": JobStatus.QUEUED.value, "links": links}
    return json_response(body, 202, {"Location": links["self"], "Retry-After": "5", **headers})


def too_few_credits(needed: int, available: int) -> ApiError:
    text = f"This request may cost {needed} credits, the account has {available}. Grant more, or send fewer images."
    return ApiError(402, "insufficient_credits", text)


def too_many_open_jobs(parts: WebParts) -> ApiError:
    text = f"The account has {parts.settings.max_open_jobs} open jobs; wait for one to end."
    return ApiError(429, "too_many_open_jobs", text, {"Retry-After": "10"})


def account_full(parts: WebParts) -> ApiError:
    text = (
        f"What the account's jobs keep in the database would be over {parts.settings.max_stored_bytes} bytes. Delete jobs that you "
        "no longer need, or wait until their results expire."
    )
    return ApiError(429, "account_full", text, {"Retry-After": "60"})


def read_sent(parts: WebParts, account: str, *, hashed: bool = False) -> AbstractContextManager[Sent]:
    """Reads the request's body, which is JSON or a form. Raises ApiError and RequestFault."""
    read = read_upload if is_upload(request) else read_json
    room = BodyRoom(account=account, arriving=parts.arriving, large_bodies=parts.large_bodies)
    return read(request, parts.settings.max_body, room, hashed=hashed)


def wanted_of(parts: WebParts, sent: Sent) -> ExtractRequest:
    """What the body asks for. Raises RequestFault."""
    allow, models = parts.settings.webhook_allow, list(parts.models)
    wanted = check(
        sent.fields,
        sent.images,
        webhook_allow=allow,
        models=models,
        uploaded=sent.uploaded,
        unknown=sent.unknown,
        max_input_ttl=int(parts.settings.max_input_ttl),
    )
    if wanted.schema is not None:
        try:
            compile_schema(wanted.schema)
        except SchemaFault as fault:
            raise RequestFault("invalid_schema", f"schema can't be used: {fault}") from None
    if wanted.tier is Tier.ECONOMY:
        _check_economy(parts, wanted)
    if cannot := parts.kind.cannot(wanted.question, len(wanted.images)):
        raise RequestFault("engine_cannot", cannot)
    return wanted


def _check_economy(parts: WebParts, wanted: ExtractRequest) -> None:
    """Raises RequestFault if the engine or the model has no tier `economy`."""
    day = datetime.now(UTC).date()
    if parts.models[wanted.model].has_tier(Tier.ECONOMY, day):
        return
    able = [name for name, model in parts.models.items() if model.has_tier(Tier.ECONOMY, day)]
    way_out = f", or choose a model that has it: {', '.join(able)}" if able else ""
    text = f'tier can\'t be "economy" for {wanted.model}: MODELS has no price for it in this tier. Leave tier out{way_out}.'
    raise RequestFault("invalid_tier", text)


def plan_of(parts: WebParts, wanted: ExtractRequest) -> list[ChunkPlan]:
    """The chunks that the request is cut into. A chunk has the images of one call, if their bytes fit into a call."""
    return cut(len(wanted.images), chunk_size(parts, wanted.question))


def chunk_size(parts: WebParts, question: Question) -> int:
    """How many images go in a chunk."""
    usual = parts.settings.images_per_call if question.per_image else parts.settings.merged_per_call
    return question.images_per_call or usual


def estimate_of(parts: WebParts, wanted: ExtractRequest, plan: list[ChunkPlan]) -> Estimate:
    """What the request would cost today."""
    return estimate(wanted, plan=plan, model=parts.models[wanted.question.model], day=datetime.now(UTC).date())


def _make_job(
    parts: WebParts,
    account: str,
    wanted: ExtractRequest,
    names: Sequence[str | None] | None,
    idempotency: IdempotencyKey | None,
    *,
    waited: bool,
    warnings: Sequence[str],
    announcement: Announcement,
) -> tuple[str, list[ringing.Ring]]:
    """Makes a job. Returns its id, and the steps to notify workers of. `names`: of the uploaded files.

    If it raises, nothing is left behind.
    """
    job = random_id("job_", 24)
    _check_credits(parts, account, len(wanted.images), wanted.max_credits)
    plan = plan_of(parts, wanted)
    _check_money(parts, wanted, plan)
    by_url = wanted.input_method == "url"
    size = 0 if by_url else sum(map(len, wanted.images))
    beside = size <= IN_MEMORY and not idempotency and parts.database.many_writers
    putting: Putting | None = None
    with _nothing_left(parts, job):
        if not by_url and beside:
            putting = Putting(partial(_put_images, parts, job, wanted, plan))
        elif not by_url:
            _put_images(parts, job, wanted, plan)
    with _nothing_left(parts, job, putting):
        new = accepting.NewJob(
            id=job,
            account=account,
            waited=waited and wanted.tier is Tier.STANDARD and len(plan) <= MOST_WAITED_CHUNKS,
            input_method=wanted.input_method,
            question=wanted.question,
            sources=[_url(text) for text in wanted.images] if by_url else names or [None] * len(wanted.images),
            plan=plan,
            inputs={} if by_url else {chunk.no: str(ScratchKey.of_input(job, chunk=chunk.no)) for chunk in plan},
            scratch_bytes=size,
            input_bytes=size,
            keep_ms=0 if by_url else wanted.keep_inputs_seconds * 1000,
            evidence=[word.value for word in wanted.review_when] if wanted.evidence else None,
            max_money=None if wanted.max_money is None else max(round(wanted.max_money * 1e9), 1),
            request_source=(request.headers.get("Request-Source") or "")[:LONGEST_REQUEST_SOURCE] or None,
            engine=parts.engine,
            model=wanted.model,
            tier=wanted.tier.value,
            warnings=warnings,
            deadline_ms=wanted.time_limit * 1000,
            ttl_ms=int(parts.settings.result_ttl * 1000),
            webhook_url=wanted.webhook_url,
            request_id=g.request_id,
            traceparent=g.get("traceparent"),
            metadata=wanted.metadata,
            name=wanted.name,
            batch=wanted.batch,
            fail_on_error=wanted.on_error == "fail",
            custom_ids=wanted.custom_ids or names,
            idempotency=idempotency,
        )
        with span("accept.reserve"):
            rings = _commit(parts, new, putting, announcement)
    log.info("job_accepted", job=job, images=len(wanted.images), input_method=wanted.input_method, waited=waited)
    return job, rings


def _warnings(parts: WebParts, wanted: ExtractRequest, sent: Sent) -> tuple[str, ...]:
    useless = wanted.cache and not parts.settings.cache_ttl
    no_price = wanted.max_money is not None and not parts.models[wanted.question.model].has_price
    too_short = wanted.tier is Tier.ECONOMY and wanted.time_limit < LEAST_SECONDS
    itself = wanted.evidence and not parts.kind.fills_schemas
    own = (
        NO_CACHE if useless else "",
        NO_PRICE if no_price else "",
        NO_TIME if too_short else "",
        OWN_READING if itself else "",
        warning_of(sent.unknown),
        _unchecked(wanted),
    )
    return (*parts.warnings, *parts.kind.ignores(wanted.question), *filter(None, own))


def _unchecked(wanted: ExtractRequest) -> str:
    """The warning about patterns of the schema that records are not checked against. Empty if there are none."""
    places = unchecked_patterns(wanted.schema) if wanted.schema is not None else []
    if not places:
        return ""
    named = ", ".join(place[:LONGEST_PLACE] for place in places[:MOST_PLACES]) + (", …" if len(places) > MOST_PLACES else "")
    return f"The model is told these patterns of the schema, but records are not checked against them: {named}. {WHY_UNCHECKED}"


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _KEY.fullmatch(key.strip()):
        text = "Idempotency-Key must be 1 to 255 visible ASCII characters, a UUID for example."
        raise ApiError(400, "invalid_idempotency_key", text)
    return key.strip()


def _url(text: bytes) -> str:
    """The URL as it is stored. Characters that no database takes are replaced, so that the fetch refuses the URL later."""
    # A longer text is refused as a URL, however it goes on. It may be an image's base64, which no database is to hold.
    return text.decode("utf-8", "replace").replace("\x00", "\ufffd").strip()[: MAX_URL + 1]


def _check_credits(parts: WebParts, account: str, images: int, most: int | None) -> None:
    """Refuses early, before anything is stored. The reservation itself checks the balance again."""
    needed = reservation(images)
    if most is not None and most < needed:
        text = f"This request may cost {needed} credits, and maxCredits is {most}. Raise it, or send fewer images."
        raise ApiError(402, "max_credits_too_low", text)
    if g.available >= needed:  # they were read with the key
        return
    with parts.database.read() as connection:
        available = available_credits(connection, account)  # more may have been granted while the body came
    if available < needed:
        raise too_few_credits(needed, available)


def _check_money(parts: WebParts, wanted: ExtractRequest, plan: list[ChunkPlan]) -> None:
    if wanted.max_money is None:
        return
    needed = estimate_of(parts, wanted, plan).dollars
    if needed > wanted.max_money:
        text = (
            f"The model calls of this request are estimated at ${needed:.6f}, and maxMoney is ${wanted.max_money:.6f}. Raise it, send "
            "fewer images, or choose a cheaper model or a lower detail."
        )
        raise ApiError(402, "max_money_too_low", text)


def _put_images(parts: WebParts, job: str, wanted: ExtractRequest, plan: list[ChunkPlan]) -> None:
    """Puts base64 texts or files to scratch as they came, one object per chunk."""
    facts = {"raw": 1} if wanted.input_method == "upload" else {}
    with span("accept.put", chunks=len(plan)):
        for chunk in plan:
            key = str(ScratchKey.of_input(job, chunk=chunk.no))
            with os_errors(), tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as out:
                pack = PackWriter(out)
                for index in range(chunk.first, chunk.first + chunk.count):
                    pack.add(index, wanted.images[index], **facts)
                pack.finish()
                parts.scratch.put(key, out)


@contextmanager
def _nothing_left(parts: WebParts, job: str, putting: Putting | None = None) -> Iterator[None]:
    """Deletes the job's scratch objects if the block raises, unless the job may exist. `putting`: what may still put some."""
    try:
        yield
    except BaseException as error:
        if putting:
            putting.settle()
        if isinstance(error, StorageFull):
            parts.signals.note_full_storage()
        if not (isinstance(error, ApiError) and error.code == "maybe_accepted"):
            with suppress(PartError):  # the supervisor sweeps what is left
                parts.scratch.delete(list(parts.scratch.list(f"{job}/")))
        raise


def _commit(parts: WebParts, new: accepting.NewJob, putting: Putting | None, announcement: Announcement) -> list[ringing.Ring]:
    """Writes the reservation, the job, its images, chunks and steps in one transaction. Returns the steps to notify workers of.

    Raises ApiError. Raises PartError if the database failed and the job does not exist.
    """
    rings: list[ringing.Ring] = []
    try:
        _write_stored(parts, new, rings, putting, announcement)
    except InsufficientCredits as error:
        raise too_few_credits(error.needed, error.available) from None
    except accepting.TooManyOpenJobs:
        raise too_many_open_jobs(parts) from None
    except StoredFull:
        raise account_full(parts) from None
    except accepting.ScratchFull:
        text = "The service has as many images at work as it may; try again when some jobs have ended."
        raise ApiError(429, "scratch_full", text, {"Retry-After": "30"}) from None
    except accepting.KeptFull:
        text = (
            "The images that are kept for retries of your jobs fill your share of the service's space. Delete jobs that you no longer "
            "need, or send a lower keepInputsSeconds, or none."
        )
        raise ApiError(429, "scratch_full", text, {"Retry-After": "30"}) from None
    except OutcomeUnknown as error:
        if not _was_accepted(parts, new, error):
            raise
    return rings


def _write_stored(
    parts: WebParts, new: accepting.NewJob, rings: list[ringing.Ring], putting: Putting | None, announcement: Announcement
) -> None:
    """The transaction of `_commit`, which ends after the put of the images.

    `putting`: the put, if it is under way. The transaction waits for it a little, and is made anew if that was not enough.
    """

    def stored_all(found: Sequence[ringing.Ring]) -> None:
        if putting:
            announcement.when_put(new.id, found, putting)
            putting.ended_soon()

    try:
        _write(parts, new, rings, stored_all)
    except StillPutting:
        assert putting
        announcement.forget()
        putting.end()
        _write(parts, new, rings, stored_all)


def _write(
    parts: WebParts, new: accepting.NewJob, rings: list[ringing.Ring], stored_all: Callable[[Sequence[ringing.Ring]], None]
) -> None:
    """Accepts the job in one transaction. It fills `rings` before its commit, because the answer to the commit may be lost."""
    limits = parts.settings
    with parts.database.write() as connection:
        rings[:] = accepting.accept(
            connection,
            new,
            max_open=limits.max_open_jobs,
            max_scratch=limits.max_scratch_bytes,
            max_stored=limits.max_stored_bytes,
            stored_all=stored_all,
            announces=True,
        )


def _was_accepted(parts: WebParts, new: accepting.NewJob, broke: OutcomeUnknown) -> bool:
    """Whether the job exists after its commit lost its connection. Raises ApiError if the database does not say."""
    try:
        with parts.database.write() as connection:
            return accepting.was_accepted(connection, new.account, new.id)
    except PartError:
        log.warning("job_maybe_accepted", job=new.id, exc_info=broke)
        text = (
            "The connection to the database broke while the job was written, so the job may have been accepted. If the request has "
            "an Idempotency-Key, send it again as it is: it is charged once. If it has none, look at GET /api/v1/jobs first."
        )
        raise ApiError(503, "maybe_accepted", text, {"Retry-After": "5"}) from broke
