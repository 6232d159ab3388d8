"""Makes the API key that `serve --ready-key` prints when the service is ready, and keeps it for the next start."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection

from storage.account import accounts, ledger
from storage.database import Database

NAME = "serve --ready-key"  #: the name of the account and its key; unlikely for a user to choose, because the old key is revoked
CREDITS = 100_000  #: the account is topped up to this many credits at each start


def ready_key(database: Database, secret_key: bytes, kept: Path | None = None, *, credits_: int = CREDITS) -> str:
    """The key of a separate account with at least `credits_` credits.

    `kept`: the file that keeps the key between starts. If its key is not valid any more, because it was revoked or because the
    database or SECRET_KEY is another one, it is replaced by a new key. Without a file the key is always new. A new key revokes the
    one before. Raises OSError if the file cannot be written.
    """
    before = _read(kept) if kept else ""
    with database.write() as connection:
        account = _account(connection)
        missing = credits_ - accounts.available_credits(connection, account)
        if missing > 0:
            ledger.grant(connection, account, missing)
        if before and accounts.account_of(connection, before, secret_key) == account:
            return before
        with suppress(accounts.UnknownAccount):
            accounts.revoke_key(connection, NAME)
        key = accounts.create_key(connection, account=account, name=NAME, secret_key=secret_key)
        if kept:
            _write(kept, key)  # before the commit: if the file cannot be written, the old key stays valid
    return key


def _account(connection: Connection) -> str:
    try:
        return accounts.find_account(connection, NAME)
    except accounts.UnknownAccount:
        return accounts.create_account(connection, NAME)


def _read(file: Path) -> str:
    """The key in the file, or an empty text if there is none."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return ""


def _write(file: Path, key: str) -> None:
    """Writes a file that only this user can read. It is replaced in one step, so that it never holds half a key."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
        out.write(f"{key}\n")
    fresh.replace(file)
