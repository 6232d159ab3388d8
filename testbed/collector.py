"""A collector of traces on loopback, which takes OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, kw_only=True)
class SeenSpan:
    """A span that arrived. Ids are hex."""

    name: str
    trace: str
    id: str
    parent: str  #: empty: it begins its trace
    role: str  #: of the process that sent it
    instance: str  #: of the process that sent it
    facts: dict[str, Any]
    links: list[tuple[str, str]]  #: trace and span
    failed: str | None  #: the code of its failure
    kind: int = field(compare=False)


class Collector(ThreadingHTTPServer):
    """Keeps every body that it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Export)
        self.bodies: list[bytes] = []
        self.headers: list[str] = []
        self.status = 200
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def settings(self) -> dict[str, str]:
        """The variables that lead spans here, soon after they ended."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def spans(self) -> list[SeenSpan]:
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                of_process = _facts(resource.resource.attributes)
                found += [
                    SeenSpan(
                        name=span.name,
                        trace=span.trace_id.hex(),
                        id=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        role=of_process["extract_image.role"],
                        instance=of_process.get("service.instance.id", ""),
                        facts=_facts(span.attributes),
                        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                        failed=span.status.message if span.status.code else None,
                        kind=span.kind,
                    )
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
        return found

    def named(self, name: str) -> list[SeenSpan]:
        return [span for span in self.spans() if span.name == name]

    def of_job(self, job: str) -> list[SeenSpan]:
        """All spans of the traces that name the job."""
        spans = self.spans()
        traces = {span.trace for span in spans if span.facts.get("extract_image.job") == job}
        return [span for span in spans if span.trace in traces]


class _Export(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            self.server.bodies.append(body)
            self.server.headers.append(str(self.headers))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing, to keep pytest's output readable."""


def _facts(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
