"""Runs the service with one admission control turned off: `python -m bench.without CONTROL serve --ready-key`.

bench/admission.py starts the service with it, to show the effect of each control of docs/admission-control.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

ENDLESS = 1 << 50


def window() -> None:
    from storage.queue import ringing

    ringing.WINDOW = 1_000_000


def reserved_threads() -> None:
    """Lets the reserved threads serve every step."""
    from storage.redis import signals
    from workers import priority_pool

    signals.WAITED_QUEUE = priority_pool.WAITED_QUEUE = signals.QUEUE


def call_queue() -> None:
    """Lets a call that finds no free place retry after a while, in no order."""
    from pipeline.engines.call_queue import CallQueue

    CallQueue._tell_next = lambda _queue, _model: None


def idle_threads_wait() -> None:
    """Lets a thread that finds no free place for 2 s hand its step back, even if other threads are idle."""
    from pipeline.engines.governed import GovernedEngine

    made = GovernedEngine.__init__

    def impatient(self: GovernedEngine, *arguments: object, **options: object) -> None:
        made(self, *arguments, **{**options, "spare": lambda: False})

    GovernedEngine.__init__ = impatient


def memory_budget() -> None:
    from workers import wiring

    wiring.CALL_BYTES = ENDLESS


def fetched_bytes() -> None:
    """Lets any number of fetched or base64-decoded bytes wait."""
    from pipeline import stage
    from pipeline.fetch import batch

    stage._MOST_WAITING = batch._MOST_WAITING = ENDLESS


def decode_batches() -> None:
    """Sends each picture to a decoder in its own batch."""
    from pipeline.decode import once

    once._MOST_A_BATCH = 1


def webhook_places() -> None:
    from workers import wiring
    from workers.webhook_places import WebhookPlaces

    wiring.webhook_places = lambda _settings: WebhookPlaces(ENDLESS, of_host=ENDLESS)


CONTROLS: dict[str, Callable[[], None]] = {
    control.__name__: control
    for control in (
        window,
        reserved_threads,
        call_queue,
        idle_threads_wait,
        memory_budget,
        fetched_bytes,
        decode_batches,
        webhook_places,
    )
}


def main() -> None:
    from cli import main as cli
    from cli import serve

    control = sys.argv.pop(1)
    serve.COMMAND = (sys.executable, "-m", "bench.without", control)
    CONTROLS[control]()
    cli.main()


if __name__ == "__main__":
    main()
