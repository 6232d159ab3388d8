"""Whether the run was a test at all: each planned kind of fault and of load happened, and no process died by itself."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict

from tests.torture.checker.record import Looked, Record

OCR, OPENAI = "ocr", "openai"


def lived(record: Record) -> Looked:
    faults = [
        f"{death['process']} ended unasked with {_code(death['code'])}:\n"
        + "\n".join(f"            {line}" for line in death["said"])
        for death in record.deaths
    ]
    return f"{len(record.deaths)} deaths", faults


def _code(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"


def every_fault(record: Record) -> Looked:
    hits: Counter[str] = Counter()
    whys: dict[str, set[str]] = defaultdict(set)
    for fault in record.faults:
        hits[fault["kind"]] += fault["hits"]
        whys[fault["kind"]].add(str(fault["what"]))
    faults = [
        f"{kind} was planned {times} times and never happened: {', '.join(sorted(whys[kind])) or 'it did not begin'}"
        for kind, times in record.planned.items()
        if not hits[kind]
    ]
    return f"{len(record.faults)} faults of {len(record.planned)} kinds", faults


def every_load(record: Record) -> Looked:
    """Each kind of request that the plan has was seen at work."""
    lines = Counter(line["what"] for line in record.client)
    jobs = record.jobs
    done = {name: seen for name, seen in record.seen.items() if seen["results"]}
    hits = sum(line.get("hits", 0) for line in record.client if line["what"] == "ended")
    happened = {
        "waits": lines["answered"],
        "streams": lines["event"],
        "retries": lines["retried"],
        "deletes": lines["deleted"],
        "cached": hits,
        "synthesize": sum(not call["numbers"] for call in record.calls),
        "keyless": sum(not jobs[name]["keyed"] for name in done),
        "files": sum(jobs[name]["sent"] == "files" for name in done),
        OPENAI: sum(jobs[name]["engine"] == OPENAI for name in done),
        OCR: sum(jobs[name]["engine"] == OCR for name in done),
        **{f"misbehaviour: {what}": count for what, count in record.attacks.items()},
    }
    planned = {
        "waits": any(job["waits"] for job in jobs.values()),
        "streams": any(job["streams"] for job in jobs.values()),
        "retries": any(job["missing"] for job in jobs.values()),
        "deletes": any(job["delete"] for job in jobs.values()),
        "cached": any(job["cache"] for job in jobs.values()),
        "synthesize": any(job["synthesize"] for job in jobs.values()),
        "keyless": any(not job["keyed"] for job in jobs.values()),
        "files": any(job["sent"] == "files" for job in jobs.values()),
        OPENAI: any(job["engine"] == OPENAI for job in jobs.values()),
        OCR: any(job["engine"] == OCR for job in jobs.values()),
    }
    faults = [
        f"{what} was planned and never happened" for what, count in happened.items() if planned.get(what, True) and not count
    ]
    return ", ".join(f"{count} {what}" for what, count in happened.items() if not what.startswith("misbehaviour")), faults
