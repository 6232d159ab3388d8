"""Implements `spans.Tracer` by OpenTelemetry's SDK. This is the only module that imports it."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Self

import structlog
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pipeline.tracing import spans
from pipeline.tracing.spans import ATTRIBUTES, HERE, Fact, Kind, code_of

log = structlog.get_logger(__name__)

LONGEST = 200  #: characters of a text in an attribute
KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
}
_PROPAGATOR = TraceContextTextMapPropagator()
TODO = "Spans are dropped meanwhile, and nothing else is affected. See whether the collector at OTEL_EXPORTER_OTLP_ENDPOINT takes OTLP over HTTP."


def open_tracer(role: str, version: str) -> OtelTracer:
    """Starts the thread that sends spans. Call it after the process has forked."""
    facts = {
        "service.name": f"extract-image-{role}",
        "service.version": version,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",  # as /metrics names the process
        "extract_image.role": role,
    }
    given = OTELResourceDetector().detect().attributes  # from OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    resource = Resource.create({name: value for name, value in facts.items() if name not in given})
    ids = _Ids()
    provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
    exporter = QuietExporter(OTLPSpanExporter())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    # The SDK logs a line for every batch that fails. QuietExporter says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    os.register_at_fork(after_in_child=_off)
    return OtelTracer(provider, ids)


def _off() -> None:
    """A forked child makes no spans. The thread that sends them is its parent's."""
    spans.active = None


class QuietExporter(SpanExporter):
    """Says once that spans can't be sent, and once that they can be again. A forked child sends nothing."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._process = os.getpid()
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if os.getpid() != self._process:
            return SpanExportResult.SUCCESS
        try:
            result = self._inner.export(spans)
        except Exception:  # noqa: BLE001 - traces must not disturb the work, whatever the exporter raises
            result = SpanExportResult.FAILURE
        fails = result is not SpanExportResult.SUCCESS
        if fails and not self._fails:
            log.warning("traces_not_exported", todo=TODO)
        elif self._fails and not fails:
            log.info("traces_exported_again")
        self._fails = fails
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class _Ids(RandomIdGenerator):
    """Gives the next span of a thread the id that was asked for."""

    def __init__(self) -> None:
        self._asked = threading.local()

    def ask(self, span_id: int) -> None:
        self._asked.id = span_id

    def generate_span_id(self) -> int:
        asked: int = getattr(self._asked, "id", 0)
        self._asked.id = 0
        return asked or super().generate_span_id()


def span_id_of(key: str) -> int:
    """The id of the span with this key. No span has the id 0."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) or 1


def attributes(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """The facts that ATTRIBUTES names, under their names in a trace."""
    return {
        ATTRIBUTES[name]: value[:LONGEST] if isinstance(value, str) else value
        for name, value in facts.items()
        if name in ATTRIBUTES and value is not None
    }


class _Span:
    """Implements spans.OpenSpan."""

    __slots__ = ("_failed", "_span", "_token")

    def __init__(self, span: trace.Span, *, enter: bool) -> None:
        self._span = span
        self._failed = False
        self._token = context.attach(trace.set_span_in_context(span)) if enter else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object, /) -> None:
        if error is not None and not self._failed:
            self.fail(code_of(error))
        if self._token is not None:
            context.detach(self._token)
        self._span.end()

    def set(self, **facts: Fact) -> None:
        self._span.set_attributes(attributes(facts))

    def fail(self, code: str) -> None:
        self._failed = True
        self._span.set_attribute(ATTRIBUTES["error"], code[:LONGEST])
        self._span.set_status(Status(StatusCode.ERROR, code[:LONGEST]))


class OtelTracer:
    """Implements spans.Tracer."""

    def __init__(self, provider: TracerProvider, ids: _Ids) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("extract-image")
        self._ids = ids
        self._lock = threading.Lock()
        self._closing: threading.Thread | None = None

    def span(
        self, name: str, kind: Kind, facts: Mapping[str, Fact], *, parent: str | None = HERE, key: str = "", before: str = ""
    ) -> _Span:
        return _Span(self._started(name, kind, facts, parent=parent, key=key, before=before), enter=True)

    def record(
        self, name: str, began: int, facts: Mapping[str, Fact], *, parent: str | None = HERE, key: str = "", before: str = ""
    ) -> None:
        self._started(name, "internal", facts, parent=parent, key=key, before=before, began=began).end()

    def _started(
        self,
        name: str,
        kind: Kind,
        facts: Mapping[str, Fact],
        *,
        parent: str | None,
        key: str,
        before: str,
        began: int | None = None,
    ) -> trace.Span:
        above = None if parent == HERE else _PROPAGATOR.extract({"traceparent": parent} if parent else {}, Context())
        if key:
            self._ids.ask(span_id_of(key))
        of_trace = trace.get_current_span(above).get_span_context()
        links = [_link(of_trace, before)] if before and of_trace.is_valid else []
        return self._tracer.start_span(
            name,
            context=above,
            kind=KINDS[kind],
            attributes=attributes(facts),
            links=links,
            start_time=began,
            record_exception=False,
            set_status_on_exception=False,
        )

    def current(self) -> _Span:
        return _Span(trace.get_current_span(), enter=False)

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get("traceparent")

    def log_ids(self) -> Mapping[str, str]:
        found = trace.get_current_span().get_span_context()
        return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"} if found.is_valid else {}

    def flush(self, seconds: float) -> None:
        flushing = threading.Thread(target=self._provider.force_flush, name="traces", daemon=True)
        flushing.start()
        flushing.join(seconds)

    def close(self, seconds: float) -> None:
        # The SDK would wait for up to 30 s for a collector that does not answer, so it is waited for here.
        with self._lock:
            if self._closing is None:
                self._closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
                self._closing.start()
        self._closing.join(seconds)


def _link(of_trace: SpanContext, before: str) -> Link:
    return Link(SpanContext(of_trace.trace_id, span_id_of(before), is_remote=True, trace_flags=TraceFlags(of_trace.trace_flags)))
