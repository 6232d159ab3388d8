"""What old runs have left in the XDG folder is deleted; what a run may still need stays."""

from __future__ import annotations

import fcntl
import os

import pytest

from cli.run.progress import Reporter
from cli.run.prune import KEPT_DAYS, prune

NOW = 2_000_000_000.0
OLD, RECENT = NOW - (KEPT_DAYS + 1) * 86_400, NOW - 86_400


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def file(path, used, text=""):
    path.write_text(text)
    os.utime(path, (used, used))
    return path


def service(runs, name, used, state=None):
    folder = runs / name
    folder.mkdir()
    file(folder / "serve.lock", used)
    if state:
        file(folder / "state", used, str(state))
    return folder


def left(runs):
    prune(runs, NOW, Reporter(quiet=True))
    return sorted(path.name for path in runs.iterdir())


def test_state_files_stay_for_thirty_days_after_their_last_use(runs):
    file(runs / "a.state", OLD)
    file(runs / "a.state-journal", OLD)
    file(runs / "b.state", RECENT)
    assert left(runs) == ["b.state"]


def test_data_of_a_service_goes_with_its_state_file_or_after_thirty_days(runs, tmp_path):
    there = file(tmp_path / "o.csv.state", OLD)
    service(runs, "deleted", RECENT, tmp_path / "gone.csv.state")
    service(runs, "needed", RECENT, there)
    service(runs, "old", OLD, there)
    service(runs, "unknown", RECENT)
    assert left(runs) == ["needed", "unknown"]


def test_data_that_a_service_uses_now_stays(runs):
    folder = service(runs, "used", OLD)
    with (folder / "serve.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert left(runs) == ["used"]


def test_a_folder_that_is_not_there_is_no_fault(tmp_path):
    prune(tmp_path / "none", NOW, Reporter(quiet=True))


def test_files_of_others_stay(runs):
    file(runs / "notes.txt", OLD)
    assert left(runs) == ["notes.txt"]
