"""`extract-image doctor`: checks each part that the service needs, and says how to fix each fault."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr
from redis.exceptions import NoPermissionError, ResponseError
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from sqlalchemy import select

from cli.local_servers import local_servers
from cli.starting import AS_USER, SANDBOX
from config.chosen_engine import engine_config, kind_of
from config.roles import WITHOUT
from config.settings import Settings, SettingsFault, load_settings
from pipeline import sandbox
from pipeline.errors import PartError
from pipeline.ports import ProbeFailed, Scratch
from pipeline.types import MB
from storage.database import now_ms, open_database, schema_is_current, schema_serves
from storage.redis.signals import connect
from storage.scratch.open import open_scratch
from workers.alive import LATE_SECONDS, silent_for

CHECK_SECONDS = 5.0
CLOCK_SECONDS = 2.0  #: the largest difference of two clocks that is healthy; clocks set by NTP differ by much less
LONGEST_TEXT = 300
SHORTEST_SECRET = 4  #: characters; a shorter secret is not replaced by stars, because that would only make words unreadable


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    state: Literal["ok", "warning", "fault", "skipped"]  #: `warning`: works, but less safely than it could
    found: str
    todo: str = ""  #: how to fix the fault; empty if there is nothing to do


class Trouble(Exception):
    """A check found a fault. The message says what was found."""

    def __init__(self, found: str, todo: str) -> None:
        super().__init__(found)
        self.todo = todo


class Doubt(Trouble):
    """A check found something that works, but less safely than it could."""


def doctor(environ: Mapping[str, str], *, only: Iterable[str] = (), as_json: bool, seconds: float = CHECK_SECONDS) -> int:
    """Prints the result of each check. Returns the exit code. Raises ValueError if `only` has an unknown name."""
    findings = examine(environ, only=only, seconds=seconds)
    healthy = all(finding.state in {"ok", "warning"} for finding in findings)
    if as_json:
        print(json.dumps({"ok": healthy, "checks": [asdict(finding) for finding in findings]}))
    else:
        _print_table(findings)
    return 0 if healthy else 1


def examine(
    environ: Mapping[str, str],
    *,
    only: Iterable[str] = (),
    seconds: float = CHECK_SECONDS,
    now: Callable[[], float] = time.time,
) -> list[Finding]:
    """Checks the settings, then runs each check (or those of `only`) in its own thread. A check is given up after `seconds`."""
    names = list(only) or [name for name in CHECKS if name not in PROCESSES]
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise ValueError(f"There is no check {unknown[0]}. The checks are {', '.join(CHECKS)}.")
    try:
        settings = load_settings(environ, without=WITHOUT["worker" if "engine" in names else "supervisor"])
    except SettingsFault as fault:
        faults = "\n".join(line.strip() for line in str(fault).splitlines()[1:])
        skipped = [Finding(check=name, state="skipped", found="not checked: a setting is wrong") for name in names]
        todo = "Correct the settings named here. docs/reference/settings.md lists every setting."
        return [Finding(check="settings", state="fault", found=faults, todo=todo), *skipped]
    if "engine" in names:
        kind_of(settings).load()  # load it before the clock starts, because that takes seconds on a busy machine
    running = [_Running(name, settings, now) for name in names]
    deadline = time.monotonic() + seconds
    found = f"ENV={settings.env}, ENGINE={settings.engine}"
    return [Finding(check="settings", state="ok", found=found), *(check.finding(deadline, seconds) for check in running)]


class _Running:
    """A check that has been started."""

    def __init__(self, name: str, settings: Settings, now: Callable[[], float]) -> None:
        self._name = name
        self._settings = settings
        self._now = now
        self._finding: Finding | None = None
        self._thread = threading.Thread(target=self._run, name=f"doctor-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        check, todo = CHECKS[self._name]
        try:
            self._finding = Finding(check=self._name, state="ok", found=check(self._settings, self._now))
        except Doubt as doubt:
            self._finding = Finding(check=self._name, state="warning", found=str(doubt), todo=doubt.todo)
        except Trouble as trouble:
            self._finding = self._fault(str(trouble), trouble.todo)
        except Exception as error:  # noqa: BLE001 - an error in one check must not stop the others
            self._finding = self._fault(f"{type(error).__name__}: {error}", todo)

    def finding(self, deadline: float, seconds: float) -> Finding:
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        return self._finding or self._fault(f"no answer within {seconds:g} s", CHECKS[self._name][1])

    def _fault(self, found: str, todo: str) -> Finding:
        return Finding(check=self._name, state="fault", found=_without_secrets(found, self._settings), todo=todo)


def _database(settings: Settings, _now: Callable[[], float]) -> str:
    with closing(open_database(settings, "command")) as database:
        if not schema_serves(database):
            raise Trouble("reachable, but its schema is older than this version", "Run `extract-image migrate`.")
        if not schema_is_current(database):
            return "reachable, its schema is a newer version's, which serves this one too"
    return "reachable, its schema is this version's"


def _clock(settings: Settings, now: Callable[[], float]) -> str:
    try:
        with closing(open_database(settings, "command")) as database, database.read() as connection:
            before = now()
            theirs = float(connection.scalar(select(now_ms())) or 0) / 1000
            ahead = (before + now()) / 2 - theirs
    except PartError:
        raise Trouble("not compared: the database can't be asked", CHECKS["clock"][1]) from None
    text = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the database's"
    if abs(ahead) > CLOCK_SECONDS:
        raise Trouble(text, "Use NTP on this machine and on the database's, because S3 refuses signatures with a wrong time.")
    return text


def _redis(settings: Settings, _now: Callable[[], float]) -> str:
    if settings.redis_url == "embedded:":
        return "embedded: `extract-image serve` starts it"
    with connect(settings.redis_url) as client:
        client.ping()
        try:
            answer = client.config_get("maxmemory-policy")
        except (NoPermissionError, ResponseError):
            return "reachable; its maxmemory-policy can't be asked for"
    policy = "".join(value.decode() if isinstance(value, bytes) else str(value) for value in dict(answer).values())
    if policy != "noeviction":
        raise Trouble(
            f"reachable, but its maxmemory-policy is {policy}",
            "Set maxmemory-policy noeviction, because other policies may drop messages.",
        )
    return "reachable, maxmemory-policy noeviction"


def _scratch(settings: Settings, _now: Callable[[], float]) -> str:
    scratch = open_scratch(settings)
    folder = f"doctor_{secrets.token_hex(8)}"
    first, *others = (f"{folder}/{number}" for number in range(3))
    try:
        _try_scratch(scratch, folder, first, others)
    finally:
        with suppress(PartError):  # the supervisor sweeps what is left
            scratch.delete([first, *others])
    return "put, get, list, delete and bulk delete work"


def _try_scratch(scratch: Scratch, folder: str, first: str, others: list[str]) -> None:
    body = secrets.token_bytes(1024)
    for key in (first, *others):
        scratch.put(key, BytesIO(body))
    with scratch.open(first) as file:
        _expect(file.read() == body, "get returns other bytes than put stored")
    _expect(sorted(scratch.list(f"{folder}/")) == [first, *others], "list does not return the stored keys")
    scratch.delete([first])
    _expect(sorted(scratch.list(f"{folder}/")) == others, "delete leaves the object")
    scratch.delete(others)
    _expect(not list(scratch.list(f"{folder}/")), "bulk delete leaves objects")


def _expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise Trouble(otherwise, "Use another store, because this one is not consistent.")


def _engine(settings: Settings, _now: Callable[[], float]) -> str:
    try:
        found = kind_of(settings).load().probe(engine_config(settings), CHECK_SECONDS)
        if kind_of(settings).follows_prompts:
            return found
        return " ".join([f"{found}.", *(server.advice for server in local_servers(without={settings.port}))])
    except ProbeFailed as failed:
        raise Trouble(str(failed), failed.todo) from None


def _disk(settings: Settings, _now: Callable[[], float]) -> str:
    folder = tempfile.gettempdir()
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    from api.wiring import LARGE_PLACES, room_of

    bodies = room_of(settings).arriving // LARGE_PLACES  # as many large bodies may arrive at once
    free, needed = shutil.disk_usage(folder).free, bodies * settings.max_body
    text = f"{free // MB} MB free in {folder}"
    if free < needed:
        todo = (
            f"Free some space, or set TMPDIR to a folder with {needed // MB} MB: {bodies} bodies of MAX_BODY may arrive at once."
        )
        raise Trouble(text, todo)
    return text


def _user(settings: Settings, _now: Callable[[], float]) -> str:
    if os.geteuid() != 0:
        return "not root"
    if settings.env == "production" and not settings.allow_root:
        raise Trouble("root, and ENV=production does not run as root", f"{AS_USER} ALLOW_ROOT=1 allows it.")
    raise Doubt("root", AS_USER)


def _sandbox(_settings: Settings, _now: Callable[[], float]) -> str:
    if lacks := sandbox.missing():
        raise Doubt(f"incomplete: this system lacks {lacks}", SANDBOX)
    return "decoders and the OCR can open no file, socket or process"


def _worker(settings: Settings, _now: Callable[[], float]) -> str:
    return _alive(settings, "worker")


def _supervisor(settings: Settings, _now: Callable[[], float]) -> str:
    return _alive(settings, "supervisor")


def _alive(settings: Settings, role: str) -> str:
    silent = silent_for(settings.data_dir, role)
    if silent is None:
        raise Trouble(f"no {role} has run with DATA_DIR {settings.data_dir}", f"Start one: `extract-image {role}`.")
    if silent > LATE_SECONDS:
        raise Trouble(f"silent for {silent:.0f} s", f"Read the log of the {role}, and run the checks database and redis.")
    return "runs, and takes steps" if role == "worker" else "runs, and looks after the queue"


#: Checks that run only if they are named, because each process runs on one of several machines or containers.
PROCESSES = ("worker", "supervisor")

#: name → the check, and how to fix a failure for which the check itself says nothing
CHECKS: dict[str, tuple[Callable[[Settings, Callable[[], float]], str], str]] = {
    "database": (_database, "Look at DATABASE_URL. Check that the server runs and that this machine can reach it."),
    "clock": (_clock, "Repair the database first: see the check `database`."),
    "redis": (_redis, "Look at REDIS_URL. Check that the server runs and that this machine can reach it."),
    "scratch": (_scratch, "Look at SCRATCH_URL, S3_ENDPOINT_URL and the key. Check that the bucket exists."),
    "engine": (_engine, "Look at MODEL, the engine's key and its base URL. Check that this machine can reach the engine."),
    "disk": (_disk, "Set TMPDIR to a folder that you can write to."),
    "user": (_user, AS_USER),
    "sandbox": (_sandbox, SANDBOX),
    "worker": (_worker, "Set DATA_DIR to the same folder as the worker's."),
    "supervisor": (_supervisor, "Set DATA_DIR to the same folder as the supervisor's."),
}


def _without_secrets(text: str, settings: Settings) -> str:
    """The text as one line, shortened, with stars in place of secrets."""
    text = text.partition("(Background on this error")[0]
    hidden = {
        value.get_secret_value() for name, value in settings if isinstance(value, SecretStr) and name != "aws_access_key_id"
    }
    for url in (settings.database_url, settings.redis_url):
        with suppress(ValueError):
            password = urlsplit(url).password or ""
            hidden |= {url, password, unquote(password)}
    for secret in sorted(hidden, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def _print_table(findings: list[Finding]) -> None:
    colours = {"ok": "green", "warning": "yellow", "fault": "red", "skipped": "yellow"}
    # Fold the columns if the terminal is narrow, because a URL that is cut off helps nobody.
    found, todo = Column("found", overflow="fold"), Column("what to do", overflow="fold")
    table = Table("check", "state", found, todo)
    for finding in findings:
        state = f"[{colours[finding.state]}]{finding.state}[/]"
        table.add_row(finding.check, state, escape(finding.found), escape(finding.todo))
    Console().print(table)
