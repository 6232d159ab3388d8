"""The licences of packages are read and judged, an audit that could not look says so, and images are pinned by what a registry says."""

import json
import re
import sys

import pytest

from tools import audit, licences, pins


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


COMPOSE = """\
x-app:
  image: extract-image:0.1.0
services:
  db:
    image: postgres:18.4-alpine3.23
    command: [postgres]
  s3:
    image: some/store:4.48@sha256:{old} # why it is this one
"""
DOCKER = """\
#!/bin/sh
[ "$1 $2 $3 $5 $6" = "buildx imagetools inspect --format {{.Manifest.Digest}}" ] || exit 9
case "$4" in
    postgres:18.4-alpine3.23) echo sha256:%s ;;
    some/store:4.48) %s ;;
    python:3.13-slim) echo sha256:%s ;;
    *) exit 8 ;;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """Puts a `docker` on the path that knows three images. It is told what to do about the second one."""

    def install(second):
        command = tmp_path / "docker"
        command.write_text(DOCKER % ("a" * 64, second, "c" * 64))
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


@pytest.fixture
def files(tmp_path):
    compose, dockerfile = tmp_path / "docker-compose.yml", tmp_path / "Dockerfile"
    compose.write_text(COMPOSE.replace("{old}", "0" * 64))
    dockerfile.write_text("FROM python:3.13-slim AS build\nRUN true\nFROM python:3.13-slim\n")
    return compose, dockerfile


def test_images_are_pinned_by_the_digests_that_the_registry_has_now(docker, files):
    docker(f"echo sha256:{'b' * 64}")
    assert pins.main(files) == pins.main(files) == 0
    compose, dockerfile = (file.read_text() for file in files)
    assert f"image: postgres:18.4-alpine3.23@sha256:{'a' * 64}\n" in compose
    assert f"image: some/store:4.48@sha256:{'b' * 64} # why it is this one\n" in compose
    assert "image: extract-image:0.1.0\n" in compose
    assert dockerfile.count(f"FROM python:3.13-slim@sha256:{'c' * 64}") == 2


@pytest.mark.parametrize("second", ["echo no such image >&2; exit 1", "echo not a digest", "true"])
def test_no_file_changes_if_a_digest_is_not_found(docker, files, second, capsys):
    before = [file.read_text() for file in files]
    docker(second)
    assert pins.main(files) == 1
    assert [file.read_text() for file in files] == before
    assert "some/store:4.48" in capsys.readouterr().err


def test_no_image_is_known_by_latest_or_only_by_a_major_version():
    tags = [tag for file in pins.FILES for tag in pins.images(file.read_text()).values()]
    assert len(tags) == 7
    assert all(re.match(r"\d+\.\d+", tag) for tag in tags)
    for file in pins.FILES:
        named = re.findall(r"^ *image: |^FROM ", file.read_text(), re.MULTILINE)
        assert len(named) == len(list(pins._IMAGE.finditer(file.read_text())))  # none is without a tag
