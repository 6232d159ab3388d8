"""`extract-image serve`: runs web, worker, supervisor and the embedded parts with one command."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import IO

import click
import structlog
from sqlalchemy import make_url

from api.examples import FOLDER
from cli.keeper import Kept, State, Stop
from cli.lifeline import PARENT
from cli.local_key import ready_key
from cli.local_servers import local_servers
from cli.logs import logs_are_json
from cli.starting import say_protection
from config.chosen_engine import kind_of, model_of
from config.roles import Role, names_not_for
from config.settings import Settings
from pipeline.errors import PartError
from storage.account.secret import secret_key
from storage.database import migrate, open_database
from storage.redis.embedded import EmbeddedRedis

log = structlog.get_logger(__name__)

#: The command of a child. -P keeps Python from importing modules of the same names from the working directory.
COMMAND = (sys.executable, "-P", "-m", "cli.main")

EXAMPLE = "examples/01-till-receipt.png"  #: in a checkout
ROLES: tuple[Role, ...] = ("web", "worker", "supervisor")
ENGINE_SECONDS = 6.0  #: for the check of the engine's key and model; then serve says that it is ready without it


def serve(settings: Settings, *, with_key: bool, announce: IO[str] | None, may_exec: bool = True) -> int:
    """Runs until SIGINT or SIGTERM. Returns the exit code. When ready, it writes what it uses to `announce`.

    With `may_exec`, it goes on in cli/keeper.py then, and does not return.
    """
    with ExitStack() as stack:
        lock = stack.enter_context(_only_one(settings.data_dir))
        listener = stack.enter_context(_listen(settings.host, settings.port))
        host, port = listener.getsockname()[:2]
        database = open_database(settings, "command")
        try:
            migrate(database)
        except PartError as error:
            raise click.ClickException(f"Can't use the database that DATABASE_URL or DATA_DIR names: {error}") from None
        secret_key(settings)
        say_protection(settings, decodes=True)
        notes: list[str] = []
        looking = threading.Thread(target=lambda: notes.extend(_look_around(settings, port)), name="look-around", daemon=True)
        looking.start()
        # The engine is named, because a child that does not get its key could not choose it.
        environment = {**os.environ, PARENT: str(os.getpid()), "ENGINE": settings.engine}
        redis: EmbeddedRedis | None = None
        if settings.redis_url == "embedded:":
            try:
                redis = stack.enter_context(EmbeddedRedis(settings.data_dir / "redis"))
            except (RuntimeError, PermissionError) as error:
                raise click.ClickException(str(error)) from None
            environment["REDIS_URL"] = redis.url
        pictures = ""
        key: str | None = None
        if with_key:
            key = ready_key(database, secret_key(settings), settings.data_dir / "ready_key")
            pictures = _open_examples(environment, host, port)
        database.close()
        # Set the signal handlers before the children start, so that no signal is lost.
        stop = Stop()
        children = [child_of(role, environment, listener, pictures) for role in ROLES]
        state = State([*children, *([_kept_redis(redis)] if redis else [])], "json" if logs_are_json(settings) else "text")
        stack.callback(state.end, stop)
        for child in children:
            child.start()
        _wait_ready(f"http://{host}:{port}", children, stop)
        if not stop.received and announce:
            looking.join(ENGINE_SECONDS)
            _say(settings, f"http://{_display_host(host)}:{port}", key, announce, notes)
        if may_exec:
            state.become_small(stop, [lock])
        return state.watch(stop)


@contextmanager
def _only_one(directory: Path) -> Iterator[int]:
    """Locks DATA_DIR, because a second `serve` on it would use the same embedded parts. Yields the descriptor of the lock."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "serve.lock").open("w")
    except OSError as error:
        text = (
            f"Can't write to DATA_DIR {directory.absolute()}: {error.strerror}. Set DATA_DIR to a folder that you can write to."
        )
        raise click.ClickException(text) from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = f"Another `extract-image serve` uses {directory.resolve()}. End it, or set DATA_DIR to another folder."
            raise click.ClickException(text) from None
        yield file.fileno()


