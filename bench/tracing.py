"""What a span costs while tracing is off, and while it is on: `python -m bench.tracing`.

While it is on, the spans go to a collector on loopback.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

from pipeline.tracing import spans, start
from testbed import collecting

CALLS = 1_000
ROUNDS = 100


def nanoseconds(work: Callable[[], object], calls: int = CALLS) -> float:
    """Of the processor for one call; the best of many short rounds, so that what else runs on the machine counts little."""

    def one_round() -> float:
        began = time.thread_time_ns()
        for _ in range(calls):
            work()
        return (time.thread_time_ns() - began) / calls

    return min(one_round() for _ in range(ROUNDS))


def nothing() -> None:
    pass


def check() -> None:
    if spans.active is not None:
        raise AssertionError


def one_span() -> None:
    with spans.span("model.call", "client", images=20, model="m", tier="standard") as span:
        span.set(finish="complete", input_tokens=1, output_tokens=2)


def report(name: str) -> None:
    empty = nanoseconds(nothing)
    print(f"{name}: a span with 6 facts {nanoseconds(one_span) - empty:.0f} ns")


def main() -> None:
    argparse.ArgumentParser(prog="python -m bench.tracing", description=__doc__).parse_args()
    print(f"off: the look at `active` {nanoseconds(check) - nanoseconds(nothing):.0f} ns")
    report("off")
    with collecting() as collector:
        os.environ.update(collector.settings)
        start.start("bench", os.environ)
        report("on, sampled")
        unsampled = f"00-{'1' * 32}-{'2' * 16}-00"
        assert spans.active is not None
        with spans.active.span("root", "server", {}, parent=unsampled):
            report("on, not sampled")
        spans.close(5)


if __name__ == "__main__":
    main()
