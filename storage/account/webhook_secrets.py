"""The secret that signs an account's webhooks: made when first needed, kept encrypted with a key made of SECRET_KEY."""

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

BOTH_SIGN_MS = 86_400_000  #: after a rotation the secret before signs too, for a day


class SecretUnreadable(Exception):
    """The stored secret was encrypted with another SECRET_KEY."""

    def __init__(self) -> None:
        super().__init__(
            "The account's webhook secret was encrypted with another SECRET_KEY. Set the former one, "
            "or make a new secret with `extract-image webhooks secret rotate`."
        )


def signing_secrets(connection: Connection, account: str, secret_key: bytes) -> list[bytes]:
    """What signs now: the account's secret, and for a day after a rotation the one before. Raises SecretUnreadable."""
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
        with suppress(SecretUnreadable):  # a rotation is also the way out when SECRET_KEY was changed
            secrets_now.append(_decrypt(row.webhook_secret_before, secret_key))
    return secrets_now


def rotate(connection: Connection, account: str, secret_key: bytes) -> bytes:
    """A new secret; the one before signs too for a day."""
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
    """The first one. Of two who make it at once the second reads what the first has stored."""
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
