"""The answer cache: records of earlier jobs, kept for a limited time (docs/adr/0010). An account sees only its own records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from storage.database import now_ms
from storage.schema import answers_table


def known_answers(connection: Connection, account: str, keys: Iterable[str]) -> dict[str, Any]:
    """The cached records, by key (pipeline/records/answer_key.py). Keys that are not in the cache are left out."""
    mine = select(answers_table.c.key, answers_table.c.result).where(
        answers_table.c.account == account, answers_table.c.key.in_(list(keys))
    )
    return {row.key: row.result for row in connection.execute(mine.where(answers_table.c.expires_at > now_ms()))}


def keep_answers(connection: Connection, account: str, records: Mapping[str, Any], *, ttl_ms: int) -> None:
    """Stores records by key for `ttl_ms` milliseconds. A new record replaces the one stored before under its key."""
    if not records:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    # The rows are sorted by key, so that two transactions that write the same keys wait for each other and do not deadlock.
    rows = [{"account": account, "key": key, "result": records[key], "expires_at": now_ms() + ttl_ms} for key in sorted(records)]
    statement = insert(answers_table).values(rows)
    replaced = {"result": statement.excluded.result, "expires_at": statement.excluded.expires_at}
    connection.execute(statement.on_conflict_do_update(index_elements=["account", "key"], set_=replaced))


def forget_expired(connection: Connection, limit: int = 1000) -> int:
    """Deletes up to `limit` expired records. Returns their number."""
    late = select(answers_table.c.account, answers_table.c.key).where(answers_table.c.expires_at <= now_ms()).limit(limit)
    chosen = late.with_for_update(skip_locked=True)
    return connection.execute(
        delete(answers_table).where(tuple_(answers_table.c.account, answers_table.c.key).in_(chosen))
    ).rowcount
