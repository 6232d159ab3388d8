"""`python -m tests.hosts` runs one seed over several hosts and prints each promise with the result. Exit code 0: all were kept.

It needs root. It runs itself again in namespaces of its own, so that nothing of it is left on the machine when it ends.
"""

# ruff: noqa: T201 - a command that prints

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from cli.logs import configure_logs
from tests.hosts.host import why_not
from tests.hosts.plan import make_plan
from tests.hosts.site import site
from tests.torture.__main__ import show, tails
from tests.torture.checker import check, happened
from tests.torture.run import follow

INSIDE = "HOSTS_INSIDE"
SPACES = ("--net", "--uts", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hosts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="12 jobs and 9 faults, in about a minute")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put the record and the logs there, and leave them")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print the outcome as JSON")
    given = parser.parse_args()
    if os.environ.get(INSIDE) != "1":
        if reason := why_not():
            print(reason, file=sys.stderr)
            return 2
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", *SPACES, sys.executable, "-m", "tests.hosts", *sys.argv[1:]])
    configure_logs(json=False, level=logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = given.keep or Path(tempfile.mkdtemp(prefix="hosts-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr, flush=True)

    try:
        plan = make_plan(given.seed, short=given.short)
        images = sum(len(job.numbers) for job in plan.jobs)
        say(f"seed {given.seed}: {len(plan.jobs)} jobs, {images} images, {len(plan.faults)} faults")
        with site(folder, plan, seed=given.seed, say=say) as built:
            record = follow(built, plan, folder, say)
        (folder / "record.json").write_text(json.dumps(asdict(record), default=str))
        checks = check(record)
        kept = not any(each.faults for each in checks)
        if given.as_json:
            shown = {"seed": given.seed, "kept": kept, "checks": [asdict(each) for each in checks], "happened": happened(record)}
            print(json.dumps(shown))
        else:
            show(checks)
            print(*(f"      {name}: {value}" for name, value in happened(record).items()), sep="\n")
            say(f"seed {given.seed}: {'all promises kept' if kept else 'NOT all promises kept'}")
        if not kept:
            tails(folder)
        return 0 if kept else 1
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
