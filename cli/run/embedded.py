"""Runs a service on this machine for the time of a run, if none is configured. It is `extract-image serve` with a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.exits import CommandFault, Exit
from cli.lifeline import PARENT
from cli.ready import ready_url

if TYPE_CHECKING:
    from config.settings import Settings

START_SECONDS = 90
LOCK_SECONDS = 60  #: how long the service of a run that was killed may take to end
END_SECONDS = 40
OF_STATE = "state"  #: the file in the folder that names the state file
CREDITS = 1_000_000_000  #: the run's own account has no limit
#: Settings that would lead the service to other parts than its own. All other settings of the shell are used.
NOT_TAKEN = (
    *("DATABASE_URL", "REDIS_URL", "SCRATCH_URL", "S3_ENDPOINT_URL", "DATA_DIR", "HOST", "PORT", "ENV", "SECRET_KEY"),
    *("RESULT_TTL", "RATE_LIMIT", "MAX_OPEN_JOBS"),
)
OURS = {"HOST": "127.0.0.1", "PORT": "0", "RATE_LIMIT": "100000/minute", "RESULT_TTL": "604800"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reads:
    """What reads the pictures of an embedded service."""

    engine: str
    model: str
    follows_prompts: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """A service that runs."""

    url: str
    key: str


def settings_of(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment of the service."""
    left_out = {*NOT_TAKEN, *(f"{name}_FILE" for name in NOT_TAKEN)}
    kept = {name: value for name, value in environment.items() if name not in left_out}
    return {**kept, **OURS, "DATA_DIR": str(folder)}


def what_reads() -> Reads:
    """What the embedded service would read with, by the settings of the shell. Raises CommandFault if they are wrong."""
    from config.chosen_engine import kind_of, model_of

    settings = _settings(settings_of(os.environ, Path()))
    engine, model, _ = model_of(settings)
    return Reads(engine=engine, model=model, follows_prompts=kind_of(settings).follows_prompts)


@contextmanager
def embedded(folder: Path, *, state: Path | None = None) -> Iterator[Embedded]:
    """Starts the service on a free port, and ends it after the block. `folder` keeps its data, so that a later run goes on with it.

    `state`: the state file of the run, after whose end nobody needs the folder.
    """
    environment = settings_of(os.environ, folder)
    settings = _settings(environment)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _wait_for_lock(folder)
    if state:
        (folder / OF_STATE).write_text(str(state.absolute()))
    log = folder / "serve.log"
    # The service ends if this process is killed. It has a session of its own, so that Ctrl-C does not reach it.
    environment[PARENT] = str(os.getpid())
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.main", "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        url = ready_url(process, seconds=START_SECONDS)
        if not url:
            said = log.read_text(errors="replace")[-2000:]
            raise CommandFault(Exit.UNREACHABLE, f"The embedded service did not start; its log is {log}.\n{said}")
        yield Embedded(url=url, key=_new_key(settings))
    finally:
        process.terminate()
        try:
            process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def forget(folder: Path) -> None:
    """Deletes the data of an embedded service. Everything of it that the user needs is in the state file."""
    shutil.rmtree(folder, ignore_errors=True)


def _settings(environment: Mapping[str, str]) -> Settings:
    from config.settings import SettingsFault, load_settings

    try:
        return load_settings(environment)
    except SettingsFault as fault:
        raise CommandFault(Exit.USAGE, str(fault)) from None


def _new_key(settings: Settings) -> str:
    from cli.local_key import ready_key
    from storage.account.secret import secret_key
    from storage.database import open_database

    database = open_database(settings, "command")
    try:
        return ready_key(database, secret_key(settings), credits_=CREDITS)
    finally:
        database.close()


def _wait_for_lock(folder: Path) -> None:
    """Waits until no other service uses the folder. The one of a killed run needs a moment to end."""
    import fcntl

    deadline = time.monotonic() + LOCK_SECONDS
    with (folder / "serve.lock").open("w") as lock:
        while True:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if time.monotonic() > deadline:
                raise CommandFault(Exit.USAGE, f"Another run uses {folder}. Wait for it to end, or name another output file.")
            time.sleep(0.2)
