"""What a process says when it starts: what it runs on, and if it can't work yet, what to do."""

from __future__ import annotations

import os
import threading
from importlib.metadata import version

import click
import structlog
from sqlalchemy import make_url

from cli.faults import said
from config.chosen_engine import model_of
from config.settings import Settings
from pipeline import sandbox
from pipeline.errors import PartError
from storage.database import open_database, schema_serves
from storage.redis.errors import redis_errors
from storage.redis.signals import connect

log = structlog.get_logger(__name__)

AS_USER = "Run it as a user that owns nothing but DATA_DIR, because root may read every file and process."
SANDBOX = "Pictures are decoded all the same. With Landlock (Linux 5.13) and seccomp, a decoder that a picture takes over holds nothing."
AGAIN_SECONDS = 30.0  #: between two looks at parts that are away
ANSWER_SECONDS = 5.0  #: for an answer of Redis


def say_start(settings: Settings, role: str) -> None:
    """Logs in one block what the process runs on. It names no key and no password."""
    engine, model, _ = model_of(settings)
    log.info(
        "process_starts",
        role=role,
        version=version("extract-image"),
        database=make_url(settings.database_url).render_as_string(hide_password=True),
        redis=settings.redis_url.rpartition("@")[2].partition("?")[0],
        scratch=settings.scratch_url,
        engine=engine,
        model=model,
    )


def refuse_root(settings: Settings) -> None:
    """Raises ClickException if the process runs as root with ENV=production, unless ALLOW_ROOT is set."""
    if os.geteuid() == 0 and settings.env == "production" and not settings.allow_root:
        raise click.ClickException(f"ENV=production does not run as root. {AS_USER} ALLOW_ROOT=1 allows it.")


def say_protection(settings: Settings, *, decodes: bool) -> None:
    """Logs a warning if the process runs as root, and one if it `decodes` pictures and this system has no complete sandbox.

    Raises as refuse_root.
    """
    refuse_root(settings)
    if os.geteuid() == 0:
        log.warning("runs_as_root", todo=AS_USER)
    if decodes and (lacks := sandbox.missing()):
        log.warning("sandbox_incomplete", lacks=lacks, todo=SANDBOX)


def say_what_is_missing(settings: Settings) -> None:
    """Looks in a thread whether the database and Redis can be used, and logs for each that can't what to do, in one line.

    The process starts all the same, and works as soon as the parts are there. The thread looks again until all are.
    """

    def look() -> None:
        while missing := _missing(settings):
            for text in missing:
                log.error("cannot_work_yet", todo=text)
            threading.Event().wait(AGAIN_SECONDS)

    threading.Thread(target=look, name="missing-parts", daemon=True).start()


def _missing(settings: Settings) -> list[str]:
    texts = []
    try:
        database = open_database(settings, "command")
        try:
            if not schema_serves(database):
                texts.append(
                    "The database's schema is older than this version. Run `extract-image migrate`; this process then goes on by itself."
                )
        finally:
            database.close()
    except PartError as error:
        texts.append(said(error, settings))
    except OSError as error:
        texts.append(f"DATA_DIR or DATABASE_URL can't be used: {error.strerror}.")
    try:
        with redis_errors(), connect(settings.redis_url, seconds=ANSWER_SECONDS) as client:
            client.ping()
    except PartError as error:
        texts.append(said(error, settings))
    return texts
