"""/metrics: the counts of all processes and gauges from the database, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from flask import Blueprint, Flask, Response, g, request

from api.errors import UNAUTHORIZED
from api.health import Probe, faults_of, has_token, may_see_details
from api.openapi.building import text
from api.openapi.document import ResponseSpec, describe
from api.wiring import WebParts
from pipeline.errors import PartError
from pipeline.metrics import BUCKETS, COUNTED, PREFIX, REQUEST_SECONDS, REQUESTS, Counts, Metric, counts
from pipeline.types import Tier
from storage.gauges import Gauges, gauges
from storage.redis.counts import counts_of_others, process_name

log = structlog.get_logger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric whose values are looked up when /metrics is read."""

    name: str
    what: str
    labels: Sequence[str] = ()


UP = Gauge("process_up", "Processes that have published their counts lately.", ("role", "process"))
PART_UP = Gauge("part_up", "Whether what this page is made of could be read.", ("part",))
QUEUE_STEPS = Gauge("queue_steps", "Open steps: due, waiting for their time, or leased.", ("kind", "state"))
QUEUE_AGE = Gauge("queue_age_seconds", "For how long the step that is due longest has been due.", ("kind", "tier"))
OPEN_JOBS = Gauge("open_jobs", "Jobs that have not ended.", ("status",))
DEADLINE = Gauge("deadline_seconds", "Until the next deadline of an open job; negative: it has passed.", ("tier",))
SCRATCH_LIMIT = Gauge("scratch_limit_bytes", "MAX_SCRATCH_BYTES. At this many bytes in scratch, requests are refused.")
STORAGE_FULL = Gauge("storage_full", "Whether scratch or the database was full within the last 15 minutes.")
READY = Gauge("ready", "Whether /readyz finds that it works: database, redis, scratch or model.", ("check",))
STOPPED = Gauge(
    "model_stopped", "Models whose calls are stopped, and why. An empty model: all models.", ("model", "tier", "cause")
)
SCRATCH_BYTES = Gauge("scratch_bytes", "Put into scratch for open jobs.")
KEPT_BYTES = Gauge("kept_bytes", "Of uploaded images that are kept in scratch for retries of jobs that have ended.")
CREDITS = Gauge("credits", "Of all accounts together.", ("state",))
GAUGES = (
    UP,
    PART_UP,
    READY,
    STOPPED,
    QUEUE_STEPS,
    QUEUE_AGE,
    OPEN_JOBS,
    DEADLINE,
    SCRATCH_BYTES,
    SCRATCH_LIMIT,
    STORAGE_FULL,
    KEPT_BYTES,
    CREDITS,
)

Values = list[tuple[Sequence[str], float]]


def count_requests(app: Flask) -> None:
    """Makes the app count each request when its answer is ready."""

    @app.before_request
    def begin() -> None:
        g.began = time.monotonic()

    @app.after_request
    def count(response: Response) -> Response:
        # Labels come only from the routes, so that callers can't make new labels.
        route = request.url_rule.rule if request.url_rule else "none"
        REQUESTS.add(method=request.method if request.url_rule else "any", route=route, status=str(response.status_code))
        REQUEST_SECONDS.observe(time.monotonic() - g.began, route=route)
        return response


