"""Starts all parts of the torture: the servers, the fakes, the proxies, the small disks and the service's processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from config.settings import load_settings
from storage.database import Database
from storage.scratch.open import open_scratch
from testbed import pictures, seaweedfs
from tests.fakes.gemini import FakeGemini
from tests.fakes.openai import FakeOpenAI
from tests.torture import rows
from tests.torture.disks import small_disk
from tests.torture.entry import OPENAI_MODEL
from tests.torture.faults import Faults
from tests.torture.fleet import Fleet, free_port
from tests.torture.load.bodies import OCR_MODEL
from tests.torture.load.client import Door
from tests.torture.load.misbehaving import Misbehaving
from tests.torture.locked import Locked
from tests.torture.migrating import kill_migration
from tests.torture.model import Model
from tests.torture.plan import Plan
from tests.torture.planned_faults import MIGRATION, Fault
from tests.torture.planned_jobs import ACCOUNTS
from tests.torture.receiver import Receiver
from tests.torture.revision import tree_of
from tests.torture.servers import Proxies, Valkey, postgres

CREDITS = 1_000_000
SETTINGS = {
    "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "ENGINE": "gemini",
    "MODELS": f"gemini-3.5-flash-lite; {OPENAI_MODEL}; {OCR_MODEL} pictures=1",
    "LEASE_SECONDS": "15",
    "STEP_SECONDS": "60",
    "IMAGES_PER_CALL": "8",  # makes more chunks, so that faults hit more of them
    "MERGED_PER_CALL": "20",
    "WORKER_CONCURRENCY": "24",
    "MAX_WAITERS": "200",  # few, so that an account's share matters
    "CACHE_TTL": "3600",
    "RATE_LIMIT": "100000/minute",
    "FETCH_ALLOW": "127.0.0.1/32:*",
    "WEBHOOK_ALLOW": "127.0.0.1/32:*",
    "WEBHOOK_SCHEDULE": "1,2,4,8,8,8,8,8,8,8,8,8",
}
NAMES = {
    "postgres": ("web-1", "web-2", "worker-1", "worker-2", "supervisor-1", "supervisor-2"),
    "sqlite": ("web-1", "worker-1", "worker-2", "supervisor-1"),
}
DISK_MB = {"database": 400, "scratch": 400, "tmp": 64}

Say = Callable[[str], None]


class Processes(Protocol):
    """The service's processes."""

    stops: list[dict[str, Any]]  #: see checker/record.py
    deaths: list[dict[str, Any]]


class Injected(Protocol):
    """The faults of a plan."""

    done: list[dict[str, Any]]  #: see checker/record.py

    def start(self, faults: tuple[Fault, ...]) -> None: ...
    def wait(self, seconds: float) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """All running parts of the torture."""

    fleet: Processes
    doors: list[Door]  #: where the client sends its requests
    faults: Injected
    attack: Misbehaving | None
    model: Model
    receiver: Receiver
    database: Database  #: the torture's own connection, without a proxy
    scratch: Any
    redis_url: str  #: without a proxy
    watch: rows.Watch
    locked: Locked | None  #: when SQLite's write lock was held for long; None for Postgres, whose server frees locks
    keys: list[str]
    attacker: str  #: the account that misbehaves, "" if there is none
    accounts: list[str]
    secrets: dict[str, list[str]]
    hook: str
    web: Any
    before: list[dict[str, Any]]  #: the faults that happened before the service started


