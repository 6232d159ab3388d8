"""Promises about credits: what is granted, held, charged, released and shown fits together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.torture.checker.record import ENDED, Looked, Record, Row, deleted

BASE = 10  #: base price of a job in credits

Legs = dict[str, dict[int, list[tuple[str, int]]]]  #: job → round → (kind, amount)


def _legs(record: Record) -> Legs:
    legs: Legs = defaultdict(lambda: defaultdict(list))
    for row in record.rows["ledger"]:
        if row["job"]:
            legs[row["job"]][row["round"]].append((row["kind"], row["amount"]))
    return legs


def charged_once(record: Record) -> Looked:
    legs = _legs(record)
    rows = {row["id"]: row for row in record.rows["jobs"]}
    faults = []
    for row in rows.values():
        if set(legs[row["id"]]) != set(range(1, row["round"] + 1)):
            faults.append(f"{row['name']} is in round {row['round']}, and the ledger has its rounds {sorted(legs[row['id']])}")
        for round_, found in legs[row["id"]].items():
            if round_ < row["round"] or row["status"] in ENDED:
                faults += _round_faults(f"{row['name']} ({row['status']})", found)
        if row["status"] in ENDED:
            faults += _due_faults(row, _charged(legs[row["id"]]))
    gone = deleted(record)
    for job, rounds in legs.items():
        if job in rows:
            continue
        if job in gone:
            faults += [fault for found in rounds.values() for fault in _round_faults(f"the deleted {job}", found)]
        elif not _of_attacker(record, job):
            faults.append(f"the ledger has rows of {job}, which nobody asked for")
    charged = sum(_charged(rounds) for rounds in legs.values())
    return f"{charged} credits charged for {sum(map(len, legs.values()))} rounds", faults


def _of_attacker(record: Record, job: str) -> bool:
    return any(row["job"] == job and row["account"] == record.attacker for row in record.rows["ledger"])


def _charged(rounds: dict[int, list[tuple[str, int]]]) -> int:
    return sum(amount for found in rounds.values() for kind, amount in found if kind == "charge")


def _round_faults(name: str, legs: list[tuple[str, int]]) -> Iterator[str]:
    kinds = Counter(kind for kind, _ in legs)
    if kinds != {"reserve": 1, "charge": 1, "release": 1}:
        yield f"{name} has {dict(kinds)} in the ledger"
        return
    amounts = dict(legs)
    if amounts["charge"] + amounts["release"] != amounts["reserve"] or min(amounts.values()) < 0:
        yield f"{name}: {amounts} does not add up"


def _due_faults(job: Row, charged: int) -> Iterator[str]:
    due = BASE + job["done"] if job["done"] and job["status"] != "failed" else 0
    if charged != due:
        yield f"{job['name']} ({job['status']}): {job['done']} images processed, {charged} credits charged"
    if job["credits"] != charged:
        yield f"{job['name']}: its row says {job['credits']} credits, the ledger {charged}"


def shown_is_charged(record: Record) -> Looked:
    """Each figure that the client was shown is what the ledger charged by then, and the last one is all of it."""
    legs = _legs(record)
    faults, count = [], 0
    last: dict[str, Row] = {}
    ids = {line["job"]: line["id"] for line in record.client if line["what"] == "accepted" and record.jobs[line["job"]]["keyed"]}
    ids |= {f"{line['job']}/{line['try']}": line["id"] for line in record.client if line["what"] == "accepted"}
    for line in record.client:
        if line["what"] == "ended":
            job = line["id"]
            last[job] = line
        elif line["what"] == "retried":  # the client's time may be over before it sees this round's end
            last.pop(line["id"], None)
            continue
        elif line["what"] == "answered":
            known = line.get("id") or ids.get(f"{line['job']}/{line['try']}") or ids.get(line["job"])
            if known is None:
                faults.append(f"{line['job']} was answered, and its job is not known")
                continue
            job = known
        else:
            continue
        count += 1
        sums, total = [], 0
        for _, found in sorted(legs[job].items()):
            total += sum(amount for kind, amount in found if kind == "charge")
            sums.append(total)
        if line["credits"] not in sums:
            faults.append(f"{line['job']} was shown {line['credits']} credits, and {sums} were charged")
        elif line["credits"] != (BASE + line["processed"] if line["processed"] else 0) and line["status"] != "failed":
            faults.append(f"{line['job']} was shown {line['credits']} credits for {line['processed']} images")
    for job, line in last.items():
        total = _charged(legs[job])
        if line["credits"] != total:
            faults.append(f"{line['job']} was shown {line['credits']} credits at its end, and {total} were charged")
    return f"{count} prices shown", faults


def money(record: Record) -> Looked:
    rows = record.rows["ledger"]
    faults = []
    for account in record.rows["accounts"]:
        own = [row for row in rows if row["account"] == account["id"]]
        granted = sum(row["amount"] for row in own if row["kind"] == "grant")
        charged = sum(row["amount"] for row in own if row["kind"] == "charge")
        has = {name: account[name] for name in ("available", "held", "charged")}
        if sum(has.values()) != granted or has["held"] != 0 or has["charged"] != charged:
            faults.append(f"account {account['id']} has {has}; it was granted {granted}, and its ledger charges {charged}")
        if granted != record.granted.get(account["id"]):
            faults.append(f"account {account['id']} has grants of {granted}; it was given {record.granted.get(account['id'])}")
        shown = record.shown_balances.get(account["id"])
        if shown is not None and shown != has:
            faults.append(f"account {account['id']} has {has}, and the API shows {shown}")
    missing = set(record.granted) - {account["id"] for account in record.rows["accounts"]}
    faults += [f"account {account} is gone" for account in sorted(missing)]
    return f"{len(record.rows['accounts'])} accounts, nothing held" if not faults else "not conserved", faults
