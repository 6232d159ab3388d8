"""How a worker process ends: nothing new is begun, what runs has a while, and the rest is handed back to the others.

Celery's own end waits for its threads without a limit; whoever stops us (an orchestrator, `serve`) kills after 30 s, and
then what runs would be free only when its lease has run out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

from storage.database import Database
from storage.queue import ringing, steps
from storage.queue.steps import Lease, LostLease
from storage.redis.signals import Signals
from workers.leases import LeaseKeeper

log = structlog.get_logger(__name__)

END_SECONDS = 15.0  #: for the steps that run to end: with all that follows there is a margin to the 25 s that are promised
HAND_BACK_SECONDS = 4.0  #: for handing back the others: a database that is away must not hold us
EXIT_SECONDS = 2.0  #: for the process to end by itself


class Drain:
    """Begun by SIGTERM, or when a thread is stuck. `stopping` is set from then on."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._begun = threading.Event()
        self._code = 0

    def begin(self, code: int = 0) -> None:
        """From any thread or signal handler. `code`: the process's, unless it ends by itself."""
        self._code = self._code or code
        self._begun.set()

    def watch(
        self, database: Database, signals: Signals, leases: LeaseKeeper, *, stop_taking: Callable[[], None] = lambda: None
    ) -> None:
        """Waits, in a thread of its own, for `begin`, and then ends the process. `stop_taking`: so that no message comes."""

        def run() -> None:
            self._begun.wait()
            self.stopping.set()
            stop_taking()
            log.info("draining", steps=len(leases.held()))
            leases.wait_until_free(END_SECONDS)
            # The main thread ends by itself where no thread is in the midst of a step.
            threading.Event().wait(EXIT_SECONDS)
            handing = threading.Thread(target=hand_back, args=(database, signals, leases.held()), daemon=True)
            handing.start()
            handing.join(HAND_BACK_SECONDS)
            os._exit(self._code)

        threading.Thread(target=run, name="drain", daemon=True).start()


def hand_back(database: Database, signals: Signals, leases: list[Lease]) -> None:
    """Makes the steps ready for others, at once."""
    for lease in leases:
        try:
            with database.write() as connection:
                steps.hand_back(connection, lease, delay_ms=0, counts=False)
                rings = ringing.to_ring(connection, beside=lease.job)
            signals.ring(rings)
            log.info("step_handed_back", job=lease.job, step=lease.step, kind=lease.kind.value)
        except LostLease:
            continue
        except Exception:  # its lease runs out
            log.exception("step_not_handed_back", job=lease.job, step=lease.step)
