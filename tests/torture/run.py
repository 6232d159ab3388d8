"""One run: the load without faults, the load under faults, and a quiet time. It returns the record for the checker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.settings import load_settings
from storage.database import Database
from storage.scratch.open import open_scratch
from testbed import pictures, seaweedfs
from tests.fakes.gemini import FakeGemini
from tests.torture import rows
from tests.torture.checker import QUIET_SECONDS, Record
from tests.torture.faults import Faults
from tests.torture.fleet import Fleet, free_port
from tests.torture.load import Client
from tests.torture.model import Model
from tests.torture.plan import ACCOUNTS, POISONS, Plan
from tests.torture.receiver import Receiver
from tests.torture.servers import Postgres, Proxies, Valkey, postgres

CREDITS = 1_000_000
LATENCY = {"base": 0.02, "run": 1.0}  #: seconds of a model call
BASELINE_SECONDS = 150.0
AFTER_SECONDS = 100.0  #: time after the last fault in which all jobs must end
EVENT_SECONDS = 60.0  #: most time for the remaining steps, such as webhooks, after the load without faults
SETTINGS = {
    "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "ENGINE": "gemini",
    "LEASE_SECONDS": "15",
    "STEP_SECONDS": "60",
    "IMAGES_PER_CALL": "8",  # makes more chunks, so that faults hit more of them
    "MERGED_PER_CALL": "20",
    "WORKER_CONCURRENCY": "24",
    "RATE_LIMIT": "100000/minute",
    "FETCH_ALLOW": "127.0.0.1/32:*",
    "WEBHOOK_ALLOW": "127.0.0.1/32:*",
    "WEBHOOK_SCHEDULE": "1,2,4,8,8,8,8",
}
NAMES = {
    "postgres": ("web-1", "web-2", "worker-1", "worker-2", "supervisor-1", "supervisor-2"),
    "sqlite": ("web-1", "worker-1", "worker-2", "supervisor-1"),
}

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """All running parts of the torture."""

    fleet: Fleet
    model: Model
    receiver: Receiver
    proxies: Proxies
    valkey: Valkey
    postgres: Postgres | None
    database: Database  #: the torture's own connection, without a proxy
    scratch: Any
    watch: rows.Watch
    keys: list[str]
    secrets: dict[str, list[str]]
    hook: str
    web: Any


def torture(plan: Plan, *, seed: int, parts: str, without: str, folder: Path, say: Say) -> Record:
    """Runs the plan in `folder`. All processes have ended when it returns."""
    with ExitStack() as stack:
        house = stack.enter_context(_house(folder, plan, seed=seed, parts=parts, without=without, say=say))
        say("the load without faults")
        baseline = _phase(house, plan, "base", folder, stack)
        if not baseline.wait(time.monotonic() + BASELINE_SECONDS):
            raise RuntimeError(f"without faults {baseline.open()} jobs did not end in {BASELINE_SECONDS:g} s")
        _settle(house, EVENT_SECONDS)
        first_call, base_lines = len(house.model.fake.calls), len(baseline.lines)
        say(f"  {len(baseline.seen)} jobs, {first_call} model calls, {base_lines} lines; now under faults")
        house.watch.again = True
        faults = Faults(
            fleet=house.fleet,
            model=house.model,
            receiver=house.receiver,
            proxies=house.proxies,
            valkey=house.valkey,
            postgres=house.postgres,
        )
        stack.callback(faults.close)
        client = _phase(house, plan, "run", folder, stack)
        faults.start(plan.faults)
        _report(client, faults, plan, say)
        faults.wait(90)
        client.until = max(fault["ended"] for fault in faults.done) - time.time() + time.monotonic() + AFTER_SECONDS
        say(f"  the last fault is over; {client.open()} jobs are followed")
        client.wait(client.until + 5)
        house.watch.again = False
        say("quiet")
        scratch = _quiet(house)
        house.watch.close()
        calls = house.model.calls()
        return Record(
            jobs={
                job.name: {
                    "numbers": job.numbers,
                    "cancelled": job.cancel_after is not None,
                    "webhook": job.webhook,
                    "form": job.form,
                }
                for job in plan.jobs
            },
            blocked=sorted(plan.blocked),
            poison={str(number): sorted(POISONS[what]) for number, what in plan.poison.items()},
            baseline=baseline.seen,
            baseline_calls=calls[:first_call],
            client=client.lines,
            seen=client.seen,
            rows=rows.dump(house.database, "run"),
            calls=calls[first_call:],
            received=list(house.receiver.got),
            secrets=house.secrets,
            scratch=scratch,
            faults=faults.done,
            reclaims=house.watch.reclaims,
            stops=house.fleet.stops,
        )


def _phase(house: House, plan: Plan, phase: str, folder: Path, stack: ExitStack) -> Client:
    house.model.fake.latency = LATENCY[phase]
    client = Client(
        plan,
        phase=phase,
        ports=list(house.fleet.ports.values()),
        keys=house.keys,
        web=house.web,
        hook=house.hook,
        folder=folder,
    )
    stack.callback(client.close)
    client.start(pace=0.1 if phase == "base" else 1.0)
    return client


def _report(client: Client, faults: Faults, plan: Plan, say: Say) -> None:
    """Reports the progress until the time of the faults is over."""
    ends = time.monotonic() + plan.seconds
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(left, 10))
        say(f"  {len(faults.done)} of {len(plan.faults)} faults, {len(client.seen)} of {len(plan.jobs)} jobs ended")


def _settle(house: House, seconds: float) -> None:
    """Waits until there are no open steps, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and rows.restless(house.database):
        time.sleep(0.5)


