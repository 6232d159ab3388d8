"""Two databases of a kind, an empty one and a full one, of which a bench compares what a transaction takes."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy import text

from storage.database import Database, migrate
from testbed import new_account, postgres

Row = TypeVar("Row")


class Side:
    """One of the two databases, with an account whose transactions are measured."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        migrate(self.database)
        self.account = new_account(self.database, 10**9)

    def settle(self) -> None:
        """Has Postgres look at what was written, as it does by itself after some time."""
        if self.database.engine.dialect.name == "postgresql":
            with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))


def on_both(measure: Callable[[str, str, str], Iterable[Row]]) -> list[Row]:
    """The rows of `measure` for SQLite and then for Postgres. It gets the kind's name, and the URLs of the empty and the full database."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = [*measure("SQLite", f"sqlite:///{folder / 'empty.db'}", f"sqlite:///{folder / 'full.db'}")]
        server = stack.enter_context(postgres())
        empty, full = (stack.enter_context(server.database()) for _ in range(2))
        return [*rows, *measure("Postgres", empty, full)]
