"""The licences of packages are read and judged, and an audit that could not look says so."""

import json
import sys

import pytest

from tools import audit, licences


@pytest.mark.parametrize(
    ("said", "classifiers", "licence"),
    [
        ({"License-Expression": "MIT AND PSF-2.0"}, [], "MIT AND PSF-2.0"),
        ({"License": "Apache License, Version 2.0"}, [], "Apache-2.0"),
        ({"License": "Dual License"}, ["License :: OSI Approved :: BSD License"], "BSD-3-Clause"),
        ({"License": "All of the text of a licence\nin many lines"}, ["License :: OSI Approved :: MIT License"], "MIT"),
        ({"License": "BSD-Like-But-Not"}, [], ""),
        ({}, ["License :: Other/Proprietary License"], ""),
    ],
)
def test_a_licence_is_read_however_a_package_says_it(said, classifiers, licence):
    fields = {"License-Expression": "", "License": "", **said}
    assert licences.licence_of(fields, classifiers) == licence


def test_a_licence_that_is_not_allowed_or_not_understood_is_a_fault_with_what_to_do():
    packages = {
        "good": "MIT",
        "either": "LGPL-2.1-only OR MIT",
        "strict": "MIT AND LGPL-2.1-only",
        "silent": "",
        "psycopg": "LGPL-3.0-only",
    }
    found = list(licences.faults(packages))
    assert [line.partition(" ")[0] for line in found] == ["strict", "silent"]
    assert "EXCEPTIONS" in found[0]


def test_a_package_of_the_lock_is_for_this_system_or_for_others():
    lock = (
        f"one==1 \\\n    --hash=sha256:0\ntwo==2 ; sys_platform == 'nowhere' \\\nthree==3 ; sys_platform == '{sys.platform}' \\\n"
    )
    assert licences.locked(lock) == {"one": True, "two": False, "three": True}


def test_each_exception_is_for_a_package_that_is_locked():
    assert {*licences.EXCEPTIONS, *licences.BROUGHT} <= set(licences.locked(licences.LOCK.read_text()))


CLEAN = {"name": "flask", "version": "3", "vulns": []}
BAD = {"name": "click", "version": "8", "vulns": [{"id": "PYSEC-1", "fix_versions": ["9"]}]}
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI and could not be audited"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([CLEAN], 0, "1 packages looked up, 0 with"),
        ([CLEAN, BAD], 1, "click 8: PYSEC-1, repaired in 9"),
        ([CLEAN, BAD, SKIPPED], 1, "NOT AUDITED: 1 of 3"),
        ([CLEAN, SKIPPED], 3, "NOT AUDITED: 1 of 2 packages could not be looked up: rich"),
        ([SKIPPED], 3, "0 packages looked up"),
        ([], 3, "NOT AUDITED"),
    ],
)
def test_an_audit_tells_known_faults_from_packages_that_it_could_not_look_up(packages, code, words):
    assert (found := audit.judged(json.dumps({"dependencies": packages, "fixes": []}), ""))[0] == code
    assert words in found[1]


def test_an_audit_that_fails_or_cannot_be_run_says_that_nothing_was_audited(capsys):
    assert audit.judged("", "Traceback\nConnectionError: no such host\n") == (
        3,
        "NOT AUDITED: pip-audit could not look: ConnectionError: no such host",
    )
    assert audit.main("/nowhere/pip-audit") == 3
    assert "NOT AUDITED" in capsys.readouterr().out
