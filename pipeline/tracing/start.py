"""Turns tracing on if the standard variables of OpenTelemetry ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import structlog

from pipeline.tracing import spans

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 2.0  #: for the last spans when a process ends; with the other waits this stays within the promised 25 s
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
ONLY_PROTOCOL = "http/protobuf"


def start(role: str, environment: Mapping[str, str]) -> None:
    """Turns tracing on for this process, if the environment asks for it. Call it after the process has forked.

    What can't be used is logged as `tracing_off`, and the process works without traces.
    """
    if not is_wanted(environment):
        return
    if fault := fault_of(environment):
        log.warning("tracing_off", todo=fault)
        return
    try:
        from pipeline.tracing.otel import open_tracer
    except ImportError:
        log.warning("tracing_off", todo="Install the extra for it: pip install 'extract-image[otel]'.")
        return
    try:
        spans.active = open_tracer(role, version("extract-image"))
    except Exception as error:  # noqa: BLE001 - the SDK raises of every kind for values that it can't use
        todo = "OpenTelemetry can't use one of its variables (OTEL_…). Correct it, or unset it."
        log.warning("tracing_off", reason=type(error).__name__, todo=todo)


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the variables ask for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter != "none" if exporter else any(environment.get(name) for name in ENDPOINTS)


def fault_of(environment: Mapping[str, str]) -> str:
    """What has to be changed before traces can be sent. Empty: nothing."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in {"", "otlp"}:
        return "OTEL_TRACES_EXPORTER must be otlp, or none. A collector passes spans on in other forms."
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), ONLY_PROTOCOL)
    if protocol.strip().lower() != ONLY_PROTOCOL:
        return f"Set OTEL_EXPORTER_OTLP_PROTOCOL to {ONLY_PROTOCOL}, and the endpoint to the collector's port for HTTP, which is usually 4318."
    return ""
