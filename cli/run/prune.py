"""Deletes what runs have left in the XDG folder and nobody needs any more. What stands beside an output is the user's, and stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cli.run.embedded import OF_STATE, forget
from cli.run.progress import Reporter

KEPT_DAYS = 30  #: since the last run that used it


def prune(runs: Path, now: float, reporter: Reporter) -> None:
    """Deletes state files that no run has used for KEPT_DAYS, and the data of embedded services that belong to none.

    `now`: seconds since 1970. What can't be looked at or is in use stays.
    """
    deleted = [path.name for path in _useless(runs, now - KEPT_DAYS * 86_400)]
    if deleted:
        reporter.note("pruned", deleted=deleted, days=KEPT_DAYS)


def _useless(runs: Path, oldest: float) -> Iterator[Path]:
    with suppress(OSError):
        for path in sorted(runs.iterdir()):
            with suppress(OSError):
                if path.is_dir() and (_used_at(path) < oldest or _state_is_gone(path)) and not _runs(path):
                    forget(path)
                    yield path
                elif path.is_file() and ".state" in path.name and path.stat().st_mtime < oldest:
                    path.unlink()
                    yield path


def _used_at(folder: Path) -> float:
    """When a service last wrote into the folder, in seconds since 1970."""
    return max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)


def _state_is_gone(folder: Path) -> bool:
    """Whether the folder belongs to a state file that was deleted. Then no run will ever look for its jobs."""
    try:
        return not Path((folder / OF_STATE).read_text()).exists()
    except FileNotFoundError:
        return False


def _runs(folder: Path) -> bool:
    """Whether a service runs on the folder now."""
    import fcntl

    try:
        with (folder / "serve.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True
