"""Spans of the work of this process. Standard library only: OpenTelemetry is imported only if tracing is on (start.py).

While tracing is off, `active` is None, and every function here looks at it and does nothing else.

A span holds no more than the facts of ATTRIBUTES, which are ids, numbers and words of the service's own. It never holds a key, a prompt,
an image, an address or the message of an exception.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, Protocol, Self

Fact = str | int | float | bool
Kind = Literal["internal", "server", "client", "consumer"]

#: Fact → the attribute's name in a trace. Names without our prefix are those of OpenTelemetry's semantic conventions.
ATTRIBUTES: Mapping[str, str] = {
    **{
        name: f"extract_image.{name}"
        for name in (
            *("request", "job", "account", "round", "step", "kind", "part", "epoch", "tries", "expiries", "outcome"),
            *("images", "failed", "chunks", "bytes", "input_method", "waited", "decode_seconds"),
            *("engine", "tier", "finish", "index", "delivery", "steps"),
        )
    },
    "error": "error.type",
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    "model": "gen_ai.request.model",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
}
HERE = "\0here"  #: as the parent: the span that is current in this thread. No header can have this text
_CODE = re.compile(r"[a-z0-9_]{1,64}")


class Span(Protocol):
    """One piece of work. It is current in its thread while its block runs."""

    def set(self, **facts: Fact) -> None:
        """Adds facts. Those that ATTRIBUTES does not name are left out."""

    def fail(self, code: str) -> None:
        """Records that the work failed, with a stable code."""


class OpenSpan(Span, Protocol):
    """A span that ends with its block. An exception that leaves the block is recorded by its code."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object, /) -> None: ...


class Tracer(Protocol):
    """Makes spans and sends them. All methods are thread-safe."""

    def span(
        self, name: str, kind: Kind, facts: Mapping[str, Fact], *, parent: str | None = HERE, key: str = "", before: str = ""
    ) -> OpenSpan:
        """A span that begins now.

        `parent`: HERE, a `traceparent`, or None for a span that begins a trace. `key`: the span's id is made of it, so that another
        process knows the id. `before`: the key of an earlier span of the same trace, to which this one links.
        """

    def record(
        self, name: str, began: int, facts: Mapping[str, Fact], *, parent: str | None = HERE, key: str = "", before: str = ""
    ) -> None:
        """As `span`, for work that began at `began` (nanoseconds since 1970) and ends now."""

    def current(self) -> Span:
        """The span that is current in this thread."""

    def traceparent(self) -> str | None:
        """The current span as the header `traceparent` names it. None if there is none."""

    def log_ids(self) -> Mapping[str, str]:
        """`trace_id` and `span_id` of the current span. Empty if there is none."""

    def flush(self, seconds: float) -> None:
        """Sends what has ended, and waits for that at most so long."""

    def close(self, seconds: float) -> None:
        """As `flush`, and ends. It may be called again, and then waits for the first call."""


class _Nothing:
    """What a span is while tracing is off."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object, /) -> None:
        pass

    def set(self, **facts: Fact) -> None:
        pass

    def fail(self, code: str) -> None:
        pass


NOTHING = _Nothing()
active: Tracer | None = None  #: None: tracing is off


def span(name: str, kind: Kind = "internal", **facts: Fact) -> OpenSpan:
    """A span of what this thread does now, inside the span that is current."""
    return NOTHING if active is None else active.span(name, kind, facts)


def current() -> Span:
    return NOTHING if active is None else active.current()


def traceparent() -> str | None:
    """What another process needs to go on with the trace. None while tracing is off or no span is current."""
    return None if active is None else active.traceparent()


def close(seconds: float) -> None:
    """Sends what has ended, for at most so long, when the process ends."""
    if active is not None:
        active.close(seconds)


def code_of(error: BaseException) -> str:
    """A stable word for an exception: its own code or cause, else the name of its class. Never its message."""
    for name in ("code", "cause"):
        code = getattr(error, name, None)
        if isinstance(code, str) and _CODE.fullmatch(code):
            return str(code)
    return type(error).__name__