@contextmanager
def house(
    folder: Path, plan: Plan, *, seed: int, parts: str, without: str, small_disks: bool, beside: str, say: Say
) -> Iterator[House]:
    with ExitStack() as stack:
        say("starting")
        fake = stack.enter_context(FakeGemini(blocked=plan.blocked))
        other = stack.enter_context(FakeOpenAI(models=[OPENAI_MODEL]))
        web = stack.enter_context(pictures())
        receiver = Receiver()
        stack.callback(receiver.close)
        valkey = Valkey(folder / "valkey", free_port())
        stack.callback(valkey.kill)
        valkey.start()
        disks = _disks(stack, folder, parts) if small_disks else {}
        targets: dict[str, int | str] = {
            "redis": valkey.port,
            "model": _port(fake.base_url),
            "openai": _port(other.base_url.removesuffix("/v1")),
        }
        database, scratch = disks.get("database", folder / "db"), disks.get("scratch", folder / "scratch")
        direct = {"DATABASE_URL": f"sqlite:///{database / 'torture.db'}", "SCRATCH_URL": f"file:{scratch / 'objects'}"}
        server = None
        if parts == "postgres":
            server = stack.enter_context(postgres())
            if "database" in disks:
                server.move_to(disks["database"])
            bucket = stack.enter_context(seaweedfs(folder / "s3"))
            direct = {"ENV": "production", "ALLOW_ROOT": "1", "DATABASE_URL": server.url, **bucket.environment("torture")}
            targets |= {"postgres": server.socket, "s3": _port(bucket.endpoint)}
        names = NAMES[parts]
        proxies = Proxies(
            {f"{name}/{part}": target for name in (*names, "cli") for part, target in targets.items()}
            | {"hook/receiver": receiver.server_port},
            folder / "proxy.log",
        )
        stack.callback(proxies.close)
        redis_url = f"redis://127.0.0.1:{valkey.port}/0"
        direct |= {**SETTINGS, "REDIS_URL": redis_url, "GEMINI_API_KEY": fake.key, "OPENAI_API_KEY": other.key}

        def settings_of(name: str) -> dict[str, str]:
            own = {part: proxies.ports[f"{name}/{part}"] for part in targets}
            given = direct | {
                "REDIS_URL": f"redis://127.0.0.1:{own['redis']}/0",
                "GEMINI_BASE_URL": f"http://127.0.0.1:{own['model']}",
                "OPENAI_BASE_URL": f"http://127.0.0.1:{own['openai']}/v1",
                "TORTURE_WITHOUT": without,
            }
            if server:
                given["DATABASE_URL"] = server.url_by(own["postgres"])
                given["S3_ENDPOINT_URL"] = f"http://127.0.0.1:{own['s3']}"
            return given | ({"TMPDIR": str(disks["tmp"])} if "tmp" in disks else {})

        settings = load_settings(direct)
        own = Database(settings.database_url)
        stack.callback(own.close)
        watch = rows.Watch(own, redis_url, seed, lease_seconds=settings.lease_seconds)
        trees = (
            dict.fromkeys((name for name in names if name.endswith("-2")), stack.enter_context(tree_of(beside))) if beside else {}
        )
        fleet = Fleet(folder, settings_of, names, on_held=watch.held, trees=trees)
        stack.callback(fleet.end)
        before = []
        if server and MIGRATION in plan.kinds:
            before.append(kill_migration(fleet, server, proxies))
        fleet.run("migrate")
        if without == "ledger":
            rows.drop_unique_keys(own)
        made = [
            json.loads(fleet.run("keys", "create", f"account-{n}", "--credits", str(CREDITS), "--json"))
            for n in range(ACCOUNTS + 1)
        ]
        secrets = {
            each["account"]: json.loads(fleet.run("webhooks", "secret", "show", each["account"], "--json"))["secrets"]
            for each in made[:ACCOUNTS]
        }
        fleet.start()
        watch.start()
        stack.callback(watch.close)
        locked = None if server else Locked(Path(settings.database_url.removeprefix("sqlite:///")))
        if locked:
            locked.start()
            stack.callback(locked.close)
        fleet.wait_until_serving()
        model = Model(fake, other)
        yield House(
            fleet=fleet,
            doors=[("127.0.0.1", port) for port in fleet.ports.values()],
            faults=Faults(
                fleet=fleet, model=model, receiver=receiver, proxies=proxies, valkey=valkey, postgres=server, disks=disks
            ),
            attack=Misbehaving(ports=list(fleet.ports.values()), key=made[ACCOUNTS]["key"], web=web),
            model=model,
            receiver=receiver,
            database=own,
            scratch=open_scratch(settings),
            redis_url=redis_url,
            watch=watch,
            locked=locked,
            keys=[each["key"] for each in made[:ACCOUNTS]],
            attacker=made[ACCOUNTS]["account"],
            accounts=[each["account"] for each in made],
            secrets=secrets,
            hook=f"http://127.0.0.1:{proxies.ports['hook/receiver']}/hook",
            web=web,
            before=before,
        )


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _disks(stack: ExitStack, folder: Path, parts: str) -> dict[str, Path]:
    wanted = ("database", "tmp") if parts == "postgres" else ("database", "scratch")
    return {name: stack.enter_context(small_disk(folder / f"disk-{name}", DISK_MB[name])) for name in wanted}