def _quiet(house: House) -> dict[str, Any]:
    """Waits while the client sends nothing. Returns how long scratch was not empty, and the objects that are left in it."""
    began = time.monotonic()
    after = 0.0
    while True:
        left, passed = list(house.scratch.list("")), time.monotonic() - began
        after = passed if left else after
        if passed > QUIET_SECONDS or (not left and not rows.restless(house.database)):
            return {"after": None if left else after, "left": left}
        time.sleep(0.5)


@contextmanager
def _house(folder: Path, plan: Plan, *, seed: int, parts: str, without: str, say: Say) -> Iterator[House]:
    with ExitStack() as stack:
        say("starting")
        fake = stack.enter_context(FakeGemini(blocked=plan.blocked))
        web = stack.enter_context(pictures())
        receiver = Receiver()
        stack.callback(receiver.close)
        valkey = Valkey(folder / "valkey", free_port())
        stack.callback(valkey.kill)
        valkey.start()
        targets: dict[str, int | str] = {
            "redis": valkey.port,
            "model": int(fake.base_url.rpartition(":")[2]),
            "receiver": receiver.server_port,
        }
        direct = {"DATABASE_URL": f"sqlite:///{folder / 'torture.db'}", "SCRATCH_URL": f"file:{folder / 'scratch'}"}
        server = None
        if parts == "postgres":
            server = stack.enter_context(postgres())
            bucket = stack.enter_context(seaweedfs(folder / "s3"))
            direct = {"ENV": "production", "ALLOW_ROOT": "1", "DATABASE_URL": server.url, **bucket.environment("torture")}
            targets |= {"postgres": server.socket, "s3": int(bucket.endpoint.rpartition(":")[2])}
        proxies = Proxies(targets, folder / "proxy.log")
        stack.callback(proxies.close)
        direct |= {
            **SETTINGS,
            "REDIS_URL": f"redis://127.0.0.1:{valkey.port}/0",
            "GEMINI_API_KEY": fake.key,
            "GEMINI_BASE_URL": f"http://127.0.0.1:{proxies.ports['model']}",
        }
        proxied = direct | {"REDIS_URL": f"redis://127.0.0.1:{proxies.ports['redis']}/0", "TORTURE_WITHOUT": without}
        if server:
            proxied |= {
                "DATABASE_URL": server.url_by(proxies.ports["postgres"]),
                "S3_ENDPOINT_URL": f"http://127.0.0.1:{proxies.ports['s3']}",
            }
        settings = load_settings(direct)
        database = Database(settings.database_url)
        stack.callback(database.close)
        watch = rows.Watch(database, direct["REDIS_URL"], seed)
        fleet = Fleet(folder, proxied, NAMES[parts], on_held=watch.held)
        stack.callback(fleet.end)
        fleet.run("migrate")
        if without == "ledger":
            rows.drop_unique_keys(database)
        made = [
            json.loads(fleet.run("keys", "create", f"account-{n}", "--credits", str(CREDITS), "--json")) for n in range(ACCOUNTS)
        ]
        secrets = {
            each["account"]: json.loads(fleet.run("webhooks", "secret", "show", each["account"], "--json"))["secrets"]
            for each in made
        }
        fleet.start()
        watch.start()
        stack.callback(watch.close)
        fleet.wait_until_serving()
        yield House(
            fleet=fleet,
            model=Model(fake),
            receiver=receiver,
            proxies=proxies,
            valkey=valkey,
            postgres=server,
            database=database,
            scratch=open_scratch(settings),
            watch=watch,
            keys=[each["key"] for each in made],
            secrets=secrets,
            hook=f"http://127.0.0.1:{proxies.ports['receiver']}/hook",
            web=web,
        )