def blueprint(parts: WebParts, looked_at: Mapping[str, Probe]) -> Blueprint:
    """`looked_at`: as from `api.health.probes`."""
    routes = Blueprint("metrics", __name__)
    own = process_name("web")

    @routes.get("/metrics")
    @describe(
        "Metrics for Prometheus",
        tag="Health",
        key="token",
        answers=[
            ResponseSpec(
                status=200,
                what="The metrics of all processes, in the text format of Prometheus.",
                schema=text(),
                media=["text/plain"],
            )
        ],
    )
    def metrics() -> Response:
        """Answers with the metrics. If Redis or the database can't be read, its metrics are left out and `part_up` is 0."""
        # A wrong token is refused on this machine too, so that a Prometheus here shows that its token is wrong.
        if not may_see_details(parts) or has_token(parts) is False:
            raise UNAUTHORIZED
        counted = {own: counts()}
        redis, database = True, True
        looked_up: dict[str, Values] = {}
        try:
            counted |= counts_of_others(parts.signals, own)
            stops = parts.stops()
            looked_up[STOPPED.name] = [((stop.model, stop.tier.value, stop.cause.value), 1) for stop in stops]
            looked_up[STORAGE_FULL.name] = [((), parts.signals.storage_is_full())]
        except PartError as error:
            log.warning("counts_not_read", reason=repr(error))
            redis = False
        try:
            with parts.database.read() as connection:
                looked_up |= _values(gauges(connection))
        except PartError:
            log.warning("gauges_not_read", exc_info=True)
            database = False
        looked_up[UP.name] = [(_names(process), 1) for process in counted]
        looked_up[PART_UP.name] = [(["redis"], redis), (["database"], database)]
        looked_up[READY.name] = [((name,), not fault) for name, fault in faults_of(looked_at).items()]
        looked_up[SCRATCH_LIMIT.name] = [((), parts.settings.max_scratch_bytes)]
        return Response("".join(render(counted, looked_up)), content_type=CONTENT_TYPE)

    return routes


def _values(found: Gauges) -> dict[str, Values]:
    return {
        QUEUE_STEPS.name: [
            ((kind, state), getattr(queue, state))
            for kind, queue in found.queues.items()
            for state in ("due", "waiting", "leased")
        ],
        QUEUE_AGE.name: [
            ((kind, tier.value), age)
            for kind, queue in found.queues.items()
            for tier, age in ((Tier.STANDARD, queue.age), (Tier.ECONOMY, queue.slow_age))
        ],
        DEADLINE.name: [((tier,), left) for tier, left in found.deadlines.items()],
        OPEN_JOBS.name: [((status,), number) for status, number in found.open_jobs.items()],
        SCRATCH_BYTES.name: [((), found.scratch_bytes)],
        KEPT_BYTES.name: [((), found.kept_bytes)],
        CREDITS.name: [((state,), amount) for state, amount in found.credits.items()],
    }


def render(counted: Mapping[str, Counts], looked_up: Mapping[str, Values]) -> Iterable[str]:
    """Yields lines of the text format. `counted` is process → counts, `looked_up` is a gauge's name → its values."""
    for metric in COUNTED:
        yield from _head(metric.name, metric.what, metric.kind)
        for process, known in counted.items():
            for place, value in known.get(metric.name, ()):
                names = (*metric.labels, "role", "process")
                labels = list(zip(names, (*place, *_names(process)), strict=True))
                yield from (
                    _histogram(metric, labels, value) if metric.kind == "histogram" else [_line(metric.name, labels, value)]
                )
    for gauge in GAUGES:
        yield from _head(PREFIX + gauge.name, gauge.what, "gauge")
        for given, number in looked_up.get(gauge.name, ()):
            yield _line(PREFIX + gauge.name, list(zip(gauge.labels, given, strict=True)), number)


def _names(process: str) -> tuple[str, str]:
    role, _, name = process.partition("@")
    return role, name


def _histogram(metric: Metric, labels: list[tuple[str, str]], value: Sequence[float]) -> Iterable[str]:
    *buckets, total = value
    below = 0.0
    for end, number in zip((*BUCKETS, None), buckets, strict=True):
        below += number
        yield _line(f"{metric.name}_bucket", [*labels, ("le", "+Inf" if end is None else f"{end:g}")], below)
    yield _line(f"{metric.name}_sum", labels, total)
    yield _line(f"{metric.name}_count", labels, below)


def _head(name: str, what: str, kind: str) -> list[str]:
    return [f"# HELP {name} {what}\n", f"# TYPE {name} {kind}\n"]


def _line(name: str, labels: Sequence[tuple[str, str]], value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(given)}"' for label, given in labels)
    return f"{name}{{{shown}}} {float(value):.17g}\n" if shown else f"{name} {float(value):.17g}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
