"""The span of a step, while tracing is on. Each attempt has one, in the trace of the request that started the job's round."""

from __future__ import annotations

from pipeline.ports import Cause
from pipeline.tracing import spans
from pipeline.tracing.spans import NOTHING, Fact, OpenSpan, code_of
from storage.queue.steps import Lease

#: Outcomes of a step that are faults. The others belong to the usual course of things.
FAULTS = frozenset({"failed", "interrupted", "unavailable", "died"})
#: Why a model could not be asked although nothing is wrong.
CALM = frozenset({Cause.BUSY, Cause.CROWDED, Cause.SHED})


def step_span(lease: Lease, *, in_child: bool = False) -> OpenSpan:
    """The span of an attempt at a step. It links to the attempt before.

    The id of an attempt's span is made of what the lease says. So a later attempt, in any process, knows the id of the one before,
    even if that one's process died.

    `in_child`: the process was given the step by the worker that has the attempt's span.
    """
    if spans.active is None:
        return NOTHING
    if in_child:
        return spans.active.span(f"step.{lease.kind.value}.alone", "internal", _facts(lease), parent=lease.traceparent)
    key, before = _keys(lease)
    return spans.active.span(
        f"step.{lease.kind.value}", "consumer", _facts(lease), parent=lease.traceparent, key=key, before=before
    )


def record_step(lease: Lease, began: int) -> None:
    """Records an attempt that began at `began` (nanoseconds since 1970) and has succeeded."""
    if spans.active is not None:
        key, before = _keys(lease)
        facts = {**_facts(lease), "outcome": "done"}
        spans.active.record(f"step.{lease.kind.value}", began, facts, parent=lease.traceparent, key=key, before=before)


def note_outcome(outcome: str, error: BaseException | None) -> None:
    """Writes the outcome of a step to its span. `error`: what ended the step."""
    if spans.active is None:
        return
    span = spans.active.current()
    span.set(outcome=outcome)
    if outcome in FAULTS and getattr(error, "cause", None) not in CALM:
        span.fail(code_of(error) if error else outcome)


def _keys(lease: Lease) -> tuple[str, str]:
    """The key of this attempt, and of the one before; empty if there was none.

    A claim raises the epoch by one. A lease that expires raises it too, and raises `expiries`. So their difference grows by one
    with each attempt.
    """
    attempt = lease.epoch - lease.expiries
    of_step = f"{lease.job} {lease.step}"
    return f"{of_step} {attempt}", f"{of_step} {attempt - 1}" if lease.epoch > 1 else ""


def _facts(lease: Lease) -> dict[str, Fact]:
    return {
        "request": lease.request or "",
        "job": lease.job,
        "account": lease.account,
        "round": lease.round,
        "step": lease.step,
        "kind": lease.kind.value,
        "part": lease.part,
        "epoch": lease.epoch,
        "tries": lease.tries,
        "expiries": lease.expiries,
    }
