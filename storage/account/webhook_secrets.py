"""The secret that signs an account's webhooks.

It is generated when it is first needed, and stored encrypted with a key that is derived from SECRET_KEY.
"""

from __future__ import annotations

import base64
import secrets
from contextlib import suppress

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, select, update

from pipeline.outbound.webhook import SECRET_BYTES
from storage.database import now_ms
from storage.schema import accounts_table

BOTH_SIGN_MS = 86_400_000  #: for a day after a rotation, the previous secret signs too


class SecretUnreadable(Exception):
    """The stored secret was encrypted with another SECRET_KEY."""

    def __init__(self) -> None:
        super().__init__(
            "The account's webhook secret was encrypted with another SECRET_KEY. Set the former one, "
            "or make a new secret with `extract-image webhooks secret rotate`."
        )


def signing_secrets(connection: Connection, account: str, secret_key: bytes) -> list[bytes]:
    """The secrets that sign now: the account's secret and, for a day after a rotation, the previous one.

    Raises SecretUnreadable.
    """
    row = connection.execute(
        select(
            accounts_table.c.webhook_secret,
            accounts_table.c.webhook_secret_before,
            (accounts_table.c.webhook_secret_before_until > now_ms()).label("both"),
        ).where(accounts_table.c.id == account)
    ).one()
    if row.webhook_secret is None:
        return [_make(connection, account, secret_key)]
    secrets_now = [_decrypt(row.webhook_secret, secret_key)]
    if row.both and row.webhook_secret_before:
        # After a change of SECRET_KEY, an owner rotates the secret because the old one is unreadable. So that is no error here.
        with suppress(SecretUnreadable):
            secrets_now.append(_decrypt(row.webhook_secret_before, secret_key))
    return secrets_now


def rotate(connection: Connection, account: str, secret_key: bytes) -> bytes:
    """Makes a new secret and returns it. The previous secret also signs for a day."""
    fresh = secrets.token_bytes(SECRET_BYTES)
    connection.execute(
        update(accounts_table)
        .where(accounts_table.c.id == account)
        .values(
            webhook_secret=_encrypt(fresh, secret_key),
            webhook_secret_before=accounts_table.c.webhook_secret,
            webhook_secret_before_until=now_ms() + BOTH_SIGN_MS,
        )
    )
    return fresh


def _make(connection: Connection, account: str, secret_key: bytes) -> bytes:
    """Makes the account's first secret. If two transactions do so at once, the second one returns the first one's secret."""
    made = _encrypt(secrets.token_bytes(SECRET_BYTES), secret_key)
    none = accounts_table.c.webhook_secret.is_(None)
    connection.execute(update(accounts_table).where(accounts_table.c.id == account, none).values(webhook_secret=made))
    return _decrypt(
        connection.scalar(select(accounts_table.c.webhook_secret).where(accounts_table.c.id == account)) or "", secret_key
    )


def _cipher(secret_key: bytes) -> Fernet:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"extract-image webhook secrets").derive(secret_key)
    return Fernet(base64.urlsafe_b64encode(derived))


def _encrypt(secret: bytes, secret_key: bytes) -> str:
    return _cipher(secret_key).encrypt(secret).decode()


def _decrypt(text: str, secret_key: bytes) -> bytes:
    try:
        return _cipher(secret_key).decrypt(text)
    except InvalidToken:
        raise SecretUnreadable from None
