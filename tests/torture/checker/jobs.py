"""Promises about jobs: each one is accepted once, ends once, and stays as it ended."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

from tests.torture.checker.record import ENDED, Looked, Record, Row, deleted, of_phase


def ended(record: Record) -> Looked:
    rows = {row["id"]: row for row in record.rows["jobs"] if row["phase"] != "base"}
    accepted = {line["job"] for line in record.client if line["what"] == "accepted"}
    gone = deleted(record)
    faults = [f"{name} was never accepted" for name in record.jobs if name not in accepted]
    for line in record.client:
        if line["what"] == "accepted" and line["id"] not in rows and line["id"] not in gone:
            faults.append(f"{line['job']} was accepted as {line['id']}, and is not there")
    faults += [f"{row['name']} ({row['id']}) is {row['status']}" for row in rows.values() if row["status"] not in ENDED]
    faults += [
        f"the client did not see the end of {name}"
        for name in sorted(accepted)
        if name not in record.seen and record.jobs[name]["delete"] != "running"
    ]
    done = sum(row["status"] in ENDED for row in rows.values()) + len(gone - set(rows))
    return f"{done} of {len(rows) + len(gone - set(rows))} jobs ended", faults


def same_job(record: Record) -> Looked:
    """One key is one job. A request without a key is at most one job, and a refused one is none."""
    ids: dict[str, set[str]] = defaultdict(set)
    posts = [line for line in record.client if line["what"] == "accepted"]
    for line in posts:
        if record.jobs[line["job"]]["keyed"]:
            ids[line["job"]].add(line["id"])
    faults = [f"{name} became {sorted(found)}" for name, found in ids.items() if len(found) > 1]
    faults += [f"job {row['id']} came of no request" for row in record.rows["jobs"] if not row["phase"]]
    faults += [
        f"job {row['id']} ({row['name']}) is not in the plan" for row in of_phase(record) if row["name"] not in record.jobs
    ]
    rows = Counter((row["name"], row["try"]) for row in of_phase(record))
    faults += [f"{name} has {count} jobs of try {try_}" for (name, try_), count in rows.items() if count > 1]
    return f"{len(posts)} answers for {len({line['job'] for line in posts})} requests", faults


def refused_is_nothing(record: Record) -> Looked:
    """An answer that says `nothing was accepted` is true. Only requests without a key show that, because they are not repeated."""
    refused = [line for line in record.client if line["what"] == "refused" and not record.jobs[line["job"]]["keyed"]]
    made = {(row["name"], row["try"]): row["id"] for row in of_phase(record)}
    faults = [
        f"{line['job']} was refused with {line['status']}, and became {made[line['job'], line['try']]}"
        for line in refused
        if (line["job"], line["try"]) in made
    ]
    unknown = sum(line["what"] == "unknown" and not record.jobs[line["job"]]["keyed"] for line in record.client)
    keyless = sum(not job["keyed"] for job in record.jobs.values())
    return f"{keyless} requests without a key: {len(refused)} refusals, {unknown} answers lost", faults


def cancelled_for_good(record: Record) -> Looked:
    rows = {row["id"]: row for row in record.rows["jobs"]}
    faults, count = [], 0
    for line in record.client:
        if line["what"] not in {"cancel", "cancel late"} or line["id"] not in rows:
            continue
        count += 1
        row = rows[line["id"]]
        if line["status"] == 200 and (row["status"], row["done"]) != ("cancelled", line["succeeded"]):
            faults.append(f"{line['job']} was cancelled with {line['succeeded']} done, and is {row['status']} with {row['done']}")
        if line["what"] == "cancel late" and line["status"] != (200 if line["ended_as"] == "cancelled" else 409):
            faults.append(f"{line['job']} had ended as {line['ended_as']}; a cancel of it gave {line['status']}")
    return f"{count} cancels", faults


def deleted_for_good(record: Record) -> Looked:
    ids = deleted(record)
    faults = [f"{row['name']} ({row['id']}) was deleted, and is there" for row in record.rows["jobs"] if row["id"] in ids]
    faults += [
        f"{line['job']} was deleted, and a look at it gave {line['status']}"
        for line in record.client
        if line["what"] == "looked after delete" and line["status"] != 404
    ]
    faults += [f"a step of {row['job']} is left, which was deleted" for row in record.rows["steps"] if row["job"] in ids]
    wanted = {name for name, job in record.jobs.items() if job["delete"]}
    named = {line["job"] for line in record.client if line["what"] == "deleted"}
    faults += [f"{name} was not deleted" for name in sorted(wanted - named)]
    return f"{len(ids)} deletes", faults


def streams(record: Record) -> Looked:
    """A reader of events sees its own job go forward, and its end."""
    events: dict[str, list[Row]] = defaultdict(list)
    for line in record.client:
        if line["what"] == "event":
            events[line["job"]].append(line)
    rows = {row["id"]: row for row in record.rows["jobs"]}
    faults = []
    for name, found in events.items():
        own = {line["id"] for line in record.client if line["what"] == "accepted" and line["job"] == name}
        faults += [f"the stream of {name} showed {line['id']}" for line in found if line["id"] not in own]
        for before, after in itertools.pairwise(found):
            if (
                before["round"] == after["round"]
                and after["succeeded"] + after["failed"] < before["succeeded"] + before["failed"]
            ):
                faults.append(f"the stream of {name} went back from {before['succeeded']} to {after['succeeded']} processed")
        last = found[-1]
        row = rows.get(last["id"])
        if row and (last["status"], last["succeeded"]) != (row["status"], row["done"]):
            faults.append(
                f"{name} is {row['status']} with {row['done']}; its stream ended with {last['status']}, {last['succeeded']}"
            )
    wanted = {name for name, job in record.jobs.items() if job["streams"]}
    faults += [f"the stream of {name} showed nothing" for name in sorted(wanted - set(events)) if name in record.seen]
    return f"{sum(map(len, events.values()))} events of {len(events)} streams", faults
