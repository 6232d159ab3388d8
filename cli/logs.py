"""Structured logs on standard error: one JSON object per line for programs, readable lines on a terminal."""

from __future__ import annotations

import logging
import sys

import structlog

from pipeline.tracing import spans

#: Leaves out the values of local variables, which structlog logs by default, because they hold keys, prompts and images.
_TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def _with_context(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Adds what is bound to the context, in the order of the names. structlog's own order differs from process to process.

    While tracing is on, it adds the ids of the current span too.
    """
    traced = spans.active.log_ids() if spans.active is not None else {}
    return {**dict(sorted(structlog.contextvars.get_contextvars().items())), **traced, **event}


def configure_logs(*, json: bool, level: int = logging.INFO) -> None:
    """Formats the records of structlog and of the standard library's logging in the same way."""
    shared: list[structlog.typing.Processor] = [
        _with_context,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[structlog.typing.Processor] = (
        [structlog.processors.ExceptionRenderer(_TRACEBACKS), structlog.processors.JSONRenderer()]
        if json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # The INFO lines of these libraries show the URL of each request, which may be a signed URL.
    for noisy in ("httpx2", "httpcore2", "google_genai", "botocore", "urllib3", "celery", "kombu", "alembic", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
