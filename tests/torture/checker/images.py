"""Promises about images: each one has the outcome that the plan gives it, wherever the client reads it."""

from __future__ import annotations

from collections import Counter

from tests.torture.checker.record import Looked, Record, Row, outcomes, windows

OUT_OF_REACH = "model_unavailable"  #: how the images of a request that waits fail while the model can't be asked (ADR 0027)
#: The faults in which a worker can't reach its model. A request that waits then ends, instead of waiting with the job.
AWAY = ("outage model", "partition worker", "cut model", "refuse model", "cut off worker")
AWAY_SECONDS = 40.0  #: a request that waits is ended within 30 s


def planned(record: Record, number: int) -> list[str]:
    """How a picture that does not succeed fails without faults; empty: it succeeds."""
    return ["safety_blocked"] if number in record.blocked else []


def baseline_as_planned(record: Record) -> Looked:
    """The run without faults is compared with the plan, so that two runs which lost the same record are not taken for right."""
    faults, count = [], 0
    for name, job in record.jobs.items():
        seen = record.baseline.get(name)
        if seen is None:
            faults.append(f"{name} has no results without faults")
            continue
        was = outcomes(seen)
        for index, number in enumerate(job["numbers"]):
            count += 1
            expected = planned(record, number) or [number]
            if was.get(index) != expected:
                faults.append(f"{name}: without faults image {index} is {was.get(index)}, and should be {expected}")
        faults += [f"{name}: without faults there is an image {index}" for index in was if not 0 <= index < len(job["numbers"])]
    return f"{count} images", faults


def right_image(record: Record) -> Looked:
    faults, count = [], 0
    for name, seen in record.seen.items():
        faults += _record_faults(name, record.jobs[name]["numbers"], seen)
        count += len(seen["results"])
    return f"{count} records", faults


def _record_faults(name: str, numbers: list[int], seen: Row) -> list[str]:
    times = Counter(index for index, _ in seen["results"])
    faults = [f"{name}: image {index} has {many} records" for index, many in times.items() if many > 1]
    failed = {index for index, _ in seen["errors"]}
    faults += [f"{name}: image {index} has a record and a failure" for index in sorted(failed & set(times))]
    for index, value in seen["results"]:
        if not 0 <= index < len(numbers) or numbers[index] != value:
            faults.append(f"{name}: the record of image {index} is of picture {value}")
    return faults


def as_without_faults(record: Record) -> Looked:
    odd = set(record.blocked) | set(map(int, record.poison))
    faults, count = [], 0
    for name, job in record.jobs.items():
        if job["cancel_after"] is not None or job["delete"] == "running":
            continue
        seen = record.seen.get(name, _NOTHING)
        was, now = outcomes(record.baseline.get(name, _NOTHING)), outcomes(seen)
        for index, number in enumerate(job["numbers"]):
            if number in odd:
                continue
            count += 1
            if (index not in was or was[index] != now.get(index)) and not _excused(record, name, now.get(index)):
                faults.append(f"{name}: image {index} was {was.get(index)}, and is {now.get(index)}{_said(seen, index)}")
    return f"{count - len(faults)} of {count} images", faults


_NOTHING: Row = {"results": [], "errors": []}


def _said(seen: Row, index: int) -> str:
    """The messages of the image's failures, for whoever reads the fault."""
    return "".join(f" ({message})" for of, message in seen.get("messages", []) if of == index)


def _excused(record: Record, name: str, now: list[object] | None) -> bool:
    """Whether a request waited for this image while the model could not be asked."""
    if now != [OUT_OF_REACH] or not record.jobs[name]["waits"]:
        return False
    times = [line["at"] for line in record.client if line["job"] == name]
    return any(start < max(times) and end + AWAY_SECONDS > min(times) for start, end in windows(record, *AWAY))


def fails_alone(record: Record) -> Looked:
    expected = {int(number): codes for number, codes in record.poison.items()}
    expected |= {number: ["safety_blocked"] for number in record.blocked}
    faults, count = [], 0
    for name, seen in record.seen.items():
        job, now = record.jobs[name], outcomes(seen)
        for index, number in enumerate(job["numbers"]):
            if number not in expected or job["cancel_after"] is not None:
                continue
            count += 1
            found = now.get(index, [])
            if (len(found) != 1 or found[0] not in expected[number]) and not _excused(record, name, found):
                faults.append(f"{name}: image {index} is {found}, not one of {expected[number]}")
    return f"{count - len(faults)} of {count} such images", faults


def waiting_bodies(record: Record) -> Looked:
    """A caller that waits gets the results of its own job, and the same that the job shows later."""
    faults, count = [], 0
    for line in record.client:
        if line["what"] != "answered":
            continue
        count += 1
        name = line["job"]
        job, body = record.jobs[name], line["body"]
        faults += [f"the answer to {fault}" for fault in _record_faults(name, job["numbers"], body)]
        if line["processed"] != len(body["results"]):
            faults.append(f"the answer to {name} says {line['processed']} images, and has {len(body['results'])}")
        if set(outcomes(body)) != set(range(len(job["numbers"]))) and job["cancel_after"] is None:
            faults.append(f"the answer to {name} has the images {sorted(outcomes(body))} of {len(job['numbers'])}")
        if name in record.seen and not job["missing"] and outcomes(body) != outcomes(record.seen[name]):
            faults.append(f"the answer to {name} differs from the job's results")
    return f"{count} answers", faults
