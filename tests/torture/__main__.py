"""`python -m tests.torture` runs one seed and prints each promise with the result. Exit code 0 means that all were kept."""

# ruff: noqa: T201 - a command that prints

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from cli.logs import configure_logs
from tests.torture.checker import Check, check, happened
from tests.torture.disks import can_mount
from tests.torture.house import NAMES
from tests.torture.plan import make_plan
from tests.torture.run import torture

MOST_SHOWN = 8


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="30 jobs and a fault of each family, in about 3 minutes")
    parser.add_argument("--parts", choices=sorted(NAMES), default="postgres")
    parser.add_argument(
        "--without", choices=("fence", "ledger", "ring"), default="", help="take out a safeguard: the run must fail"
    )
    parser.add_argument(
        "--beside", default="", metavar="REVISION", help="run the second process of each role with the code of this git revision"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put the record and the logs there, and leave them")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print the outcome as JSON")
    given = parser.parse_args()
    # This process sweeps the scratch itself, and standard output is for the outcome alone.
    configure_logs(json=False, level=logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = given.keep or Path(tempfile.mkdtemp(prefix="torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr, flush=True)

    try:
        disks = can_mount()
        if not disks:
            say("no file systems can be mounted here, so no disk becomes full")
        plan = make_plan(given.seed, short=given.short, processes_only=given.parts == "sqlite", disks=disks)
        say(
            f"seed {given.seed}: {len(plan.jobs)} jobs, {sum(len(job.numbers) for job in plan.jobs)} images, {len(plan.faults)} faults"
        )
        record = torture(
            plan,
            seed=given.seed,
            parts=given.parts,
            without=given.without,
            small_disks=disks,
            beside=given.beside,
            folder=folder,
            say=say,
        )
        (folder / "record.json").write_text(json.dumps(asdict(record), default=str))
        checks = check(record)
        kept = not any(each.faults for each in checks)
        if given.as_json:
            print(
                json.dumps(
                    {"seed": given.seed, "kept": kept, "checks": [asdict(each) for each in checks], "happened": happened(record)}
                )
            )
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


def show(checks: list[Check]) -> None:
    width = max(len(each.promise) for each in checks)
    for each in checks:
        print(f"{'FAIL' if each.faults else 'ok  '}  {each.promise:<{width}}  |  {each.seen}")
        for fault in each.faults[:MOST_SHOWN]:
            print(f"        {fault}")
        if len(each.faults) > MOST_SHOWN:
            print(f"        and {len(each.faults) - MOST_SHOWN} more")


def tails(folder: Path, lines: int = 5) -> None:
    """Prints the last lines of each process's log."""
    for log in sorted(folder.glob("*.log")):
        said = log.read_text(errors="replace").splitlines()[-lines:]
        print(f"--- {log.name}", *(line[:300] for line in said), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
