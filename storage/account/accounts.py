"""Accounts and their API keys.

A key has the form `xim_<id>_<secret><checksum>`. Secret scanners recognize the prefix. The public id finds the key's row. The
secret has 190 bits. The checksum (CRC-32) detects a mistyped key without a query. The database stores only an HMAC-SHA256 of
the key, keyed with SECRET_KEY, so a stolen database gives no access.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, insert, select, update

from storage.database import now_ms
from storage.schema import accounts_table, api_keys_table

PREFIX = "xim"
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 12
SECRET_LENGTH = 32
CHECKSUM_LENGTH = 6
_KEY = re.compile(rf"{PREFIX}_([0-9A-Za-z]{{{ID_LENGTH}}})_([0-9A-Za-z]{{{SECRET_LENGTH}}})([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})")


class UnknownAccount(Exception):
    """No account or key has that name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRow:
    """An API key without its secret, for lists."""

    id: str
    name: str
    account: str
    available: int
    held: int
    charged: int
    created_at: int
    revoked_at: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyOwner:
    """The account of a live API key."""

    account: str
    available: int  #: credits that it may reserve


def random_id(prefix: str, length: int) -> str:
    """An unguessable id: `length` base-62 characters (5.95 bits each) after `prefix`."""
    return prefix + "".join(secrets.choice(BASE62) for _ in range(length))


def new_key() -> str:
    """Makes a new API key. It does not store the key."""
    body = f"{random_id('', ID_LENGTH)}_{random_id('', SECRET_LENGTH)}"
    return f"{PREFIX}_{body}{_checksum(body)}"


def key_id(key: str) -> str | None:
    """The public id in a well-formed key. None for any other text, so that callers can skip the query."""
    match = _KEY.fullmatch(key)
    if not match or not hmac.compare_digest(_checksum(f"{match[1]}_{match[2]}"), match[3]):
        return None
    return match[1]


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(BASE62))
        digits = BASE62[digit] + digits
    return digits


def hash_key(key: str, secret_key: bytes) -> str:
    return hmac.new(secret_key, key.encode(), hashlib.sha256).hexdigest()


def create_account(connection: Connection, name: str) -> str:
    """Creates an account without credits. Returns its id."""
    account = random_id("acc_", 16)
    connection.execute(insert(accounts_table).values(id=account, name=name, created_at=now_ms()))
    return account


def create_key(connection: Connection, *, account: str, name: str, secret_key: bytes) -> str:
    """Creates an API key of `account` and returns it. The key can't be shown again later, because only its hash is stored."""
    key = new_key()
    connection.execute(
        insert(api_keys_table).values(
            id=key_id(key), account=account, name=name, hash=hash_key(key, secret_key), created_at=now_ms()
        )
    )
    return key


def account_of(connection: Connection, key: str, secret_key: bytes) -> str | None:
    """The account of `key`; None for a malformed, unknown or revoked key."""
    owner = owner_of(connection, key, secret_key)
    return owner.account if owner else None


def owner_of(connection: Connection, key: str, secret_key: bytes) -> KeyOwner | None:
    """The account of `key`, with its credits; None for a malformed, unknown or revoked key."""
    public = key_id(key)
    if public is None:
        return None
    row = connection.execute(_live_key(), {"public": public}).one_or_none()
    if row is None or not hmac.compare_digest(row.hash, hash_key(key, secret_key)):
        return None
    return KeyOwner(account=row.account, available=row.available)


@cache
def _live_key() -> Select[Any]:
    """It is built once and cached, because building it takes longer than running it."""
    return (
        select(api_keys_table.c.account, api_keys_table.c.hash, accounts_table.c.available)
        .join(accounts_table, accounts_table.c.id == api_keys_table.c.account)
        .where(api_keys_table.c.id == bindparam("public"), api_keys_table.c.revoked_at.is_(None))
    )


def list_keys(connection: Connection) -> list[KeyRow]:
    """Every key, oldest first, with the credits of its account."""
    rows = connection.execute(
        select(
            api_keys_table.c.id,
            api_keys_table.c.name,
            api_keys_table.c.account,
            accounts_table.c.available,
            accounts_table.c.held,
            accounts_table.c.charged,
            api_keys_table.c.created_at,
            api_keys_table.c.revoked_at,
        )
        .join(accounts_table, accounts_table.c.id == api_keys_table.c.account)
        .order_by(api_keys_table.c.created_at, api_keys_table.c.id)
    )
    return [KeyRow(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for a row's columns


def revoke_key(connection: Connection, name_or_id: str) -> int:
    """Revokes the live keys of that id or name. Returns their number. Raises UnknownAccount if there are none."""
    changed = connection.execute(
        update(api_keys_table)
        .where((api_keys_table.c.id == name_or_id) | (api_keys_table.c.name == name_or_id), api_keys_table.c.revoked_at.is_(None))
        .values(revoked_at=now_ms())
    ).rowcount
    if changed == 0:
        raise UnknownAccount(f"no live key has the name or id {name_or_id!r}; `extract-image keys list` shows them")
    return changed


def find_account(connection: Connection, name_or_id: str) -> str:
    """The account with that id or name, or the account of the key with that id or name.

    Raises UnknownAccount if there is none, or if the name is ambiguous.
    """
    by_account = select(accounts_table.c.id).where((accounts_table.c.id == name_or_id) | (accounts_table.c.name == name_or_id))
    by_key = select(api_keys_table.c.account).where((api_keys_table.c.id == name_or_id) | (api_keys_table.c.name == name_or_id))
    found = sorted(connection.execute(by_account.union(by_key)).scalars())
    if not found:
        raise UnknownAccount(f"no account or key has the name or id {name_or_id!r}; `extract-image keys list` shows them")
    if len(found) > 1:
        raise UnknownAccount(f"{name_or_id!r} names {len(found)} accounts; give the id: {', '.join(found)}")
    return str(found[0])


def available_credits(connection: Connection, account: str) -> int:
    """Credits that the account may still reserve."""
    return connection.scalar(select(accounts_table.c.available).where(accounts_table.c.id == account)) or 0
