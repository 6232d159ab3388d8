"""Makes the API key that `serve --ready-key` prints when the service is ready."""

from __future__ import annotations

from contextlib import suppress

from storage.account import accounts, ledger
from storage.database import Database

NAME = "serve --ready-key"  #: the name of the account and its key; unlikely for a user to choose, because the old key is revoked
CREDITS = 100_000  #: the account is topped up to this many credits at each start


def ready_key(database: Database, secret_key: bytes, *, credits_: int = CREDITS) -> str:
    """Makes a new key of a separate account with at least `credits_` credits. The key of the last start is revoked."""
    with database.write() as connection:
        with suppress(accounts.UnknownAccount):
            accounts.revoke_key(connection, NAME)
        try:
            account = accounts.find_account(connection, NAME)
        except accounts.UnknownAccount:
            account = accounts.create_account(connection, NAME)
        missing = credits_ - accounts.available_credits(connection, account)
        if missing > 0:
            ledger.grant(connection, account, missing)
        return accounts.create_key(connection, account=account, name=NAME, secret_key=secret_key)
