"""A span for each request to the API, while tracing is on. It goes on with the trace that the request names as `traceparent`."""

from __future__ import annotations

from flask import Flask, Response, g, request

from pipeline.tracing import spans

PREFIX = "/api/"  #: probes, /metrics and the files of pages have no spans
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SERVER_FAULT = 500


def register(app: Flask) -> None:
    """Register it after the ids of requests and before all else, so that the span covers the rest."""

    @app.before_request
    def begin() -> None:
        if spans.active is None or not request.path.startswith(PREFIX):
            return
        # The rule of the address and not the address, which may hold anything.
        route = request.url_rule.rule if request.url_rule else ""
        method = request.method if request.method in METHODS else "_OTHER"
        facts: dict[str, spans.Fact] = {"method": method, "request": g.request_id}
        if route:
            facts["route"] = route
        parent = request.headers.get("traceparent")
        g.span = spans.active.span(f"{method} {route}".strip(), "server", facts, parent=parent)
        g.traceparent = spans.traceparent()

    @app.after_request
    def end(response: Response) -> Response:
        # Flask calls the functions that were registered first last. A streamed answer is made after this.
        if span := g.pop("span", None):
            span.set(status=response.status_code)
            if code := response.headers.get("X-Error-Code"):
                span.set(error=code)
                if response.status_code >= SERVER_FAULT:
                    span.fail(code)
            span.__exit__(None, None, None)
        return response

    @app.teardown_request
    def end_without_an_answer(error: BaseException | None) -> None:
        if span := g.pop("span", None):
            span.__exit__(None, error, None)


def note_job(job: str) -> None:
    """Writes to the request's span which job it is about."""
    if span := g.get("span"):
        span.set(job=job)
