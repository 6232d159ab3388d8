"""The image says what it is, and its command serves with everything embedded, one folder to write in, and a root that is read-only."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.settings import Settings
from testbed.production import free_port
from tests.compose import ROOT, SERVICES

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
LAST = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]  #: the stage that becomes the image
VERSION = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
PAGE = (ROOT / "docs" / "how-to" / "one-container.md").read_text()


def pairs(instruction: str) -> dict[str, str]:
    """The names and values of all ENV or LABEL instructions of the image."""
    found = re.findall(rf"^{instruction} (.+)$", LAST, re.MULTILINE)
    return dict(word.split("=", 1) for line in found for word in shlex.split(line))


def words(instruction: str) -> list[str]:
    """The JSON list at the end of an instruction that the image has once."""
    [found] = re.findall(rf"^{instruction}\b.*?(\[.*\])$", LAST, re.MULTILINE)
    return list(json.loads(found))


CHECK, COMMAND = words("HEALTHCHECK"), [*words("ENTRYPOINT"), *words("CMD")]


def test_the_labels_say_what_it_is_and_what_it_was_built_from():
    labels = pairs("LABEL")
    assert {name.removeprefix("org.opencontainers.image.") for name in labels} == {
        "title",
        "description",
        "version",
        "revision",
        "created",
    }
    assert re.findall(r"^ARG VERSION=(.+)$", LAST, re.MULTILINE) == [VERSION]
    built = re.findall(r"--build-arg (\w+)=", (ROOT / "Makefile").read_text())
    assert built == re.findall(r"^ARG (\w+)=", LAST, re.MULTILINE)
    for name in built:
        assert f"${name}" in labels.values()
    assert SERVICES["web"]["image"] == f"extract-image:{VERSION}"


def test_its_defaults_are_settings_and_every_folder_is_its_user_s():
    given = pairs("ENV")
    ours = {name for name in given if not name.startswith("PYTHON")} - {"PATH", "TMPDIR"}
    assert ours <= {name.upper() for name in Settings.model_fields}
    folders = re.findall(r"install -d -o 10001 -g 10001 (.+)$", LAST, re.MULTILINE)[0].split()
    assert {given["DATA_DIR"], given["TMPDIR"]} <= set(folders)
    assert given["TMPDIR"].startswith(given["DATA_DIR"] + "/")  # one volume is enough
    assert "USER 10001:10001" in LAST


def test_the_page_s_command_needs_one_volume_and_nothing_else():
    [run] = re.findall(r"docker run .*? extract-image:\d\S+", PAGE.replace("\\\n", " "), re.DOTALL)
    assert run.endswith(VERSION)
    assert re.findall(r"(?:-v|--volume) \S+:(\S+)", run) == [pairs("ENV")["DATA_DIR"]]
    assert {"--read-only", "--init"} <= set(run.split())
    assert re.search(r"-p 127\.0\.0\.1:\d+:8000", run)


@contextmanager
def container(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the image's command with its variables, where the root can't be written, but for `folder`, which stands for the volume."""
    data = folder / "data"
    (data / "spool").mkdir(parents=True, exist_ok=True)
    moved = {name: value.replace("/data", str(data)) for name, value in pairs("ENV").items()}
    given = {
        **moved,
        "PORT": str(port),
        "HOST": "127.0.0.1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": "/tmp",
    }
    # The folder becomes a mount of its own, and then everything else is mounted read-only. Nobody outside of this process sees it.
    shut = (
        f"mount --make-rprivate / && mount --bind {shlex.quote(str(data))} {shlex.quote(str(data))} && mount -o remount,bind,ro /"
    )
    command = ["unshare", "--mount", "sh", "-c", f'{shut} && exec "$@"', "sh", *COMMAND]
    log = folder / "log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=given, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while subprocess.run(CHECK, env=given, capture_output=True, check=False).returncode != 0:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def can_shut() -> bool:
    """Whether this machine lets a process mount its own root read-only."""
    if not shutil.which("unshare"):
        return False
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", "mount --make-rprivate / && mount -o remount,bind,ro / && ! touch /tmp/.written"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


@pytest.mark.slow
def test_its_command_serves_from_one_folder_and_finds_everything_again(tmp_path):
    if not can_shut():
        pytest.skip("this machine lets nobody mount a root read-only")
    port = free_port()
    key = ""
    for _ in range(2):
        with container(tmp_path, port):
            if not key:
                given = {**os.environ, "DATA_DIR": str(tmp_path / "data")}
                command = [sys.executable, "-m", "cli.main", "keys", "create", "shop", "--credits", "100", "--json"]
                made = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=True)
                key = json.loads(made.stdout)["key"]
            picture = (ROOT / "examples" / "09-ferry-banner.gif").read_bytes()
            body = {"inputMethod": "base64", "images": [base64.b64encode(picture).decode()], "prompt": "Read it."}
            asked = urllib.request.Request(
                f"http://127.0.0.1:{port}/api/v1/extract-image",
                json.dumps(body).encode(),
                {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(asked, timeout=200) as answer:
                assert "NORDKAI" in json.loads(answer.read())["results"]
