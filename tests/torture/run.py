"""One run: the load without faults, the load under faults, and a quiet time. It returns the record for the checker."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.scratch_key import owner_of
from storage.redis.signals import Signals
from tests.torture import rows
from tests.torture.checker.record import Record
from tests.torture.checker.times import QUIET_SECONDS, allowance
from tests.torture.house import CREDITS, House, Injected, Say, house
from tests.torture.load.client import Client
from tests.torture.plan import POISONS, Plan
from workers.supervisor import UNKNOWN_SECONDS, Supervisor

LATENCY = {"base": 0.02, "run": 1.0}  #: seconds of a model call
BASELINE_SECONDS = 600.0
AFTER_SECONDS = 100.0  #: time after the last fault in which all jobs must end, beside the time of their images without faults
EVENT_SECONDS = 60.0  #: most time for the remaining steps, such as webhooks, after the load without faults


def torture(plan: Plan, *, seed: int, parts: str, without: str, small_disks: bool, beside: str, folder: Path, say: Say) -> Record:
    """Runs the plan in `folder`. All processes have ended when it returns."""
    with ExitStack() as stack:
        built = stack.enter_context(
            house(folder, plan, seed=seed, parts=parts, without=without, small_disks=small_disks, beside=beside, say=say)
        )
        return follow(built, plan, folder, say)


def follow(built: House, plan: Plan, folder: Path, say: Say) -> Record:
    """Sends the load to what was built, and injects the faults of the plan."""
    with ExitStack() as stack:
        say("the load without faults")
        baseline = _phase(built, plan, "base", folder, stack)
        base_began = time.monotonic()
        if not baseline.wait(time.monotonic() + BASELINE_SECONDS):
            raise RuntimeError(f"without faults {baseline.open()} jobs did not end in {BASELINE_SECONDS:g} s")
        pace = {"seconds": time.monotonic() - base_began, "images": sum(len(job.numbers) for job in plan.jobs)}
        _settle(built, EVENT_SECONDS)
        base_calls = built.model.calls()
        say(f"  {len(baseline.seen)} jobs, {len(base_calls)} model calls; now under faults")
        built.watch.again = True
        faults, attack = built.faults, built.attack
        stack.callback(faults.close)
        began = time.monotonic()
        if attack:
            stack.callback(attack.close)
            attack.start()
        client = _phase(built, plan, "run", folder, stack)
        faults.start(plan.faults)
        _report(client, faults, plan, say)
        faults.wait(90)
        pace["left"] = rows.images_left(built.database, without=built.attacker)
        after = AFTER_SECONDS + allowance(pace)
        client.until = max(fault["ended"] for fault in faults.done) - time.time() + time.monotonic() + after
        say(f"  the last fault is over; {client.open()} jobs with {pace['left']} images are followed for {after:.0f} s")
        client.wait(client.until + 5)
        client.until = time.monotonic() + AFTER_SECONDS
        if attack:
            attack.close()
            attack.cancel_all()
        built.watch.again = False
        say("quiet")
        scratch = _quiet(built)
        balances = client.balances()
        built.watch.close()
        return Record(
            jobs={job.name: {**asdict(job), "missing": sorted(job.missing)} for job in plan.jobs},
            blocked=sorted(plan.blocked),
            poison={str(number): sorted(POISONS[what]) for number, what in plan.poison.items()},
            granted=dict.fromkeys(built.accounts, CREDITS),
            base_client=baseline.lines,
            baseline=baseline.seen,
            baseline_calls=base_calls,
            client=client.lines,
            seen=client.seen,
            shown_balances=dict(zip(built.accounts, balances, strict=False)),
            rows=rows.dump(built.database),
            calls=[
                call for call in built.model.calls(began) if not call["numbers"] or min(map(_number, call["numbers"])) < ATTACK
            ],
            received=list(built.receiver.got),
            secrets=built.secrets,
            pace=pace,
            scratch=scratch,
            planned=plan.kinds,
            faults=[*built.before, *faults.done],
            reclaims=built.watch.reclaims,
            locked=built.locked.windows if built.locked else [],
            stops=built.fleet.stops,
            deaths=built.fleet.deaths,
            attacks=dict(attack.did) if attack else {},
            clocks=sum(log.read_text(errors="replace").count("clock_differs") for log in folder.glob("*.log")),
            attacker=built.attacker,
        )


ATTACK = 900_000  #: the misbehaving account's pictures have numbers from here on


def _number(number: int | None) -> int:
    return number or 0


def _phase(built: House, plan: Plan, phase: str, folder: Path, stack: ExitStack) -> Client:
    built.model.fake.latency = LATENCY[phase]
    client = Client(
        plan,
        phase=phase,
        doors=built.doors,
        keys=built.keys,
        web=built.web,
        hook=built.hook,
        folder=folder,
    )
    stack.callback(client.close)
    client.start(pace=0.1 if phase == "base" else 1.0)
    return client


def _report(client: Client, faults: Injected, plan: Plan, say: Say) -> None:
    """Reports the progress until the time of the faults is over."""
    ends = time.monotonic() + plan.seconds
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(left, 10))
        say(f"  {len(faults.done)} of {len(plan.faults)} faults, {len(client.seen)} of {len(plan.jobs)} jobs ended")


def _settle(built: House, seconds: float) -> None:
    """Waits until there are no open steps, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and rows.restless(built.database):
        time.sleep(0.5)


def _quiet(built: House) -> dict[str, Any]:
    """Waits while the client sends nothing. Then the sweep runs, first now and then as if an unknown object's time were over.

    Returns how long scratch was not empty, what was left to the sweep, and the objects that it leaves.
    """
    began = time.monotonic()
    after = 0.0
    while True:
        left, passed = list(built.scratch.list("")), time.monotonic() - began
        after = passed if left else after
        if passed > QUIET_SECONDS or (not left and not rows.restless(built.database, without=built.attacker)):
            break
        time.sleep(0.5)
    known = {row["job"] for row in rows.dump(built.database)["steps"]}
    unknown = [key for key in left if owner_of(key) not in known]
    later = [0.0]
    signals = Signals(built.redis_url)
    supervisor = Supervisor(database=built.database, scratch=built.scratch, signals=signals, clock=lambda: later[0])
    for seconds in (0.0, UNKNOWN_SECONDS + 1):
        later[0] += seconds
        supervisor.sweep()
    signals.close()
    return {
        "after": None if left else after,
        "ended": len(left) - len(unknown),
        "unknown": len(unknown),
        "owners": len({owner_of(key) for key in unknown}),
        "left": list(built.scratch.list("")),
    }
