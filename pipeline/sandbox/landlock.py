"""Landlock: what files a process may open. The rules and numbers are those of linux/landlock.h."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from pipeline.sandbox.system import call

# The calls have the same numbers on all machines.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
#: Version → the accesses to files that it can refuse: execute, write, read, list, remove, make; move; truncate; device controls.
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_TCP = {4: 0b11}  # bind and connect
_SCOPES = {6: 0b11}  # abstract Unix sockets, and signals to processes that are not restricted in the same way


@lru_cache(maxsize=1)
def version() -> int:
    """The version of Landlock that this system has. 0: none."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return call(_CREATE_RULESET, 0, 0, _VERSION_FLAG)
    except OSError:  # ENOSYS: not built in; EOPNOTSUPP: turned off
        return 0


def ruleset(readable: Iterable[str]) -> int:
    """The descriptor of rules that allow to read the given files and what lies in the given folders, and nothing else."""
    handled = ctypes.create_string_buffer(
        b"".join(_refused(known).to_bytes(8, sys.byteorder) for known in (_FILES, _TCP, _SCOPES))
    )
    # Older versions refuse fields that they do not know, so the last fields are left out for them.
    size = 24 if version() >= 6 else 16 if version() >= 4 else 8
    rules = call(_CREATE_RULESET, ctypes.addressof(handled), size, 0)
    for path in readable:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # what cannot be opened needs no rule
            _allow(rules, path)
    return rules


def restrict(rules: int) -> None:
    """Restricts the calling thread to `rules`."""
    call(_RESTRICT_SELF, rules, 0)


def _allow(rules: int, path: str) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ_FILE | (_READ_DIR if Path(path).is_dir() else 0)
        rule = ctypes.create_string_buffer(rights.to_bytes(8, sys.byteorder) + place.to_bytes(4, sys.byteorder))
        call(_ADD_RULE, rules, _PATH_BENEATH, ctypes.addressof(rule), 0)
    finally:
        os.close(place)


def _refused(known: dict[int, int]) -> int:
    return sum(accesses for since, accesses in known.items() if since <= version())
