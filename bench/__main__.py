"""Runs the benches in about 15 minutes on a quiet machine, and prints one table: `make bench`.

Each bench can also be run alone, with more runs: `python -m bench.one_image --help`. Not in the list are those that take longer:
history, folder, admission, pictures, evidence_job, and scale, queueing and evidence, which have tables of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.chart import chart
from bench.report import RESULTS, machine
from testbed import ROOT


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A module of this folder with its arguments."""

    module: str
    arguments: str = ""
    limit: str = ""  #: which of its figures the bench's own fakes bound, and how

    @property
    def command(self) -> str:
        return f"bench.{self.module} {self.arguments}".rstrip()


SUITE = (
    Bench(module="fakes"),
    Bench(module="one_image", arguments="--runs 3", limit="The time of the fake model's call is in every request."),
    Bench(
        module="one_image",
        arguments="--parts production --runs 3",
        limit="Client, fake model, Postgres, Valkey and SeaweedFS share the cores with the service.",
    ),
    Bench(
        module="large_job",
        arguments="--runs 5",
        limit="The fake model answers 32 calls at the same moment. It reads their bodies on the service's cores.",
    ),
    Bench(module="staging", arguments="--runs 5 --alone", limit="The web server shares the cores, and answers after 50 ms."),
    Bench(module="front_door", arguments="--runs 5"),
    Bench(module="backlog", arguments="--runs 1"),
    Bench(module="waiters"),
    Bench(module="results", arguments="--runs 3"),
    Bench(module="open_jobs"),
    Bench(module="waiting_webhooks"),
    Bench(module="small_servers", arguments="--runs 1 --only python"),
    Bench(module="png", arguments="--runs 3"),
    Bench(module="economy", arguments="--images 1000 --jobs 10"),
    Bench(module="model_quota", arguments="--minutes 1", limit="A minute is a minute: the quota's clock can't be made faster."),
    Bench(module="footprint", arguments="--jobs 10"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", metavar="BENCH", help="only this bench; may be given several times")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the results to this file; with --only, replace those in it"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the results and their goals in this file")
    options = parser.parse_args()
    chosen = [bench for bench in SUITE if not options.only or bench.module in options.only]
    if not chosen:
        parser.error(f"the benches are {', '.join(dict.fromkeys(bench.module for bench in SUITE))}")
    began, reports, failed = time.monotonic(), [], []
    for number, bench in enumerate(chosen, start=1):
        print(f"{time.monotonic() - began:5.0f} s  {number} of {len(chosen)}  {bench.command}", file=sys.stderr, flush=True)
        report = run(bench)
        if report is None:
            failed.append(bench.command)
        else:
            reports.append({**report, "limit": bench.limit})
    results = {"machine": machine(), "seconds": round(time.monotonic() - began), "reports": reports, "failed": failed}
    show(results)
    if options.only and options.json and options.json.exists():
        results = merged(json.loads(options.json.read_text(encoding="utf-8")), results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.svg:
        options.svg.write_text(chart(results["reports"], machine()), encoding="utf-8")
    return 1 if failed else 0


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """An earlier run in which the reports of single benches are replaced, in the order of SUITE."""
    found = {report["command"]: report for report in (*before["reports"], *now["reports"])}
    places = {f"python -m {bench.command}": place for place, bench in enumerate(SUITE)}
    reports = sorted(found.values(), key=lambda report: places.get(report["command"], len(places)))
    again = {report["command"].removeprefix("python -m ") for report in now["reports"]}
    failed = [command for command in before["failed"] if command not in again]
    seconds = before["seconds"] + now["seconds"]
    return {"machine": now["machine"], "seconds": seconds, "reports": reports, "failed": [*failed, *now["failed"]]}


def run(bench: Bench) -> dict[str, Any] | None:
    """The bench's report, or None if the bench failed. What it printed then is shown."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        done = subprocess.run(
            [sys.executable, "-m", *bench.command.split()],
            cwd=ROOT,
            env={**os.environ, RESULTS: str(results)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not results.exists():
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr, flush=True)
            return None
        [report] = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
        return dict(report)


def show(results: dict[str, Any]) -> None:
    console = Console(width=150)
    console.print(f"{results['machine']}; {results['seconds']} s in all")
    table = Table("bench", "what", "measured: median (least to most)", "goal", "")
    for report in results["reports"]:
        for at, row in enumerate(report["rows"]):
            name = report["command"].removeprefix("python -m bench.") if at == 0 else ""
            table.add_row(name, row["what"], row["text"], row["goal"], row["verdict"], end_section=row is report["rows"][-1])
    console.print(table)
    work = [report["fixed_work_ms"] for report in results["reports"] if "fixed_work_ms" in report]
    if work:
        console.print(f"After each bench a fixed piece of Python took {min(work):.1f} to {max(work):.1f} ms.")
    for report in results["reports"]:
        if report["limit"]:
            console.print(f"{report['command'].removeprefix('python -m bench.')}: {report['limit']}", soft_wrap=True)
    if results["failed"]:
        console.print(f"These benches failed: {', '.join(results['failed'])}.")


if __name__ == "__main__":
    sys.exit(main())
