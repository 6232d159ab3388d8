"""How a worker process ends: it claims no new step, gives running steps time to end, and hands the rest back.

Celery's own shutdown waits for its threads without a limit. An orchestrator or `serve` kills the process after 30 s, and then
other workers could claim its steps only after the leases have expired.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

from pipeline.tracing import spans
from pipeline.tracing.start import FLUSH_SECONDS
from storage.database import Database
from storage.queue import ringing, steps
from storage.queue.steps import Lease, LostLease
from storage.redis.signals import Signals
from workers.leases import LeaseKeeper

log = structlog.get_logger(__name__)

END_SECONDS = 15.0  #: for running steps to end; together with the waits below this stays within the promised 25 s
HAND_BACK_SECONDS = 4.0  #: for handing back the rest; an unreachable database must not delay the exit
EXIT_SECONDS = 2.0  #: for the process to exit by itself


class Drain:
    """The shutdown of a worker process. SIGTERM or a stuck thread begins it, and `stopping` is set from then on."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._begun = threading.Event()
        self._code = 0

    def begin(self, code: int = 0) -> None:
        """Begins the shutdown. Any thread or signal handler may call it. `code` is the exit code if the process is forced to exit."""
        self._code = self._code or code
        self._begun.set()

    def watch(
        self, database: Database, signals: Signals, leases: LeaseKeeper, *, stop_taking: Callable[[], None] = lambda: None
    ) -> None:
        """Starts a thread that waits for `begin` and then ends the process. `stop_taking` makes Celery take no more messages."""

        def run() -> None:
            self._begun.wait()
            self.stopping.set()
            stop_taking()
            log.info("draining", steps=len(leases.held()))
            leases.wait_until_free(END_SECONDS)
            # If no thread is working on a step, the main thread ends the process by itself.
            threading.Event().wait(EXIT_SECONDS)
            handing = threading.Thread(target=hand_back, args=(database, signals, leases.held()), daemon=True)
            handing.start()
            handing.join(HAND_BACK_SECONDS)
            spans.close(FLUSH_SECONDS)
            os._exit(self._code)

        threading.Thread(target=run, name="drain", daemon=True).start()


def hand_back(database: Database, signals: Signals, leases: list[Lease]) -> None:
    """Makes the steps ready for other workers at once."""
    for lease in leases:
        try:
            with database.write() as connection:
                steps.hand_back(connection, lease, delay_ms=0, counts=False)
                rings = ringing.to_ring(connection, beside=lease.job)
            signals.ring(rings)
            log.info("step_handed_back", job=lease.job, step=lease.step, kind=lease.kind.value)
        except LostLease:
            continue
        except Exception:  # another worker claims the step when the lease has expired
            log.exception("step_not_handed_back", job=lease.job, step=lease.step)
