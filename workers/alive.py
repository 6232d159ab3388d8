"""A process without a port touches a file each second to show that it is alive. Its health check reads the file's age."""

from __future__ import annotations

import time
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

LATE_SECONDS = 15.0  #: a process that was silent for longer counts as dead


def touch(data_dir: Path, role: str) -> None:
    """Shows that this process is alive. `role` is worker or supervisor. A full disk causes only a warning."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        _file(data_dir, role).touch()
    except OSError as error:
        log.warning("not_shown_alive", role=role, reason=str(error))


def silent_for(data_dir: Path, role: str) -> float | None:
    """Seconds since a process of this role with this DATA_DIR last touched its file. None if none ever did."""
    try:
        return max(time.time() - _file(data_dir, role).stat().st_mtime, 0.0)
    except FileNotFoundError:
        return None


def _file(data_dir: Path, role: str) -> Path:
    return data_dir / f"{role}.alive"
