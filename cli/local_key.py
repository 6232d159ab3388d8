"""A key that is ready when the service is."""

from __future__ import annotations

from contextlib import suppress

from storage.account import accounts, ledger
from storage.database import Database

NAME = "serve --ready-key"  #: of the account and its key: no name that a user gives by chance, since the key is revoked
CREDITS = 100_000  #: what the account is topped up to at each start


def ready_key(database: Database, secret_key: bytes) -> str:
    """A fresh key of an account of its own, which has at least CREDITS credits; the key of the last start is revoked."""
    with database.write() as connection:
        with suppress(accounts.UnknownAccount):
            accounts.revoke_key(connection, NAME)
        try:
            account = accounts.find_account(connection, NAME)
        except accounts.UnknownAccount:
            account = accounts.create_account(connection, NAME)
        missing = CREDITS - accounts.available_credits(connection, account)
        if missing > 0:
            ledger.grant(connection, account, missing)
        return accounts.create_key(connection, account=account, name=NAME, secret_key=secret_key)
