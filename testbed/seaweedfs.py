"""A real SeaweedFS server from a wheel, with an empty bucket. Each test session starts its own server."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings, load_settings
from storage.scratch.s3 import s3_client

START_SECONDS = 60.0
END_SECONDS = 20.0
READY = "ready to use"  #: part of the line that SeaweedFS logs once it has started
STARTS = 3  #: attempts to start; another process may take a free port before SeaweedFS binds it
#: These ports are below those that Linux uses for outgoing connections, so no such connection can take one.
PORTS = range(12_000, 22_000)
ADMIN_GRPC = 10_000  #: SeaweedFS's worker always expects admin's gRPC port this much above admin's port
#: SeaweedFS always opens these sockets beside its gRPC ports. Their folder is the same for all users, whatever TMPDIR is.
GRPC_SOCKETS = "/tmp/seaweedfs-{role}-grpc-{port}.sock"
ROLES = ("admin", "filer", "master", "s3", "volume")
LISTENERS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Server:
    """A running S3 server with a bucket."""

    endpoint: str
    key_id: str
    secret: str
    bucket: str

    def environment(self, prefix: str = "") -> dict[str, str]:
        """The settings for a service that uses this server for scratch."""
        return {
            "SCRATCH_URL": f"s3://{self.bucket}/{prefix}",
            "S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
        }

    def settings(self, prefix: str = "", **changed: str) -> Settings:
        return load_settings({**self.environment(prefix), **changed})


@contextmanager
def seaweedfs(folder: Path, *, bucket: str = "scratch") -> Iterator[S3Server]:
    """Starts SeaweedFS on loopback. Its data and its log, `weed.log`, are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in reversed(range(STARTS)):
        with contextlib.ExitStack() as stack:
            try:
                server = stack.enter_context(_weed(folder, bucket))
            except RuntimeError:
                if not left:
                    raise
                continue
            yield server
            return


@contextmanager
def _weed(folder: Path, bucket: str) -> Iterator[S3Server]:
    admin, s3, *others = _free_ports(len(LISTENERS) + 2, beside=ADMIN_GRPC)
    data = Path(tempfile.mkdtemp(prefix="data-", dir=folder))
    server = S3Server(
        endpoint=f"http://127.0.0.1:{s3}", key_id=secrets.token_hex(10), secret=secrets.token_urlsafe(30), bucket=bucket
    )
    # The paths of sockets must be short, so they are not below `folder`.
    sockets = Path(tempfile.mkdtemp(prefix="weed-"))
    options = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "bucket": bucket,
        "s3.port": s3,
        "s3.localSocket": sockets / "s3.sock",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",
        "filer.localSocket": sockets / "filer.sock",
        "admin.ui": "false",
        "admin.port": admin,
        "admin.port.grpc": admin + ADMIN_GRPC,
        "webdav": "false",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.preStopSeconds": 0,
        **dict(zip(LISTENERS, others, strict=True)),
    }
    weed = Path(sys.executable).with_name("weed")
    command = [weed, f"-logdir={data}", "mini", *(f"-{name}={value}" for name, value in options.items())]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(data),
        "TMPDIR": str(sockets),
        "AWS_ACCESS_KEY_ID": server.key_id,
        "AWS_SECRET_ACCESS_KEY": server.secret,
    }
    log = folder / "weed.log"
    # SeaweedFS ends when the shell's standard input closes. That happens when this process ends, even if it is killed.
    script = 'exec 3<&0; "$@" </dev/null 3<&- & weed=$!; (cat <&3; kill -TERM $weed) >/dev/null 2>&1 & wait $weed'
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["/bin/sh", "-c", script, "weed", *command],
            cwd=data,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        _wait_for_s3(server, process, log)
        yield server
    finally:
        try:
            process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(sockets, ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)
        for left in _grpc_sockets(admin + ADMIN_GRPC, *others):  # a SeaweedFS that was killed has left them
            left.unlink(missing_ok=True)


def _wait_for_s3(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until SeaweedFS logs that it is ready and accepts an object.

    It sends nothing before the log line, because another process may have the port.
    """
    deadline = time.monotonic() + START_SECONDS
    client = s3_client(server.settings())
    try:
        while True:
            said = log.read_text(errors="replace")
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"SeaweedFS did not start:\n{said[-2000:]}")
            if READY in said:
                with contextlib.suppress(client.exceptions.ClientError):
                    client.put_object(Bucket=server.bucket, Key="ready", Body=b"x")
                    client.delete_object(Bucket=server.bucket, Key="ready")
                    return
            time.sleep(0.05)
    finally:
        client.close()


def _grpc_sockets(*ports: int) -> Iterator[Path]:
    for port in ports:
        for role in ROLES:
            yield Path(GRPC_SOCKETS.format(role=role, port=port))


def _free_ports(count: int, *, beside: int, ports: Sequence[int] = PORTS) -> list[int]:
    """Finds `count` free ports. The port that is `beside` above the first one is free too.

    A port with a socket in `GRPC_SOCKETS` is not free, because SeaweedFS can not replace the socket of another user.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.SystemRandom().sample(ports, len(ports)):
            wanted = [port] if found else [port, port + beside]
            if any(left.exists() for left in _grpc_sockets(*wanted)):
                continue
            try:
                for each in wanted:
                    stack.enter_context(socket.create_server(("127.0.0.1", each)))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("too few free ports")
