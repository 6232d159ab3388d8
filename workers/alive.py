"""A process without a port shows that it is well by touching a file each second: what its health check looks at."""

from __future__ import annotations

import time
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

LATE_SECONDS = 15.0  #: after which nobody is taken to be alive


def touch(data_dir: Path, role: str) -> None:
    """`role`: worker or supervisor. A disk that is full ends no work."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        _file(data_dir, role).touch()
    except OSError as error:
        log.warning("not_shown_alive", role=role, reason=str(error))


def silent_for(data_dir: Path, role: str) -> float | None:
    """Seconds since a process of that role, with that DATA_DIR, was last well; None if none ever was."""
    try:
        return max(time.time() - _file(data_dir, role).stat().st_mtime, 0.0)
    except FileNotFoundError:
        return None


def _file(data_dir: Path, role: str) -> Path:
    return data_dir / f"{role}.alive"
