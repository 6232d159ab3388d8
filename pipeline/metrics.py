"""The metrics of a process, by the names that /metrics shows. Standard library only.

Each process counts for itself from its start on. docs/adr/0011-each-process-counts-for-itself.md says how the counts of several
processes are added up.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Literal

PREFIX = "extract_image_"

#: Upper bounds of the histogram buckets, in seconds. They range from a cached answer to a long job that a caller waits for.
BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)

_lock = threading.Lock()


class Metric:
    """A metric with one count for each combination of label values. Thread-safe."""

    def __init__(
        self, name: str, what: str, labels: Sequence[str] = (), kind: Literal["counter", "gauge", "histogram"] = "counter"
    ) -> None:
        self.name = PREFIX + name
        self.what = what
        self.labels = tuple(labels)
        self.kind = kind
        # A counter that has no labels shows its 0, because Prometheus sees no increase in a number that is there for the first time.
        self._values: dict[tuple[str, ...], Any] = {(): 0} if kind == "counter" and not labels else {}

    def add(self, amount: float = 1, **labels: str) -> None:
        """Adds to the count. A gauge may go down too."""
        with _lock:
            place = self._place(labels)
            self._values[place] = self._values.get(place, 0) + amount

    def set(self, value: float, **labels: str) -> None:
        """Sets a gauge."""
        with _lock:
            self._values[self._place(labels)] = value

    def observe(self, value: float, **labels: str) -> None:
        """Adds a value to the histogram. It holds the count of each bucket (not cumulative), then the sum of the values."""
        with _lock:
            place = self._place(labels)
            counts = self._values.setdefault(place, [0] * (len(BUCKETS) + 1) + [0.0])
            counts[next((at for at, end in enumerate(BUCKETS) if value <= end), len(BUCKETS))] += 1
            counts[-1] += value

    def values(self) -> list[tuple[list[str], Any]]:
        """The current count of each combination of label values."""
        with _lock:
            return [(list(place), list(value) if isinstance(value, list) else value) for place, value in self._values.items()]

    def _place(self, labels: dict[str, str]) -> tuple[str, ...]:
        if labels.keys() != set(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {tuple(labels)}")
        return tuple(labels[name] for name in self.labels)


REQUESTS = Metric("http_requests_total", "Requests answered.", ("method", "route", "status"))
REQUEST_SECONDS = Metric(
    "http_request_seconds",
    "Seconds from the head of a request to its answer, including any wait for a job.",
    ("route",),
    "histogram",
)
WAITING = Metric("waiting_connections", "Connections held until a job ends.", kind="gauge")
WAIT_SECONDS = Metric("wait_seconds", "Seconds that connections were held until a job ended.", kind="histogram")
STEPS = Metric("steps_total", "Steps that workers have run, by outcome.", ("kind", "outcome"))
STEP_SECONDS = Metric("step_seconds", "Seconds from the claim of a step to its commit.", ("kind",), "histogram")
LEASES_EXPIRED = Metric("leases_expired_total", "Steps that were taken back from a worker that stopped renewing.")
JOBS_OVERDUE = Metric("jobs_overdue_total", "Jobs that reached their deadline.")
MODEL_CALLS = Metric("model_calls_total", "Calls of the model, by outcome.", ("engine", "outcome"))
MODEL_SECONDS = Metric("model_call_seconds", "Seconds of each call of the model.", ("engine",), "histogram")
MODEL_TOKENS = Metric("model_tokens_total", "Tokens sent to the model and received.", ("engine", "direction"))
MONEY_LIMITED = Metric(
    "money_limited_total", "Calls of the model that were not made, because their job's maxMoney did not suffice."
)
ECONOMY_CALLS = Metric(
    "economy_calls_total",
    "Calls of the model in the tier economy: served in economy or standard, shed, or late (without an answer in time).",
    ("outcome",),
)
ECONOMY_HURRIED = Metric(
    "economy_hurried_total", "Steps of economy jobs that are asked at the standard price, because their deadline is near."
)
DECODER_RESTARTS = Metric(
    "decoder_restarts_total", "Decoder processes that ended, by reason: died, late or recycled.", ("reason",)
)
WEBHOOKS = Metric("webhook_attempts_total", "Calls of webhooks: delivered, failed (to be tried again) or dead.", ("outcome",))

BOOKS_WRONG = Metric(
    "books_wrong",
    "Findings of the supervisor's last check of the credits, by check: ledger, rounds or holds.",
    ("check",),
    "gauge",
)

COUNTED = (
    REQUESTS,
    REQUEST_SECONDS,
    WAITING,
    WAIT_SECONDS,
    STEPS,
    STEP_SECONDS,
    LEASES_EXPIRED,
    JOBS_OVERDUE,
    MODEL_CALLS,
    MODEL_SECONDS,
    MODEL_TOKENS,
    MONEY_LIMITED,
    ECONOMY_CALLS,
    ECONOMY_HURRIED,
    DECODER_RESTARTS,
    WEBHOOKS,
    BOOKS_WRONG,
)

Counts = dict[str, list[tuple[list[str], Any]]]


def counts() -> Counts:
    """All counts of this process, by the names of the metrics."""
    return {metric.name: metric.values() for metric in COUNTED}
