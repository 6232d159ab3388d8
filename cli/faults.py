"""Says in a line or two, instead of a traceback, why a command can't be run and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from redis.exceptions import RedisError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from config.settings import Settings
from pipeline.errors import PartError

LONGEST = 300  #: characters of what the part itself said
_NOT_MIGRATED = re.compile(r"no such (?:table|column)|(?:relation|column) .* does not exist", re.IGNORECASE)


def told(error: Exception) -> str | None:
    """What to say instead of a traceback. None: the error is a fault of the code."""
    if isinstance(error, PartError):
        return said(error)
    if isinstance(error, ArgumentError):
        return "DATABASE_URL is no URL that can be used. See docs/reference/settings.md."
    if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
        return f"Can't use {error.filename}: {error.strerror}. If it is a file of the service, look at DATA_DIR and DATABASE_URL."
    return None


def said(error: PartError, settings: Settings | None = None) -> str:
    """What is away, what it said, and what to do. Passwords are left out."""
    text = _one_line(str(error), settings)
    causes = list(_causes(error))
    if any(isinstance(cause, SQLAlchemyError) for cause in causes):
        where = _place(settings.database_url) if settings else ""
        if _NOT_MIGRATED.search(text):
            return f"The database{where} does not have the tables of this version: {text}\nRun `extract-image migrate`."
        return (
            f"The database{where} can't be used: {text}\n"
            "Check DATABASE_URL, and that its server runs and can be reached from here; `extract-image doctor` looks at each part."
        )
    if any(isinstance(cause, RedisError) for cause in causes):
        return (
            f"Redis can't be used: {text}\n"
            "Check REDIS_URL, and that its server runs and can be reached from here; `extract-image doctor` looks at each part."
        )
    return f"A part of the service can't be used: {text}\n`extract-image doctor` looks at each part."


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _place(database_url: str) -> str:
    with suppress(ArgumentError):
        url = make_url(database_url)
        if url.host:
            return f" at {url.host}{f':{url.port}' if url.port else ''}"
    return ""


def _one_line(text: str, settings: Settings | None) -> str:
    text = " ".join(text.partition("(Background on this error")[0].split())
    for url in (settings.database_url, settings.redis_url) if settings else ():
        with suppress(ValueError):
            password = urlsplit(url).password or ""
            for secret in {password, unquote(password)} - {""}:
                text = text.replace(secret, "***")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
