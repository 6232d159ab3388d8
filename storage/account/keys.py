"""The API keys of an account, for its owner."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from storage.account.accounts import create_key, key_id
from storage.database import now_ms
from storage.schema import accounts_table, api_keys_table

MOST_KEYS = 50  #: of an account
USE_MS = 3_600_000  #: the use of a key is written at most this often


class TooManyKeys(Exception):
    """The account has MOST_KEYS keys."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnKey:
    """An API key without its secret."""

    id: str  #: the public part of the key
    name: str
    created_at: int  #: milliseconds since 1970, like the next one
    last_used_at: int | None  #: within an hour; None: not yet


_COLUMNS = tuple(api_keys_table.c[name] for name in ("id", "name", "created_at", "last_used_at"))


def keys_of(connection: Connection, account: str) -> list[OwnKey]:
    """The account's keys that are not revoked, the oldest first."""
    live = select(*_COLUMNS).where(api_keys_table.c.account == account, api_keys_table.c.revoked_at.is_(None))
    rows = connection.execute(live.order_by(api_keys_table.c.created_at, api_keys_table.c.id))
    return [OwnKey(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


def add_key(connection: Connection, *, account: str, name: str, secret_key: bytes) -> tuple[str, OwnKey]:
    """Creates a key of the account and returns it. It can't be shown again later. Raises TooManyKeys."""
    # Lock the account, so that two requests at once can't both find room.
    connection.execute(select(accounts_table.c.id).where(accounts_table.c.id == account).with_for_update(key_share=True))
    live = select(func.count()).where(api_keys_table.c.account == account, api_keys_table.c.revoked_at.is_(None))
    if (connection.scalar(live) or 0) >= MOST_KEYS:
        raise TooManyKeys
    key = create_key(connection, account=account, name=name, secret_key=secret_key)
    row = connection.execute(select(*_COLUMNS).where(api_keys_table.c.id == key_id(key))).one()
    return key, OwnKey(**row._mapping)  # noqa: SLF001 - as above


def revoke_own(connection: Connection, *, account: str, key: str) -> bool:
    """Revokes a key of the account by its public id. Returns whether there was such a key."""
    own = api_keys_table.c.id == key, api_keys_table.c.account == account, api_keys_table.c.revoked_at.is_(None)
    return connection.execute(update(api_keys_table).where(*own).values(revoked_at=now_ms())).rowcount > 0


def note_use(connection: Connection, key: str) -> None:
    """Records that the key was used, unless a use within the last hour is recorded already."""
    long_ago = api_keys_table.c.last_used_at.is_(None) | (api_keys_table.c.last_used_at < now_ms() - USE_MS)
    connection.execute(update(api_keys_table).where(api_keys_table.c.id == key, long_ago).values(last_used_at=now_ms()))


def key_label(connection: Connection, key: str) -> str:
    """The key's name and its public id, to say who did something."""
    name = connection.scalar(select(api_keys_table.c.name).where(api_keys_table.c.id == key))
    return f"{name} ({key})"
