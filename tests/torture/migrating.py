"""Kills a migration in its midst, before the service starts, and lets two migrate at once."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from testbed import ROOT
from tests.torture.fleet import Fleet
from tests.torture.planned_faults import MIGRATION
from tests.torture.servers import Postgres, Proxies

LOOK_SECONDS = 60.0


def kill_migration(fleet: Fleet, postgres: Postgres, proxies: Proxies) -> dict[str, Any]:
    """The fault as the record has it. At the end the database is migrated."""
    began, hits = time.time(), 0
    proxies.become("cli", "slow")  # so that a migration lasts long enough
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "migrate"],
        cwd=ROOT,
        env=fleet.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + LOOK_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if postgres.writing():
            process.kill()
            hits += 1
            break
    process.wait()
    proxies.become("cli", "pass")
    with ThreadPoolExecutor(2) as two:
        for done in [two.submit(fleet.run, "migrate") for _ in range(2)]:
            done.result()
    return {"kind": MIGRATION, "at": began, "ended": time.time(), "what": "migrate", "hits": hits}