def _listen(host: str, port: int) -> socket.socket:
    """Binds the socket here, so that a taken port is reported at once and a restart of the web process loses no connection."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        raise click.ClickException(f"Can't listen on {host}:{port}: {error.strerror or error}. Change HOST or PORT.") from None
    return listener


def _open_examples(environment: dict[str, str], host: str, port: int) -> str:
    """Lets the workers fetch `examples/` from this service, and no other address of this machine. Returns the folder's address.

    It is empty if the service does not listen on loopback, or is installed without the folder.
    """
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    if not ip_address(loopback).is_loopback or not FOLDER.is_dir():
        return ""
    network = f"[{loopback}/128]" if ":" in loopback else f"{loopback}/32"
    given = environment.get("FETCH_ALLOW", "").strip()
    environment["FETCH_ALLOW"] = f"{given},{network}:{port}/examples/".lstrip(",")
    return f"http://{_display_host(loopback)}:{port}/examples"


def child_of(role: Role, environment: Mapping[str, str], listener: socket.socket, pictures: str) -> Kept:
    """A child process, which is given only the secrets that it needs of `environment`.

    `pictures`: the address at which the web process serves `examples/`; empty: it does not.
    """
    command = [*COMMAND, role]
    descriptor = -1
    if role == "web":
        descriptor = listener.fileno()
        command += ["--fd", str(descriptor), "--examples", pictures]
    unneeded = names_not_for(role)
    return Kept(
        role,
        _encoded(command),
        _encoded_environment({n: value for n, value in environment.items() if n not in unneeded}),
        descriptor,
    )


def _kept_redis(redis: EmbeddedRedis) -> Kept:
    running = redis.hand_over()
    kept = Kept("redis", _encoded(running.command), _encoded_environment(running.environment), lifeline=True)
    kept.pid, kept.started, kept.pipe = running.pid, running.started, running.pipe
    return kept


def _encoded(command: Iterable[str]) -> list[bytes]:
    return [os.fsencode(word) for word in command]


def _encoded_environment(environment: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}


def _wait_ready(url: str, children: Sequence[Kept], stop: Stop) -> None:
    """Waits until the web process answers. Raises ClickException if a process ends before that."""
    host, port = url.removeprefix("http://").rsplit(":", 1)
    while not stop.received:
        for child in children:
            if child.poll() is not None:
                raise click.ClickException(f"The {child.role} process ended with code {child.code}; its log is above.")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=1) as connection:
                connection.sendall(b"GET /api/v1/extract-image HTTP/1.0\r\n\r\n")
                if connection.recv(12).startswith(b"HTTP/1."):
                    return
        except OSError:
            pass
        time.sleep(0.05)


def _display_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _look_around(settings: Settings, port: int) -> list[str]:
    """What serve says about the engine: whether it can be used, and if it follows no prompts, which local servers would.

    A process of its own asks the engine's server, because the package of a vendor takes long to import.
    """
    # Only the main thread receives signals, because an exec would lose those that another thread has received.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    if not kind_of(settings).follows_prompts:
        return [server.advice for server in local_servers(without={port, settings.port})]
    command = [*COMMAND, "doctor", "--only", "engine", "--json"]
    try:
        said = subprocess.run(command, capture_output=True, timeout=3 * ENGINE_SECONDS, check=False, stdin=subprocess.DEVNULL)
        [check] = [check for check in json.loads(said.stdout)["checks"] if check["check"] == "engine"]
        fault = check["state"] == "fault"
        return [f"the engine can't be used now: {check['found']}. {check['todo']}" if fault else check["found"]]
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError):
        return []  # the worker's log says it too


def _say(settings: Settings, url: str, key: str | None, out: IO[str], notes: Sequence[str] = ()) -> None:
    """Writes one readable block that says what the service uses and how to use the service."""
    engine, model, warnings = model_of(settings)
    redis = "embedded Valkey" if settings.redis_url == "embedded:" else "REDIS_URL"
    lines = [
        "",
        f"extract-image is ready at {url}",
        f"  engine    {engine} ({model})",
        f"  database  {make_url(settings.database_url).render_as_string()}",
        f"  scratch   {settings.scratch_url}",
        f"  queue     {redis}, {settings.worker_concurrency} worker threads",
        *(f"  note      {note}" for note in (*warnings, *notes)),
    ]
    if key:
        lines += [
            "",
            f"  key       {key}",
            "",
            "Open the console, signed in:",
            "",
            f"  {console_link(url, key)}",
            "",
            "Try it:",
            "",
            f"  {curl_line(url, key, EXAMPLE if FOLDER.is_dir() else 'picture.jpg')}",
        ]
    else:
        lines += ["  keys      extract-image keys create NAME --credits N"]
    lines += ["", "Ctrl-C ends it.", ""]
    try:
        out.write("\n".join(lines) + "\n")
        out.flush()
    except OSError as error:  # the reader is gone, which must not end the service
        log.warning("not_announced", reason=repr(error))
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # so that writing the rest of the buffer can't fail


def console_link(url: str, key: str) -> str:
    """The console's address with the key in its fragment, which a browser sends to no server. The page takes it out of the address."""
    return f"{_this_machine(url)}/console#key={key}"


def _this_machine(url: str) -> str:
    """An address that a browser can open: one that means every address of this machine becomes its loopback."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def curl_line(url: str, key: str, picture: str = EXAMPLE) -> str:
    """A curl command that sends a picture when it is pasted into a shell in the picture's folder."""
    body = '{"inputMethod":"base64","images":["%s"],"prompt":"What was bought, and for how much?"}'
    return (
        f"printf {shlex.quote(body)} \"$(base64 < {picture} | tr -d '\\n')\" | curl -s {url}/api/v1/extract-image "
        f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d @-"
    )
