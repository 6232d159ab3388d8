"""The SQLite file beside the output, in which a run keeps what it has done. The file is right after a kill at any moment."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from cli.exits import CommandFault, Exit
from cli.run.sql import SCHEMA

VERSION = "1"


class StateFile:
    """The file with its facts. It may be used by several threads, but only by one process."""

    def __init__(self, path: Path | None, *, any_version: bool = False) -> None:
        """`path`: None keeps everything in memory. `any_version`: its content will be replaced, so its version does not matter.

        Raises CommandFault if another process uses the file, or if it is none of ours.
        """
        self._lock = threading.RLock()
        where = str(path) if path else ":memory:"
        try:
            self._sql = sqlite3.connect(where, timeout=1, isolation_level=None, check_same_thread=False)
            # EXCLUSIVE keeps a second run from using the file. FULL keeps what was written even if the machine loses its power.
            self._sql.executescript(f"PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL; BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        except sqlite3.DatabaseError as error:
            raise CommandFault(Exit.USAGE, _unusable(where, error)) from None
        if path:
            path.chmod(0o600)  # it holds the answers
        if self.fact("version", VERSION) != VERSION and not any_version:
            raise CommandFault(Exit.USAGE, f"{where} is of another version of extract-image. Add --restart to begin anew.")

    def close(self) -> None:
        with self._lock:
            self._sql.close()

    def copy_from(self, path: Path) -> None:
        """Takes over the content of the file `path`, which is not changed."""
        source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            source.backup(self._sql)
        except sqlite3.DatabaseError as error:
            raise CommandFault(Exit.USAGE, _unusable(str(path), error)) from None
        finally:
            source.close()

    def fact(self, name: str, value: str) -> str:
        """The fact that the file has under `name`. If it has none, it keeps `value` and returns it."""
        with self._write() as sql:
            sql.execute("INSERT INTO facts VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))
            return str(sql.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0])

    def become(self, other: Self) -> None:
        """Takes over the content of `other`, all at once: after a kill the file has either the old content or the new one."""
        with self._lock, other._lock:
            other._sql.backup(self._sql)

    def set_fact(self, name: str, value: str) -> None:
        self._many("INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", [(name, value)])

    def _rows(self, query: str, *given: Any) -> list[Any]:
        with self._lock:
            return self._sql.execute(query, given).fetchall()

    def _many(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self._write() as sql:
            sql.executemany(statement, rows)

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                yield self._sql
            except BaseException:
                self._sql.execute("ROLLBACK")
                raise
            self._sql.execute("COMMIT")


def _unusable(where: str, error: sqlite3.DatabaseError) -> str:
    said = str(error)
    if "locked" in said:
        return f"Another run uses {where}. Wait for it to end, or name another output file."
    if "unable to open" in said or "readonly" in said:
        return f"Can't write {where}. Check the permissions of the file and its folder, or name an output in another folder."
    if "full" in said:
        return f"Can't write {where}: the disk is full. Make room, or name an output on another disk."
    return f"{where} can't be used as a state file: {error}. Delete it, or name another output file."
