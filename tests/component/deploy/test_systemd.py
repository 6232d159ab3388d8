"""The units of deploy/systemd are sound, give each process what it needs and no more, and are as hard as each other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import main
from config.roles import WITHOUT, Role, names_not_for
from config.settings import SECRETS, Settings, load_settings
from tests.compose import ROOT, example, make_secrets

FOLDER = ROOT / "deploy" / "systemd"
UNITS: dict[Role, Path] = {
    "web": FOLDER / "extract-image-web.service",
    "worker": FOLDER / "extract-image-worker@.service",
    "supervisor": FOLDER / "extract-image-supervisor.service",
    "migrate": FOLDER / "extract-image-migrate.service",
}
HARDENED = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectKernelTunables": "yes",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "UMask": "0077",
}


def lines(role: Role) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+)=(.*)$", UNITS[role].read_text(), re.MULTILINE)


def values(role: Role, name: str) -> list[str]:
    return [value for key, value in lines(role) if key == name]


def unit_environment(role: Role) -> dict[str, str]:
    """What the unit sets, with its folder of credentials as systemd writes it."""
    return dict(word.split("=", 1) for value in values(role, "Environment") for word in value.split())


RUN = FOLDER / "run.sh"


def test_every_unit_is_one_of_these():
    assert set(FOLDER.iterdir()) == {*UNITS.values(), RUN}


def test_a_command_gets_the_secrets_of_all_units_and_its_own_words(tmp_path):
    """With a systemd-run that keeps what it is asked, and runs the command as systemd does: without the caller's environment."""
    secrets, home = make_secrets(tmp_path / "secrets"), tmp_path / "home"
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / ".venv" / "bin" / "extract-image").write_text('#!/bin/sh\nenv\nprintf "word %s\\n" "$@"\n')
    (home / ".venv" / "bin" / "extract-image").chmod(0o755)
    (tmp_path / "systemd-run").write_text(
        f"#!/bin/sh\n"
        f'while [ "${{1#-}}" != "$1" ]; do if [ "$1" = -p ]; then echo "property $2"; shift; fi; shift; done\n'
        f'cd {home} && exec env -i PATH="$PATH" CREDENTIALS_DIRECTORY={secrets} "$@"\n'
    )
    (tmp_path / "systemd-run").chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(["sh", RUN, "keys", "create", "a shop"], env={"PATH": path}, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert [line.removeprefix("word ") for line in said if line.startswith("word ")] == ["keys", "create", "a shop"]
    properties = [line.removeprefix("property ") for line in said if line.startswith("property ")]
    loaded = {value.partition("=")[2] for value in properties if value.startswith("LoadCredential=")}
    roles: list[Role] = ["worker", "supervisor", "migrate"]
    assert loaded == {value for role in roles for value in values(role, "LoadCredential")}
    assert "EnvironmentFile=/etc/extract-image/production.env" in properties
    given = dict(line.split("=", 1) for line in said if re.match(r"[A-Z_]+_FILE=", line))
    assert given == {f"{file.name.upper()}_FILE": str(file) for file in secrets.iterdir() if f"{file.name}:" in str(loaded)}
    plain = {name: value for name, value in example().items() if not name.endswith("_FILE")}
    assert load_settings({**plain, **given}, without=WITHOUT["worker"]).env == "production"


@pytest.mark.parametrize("role", UNITS)
def test_a_unit_runs_a_command_of_ours_in_the_folder_of_the_page(role):
    assert values(role, "ExecStart") == [f"/opt/extract-image/.venv/bin/extract-image {role}"]
    assert role in main.commands
    assert values(role, "WorkingDirectory") == ["/opt/extract-image"]


@pytest.mark.parametrize("role", UNITS)
def test_a_unit_may_do_as_little_as_possible(role):
    assert {name: values(role, name) for name in HARDENED} == {name: [value] for name, value in HARDENED.items()}
    allowed = values(role, "SystemCallFilter")[0].split()
    assert allowed[0] == "@system-service"
    assert {"seccomp", "landlock_restrict_self"} <= set(allowed)  # else decoders would have no sandbox
    assert values(role, "MemoryMax")
    assert values(role, "TasksMax")


@pytest.mark.parametrize("role", UNITS)
def test_a_unit_gets_the_secrets_that_its_process_needs_and_no_other(role, tmp_path):
    secrets = make_secrets(tmp_path / "secrets")
    files = {name: value.rpartition("/")[2] for name, value in example().items() if name.endswith("_FILE")}
    needed = {file for name, file in files.items() if name not in names_not_for(role)}
    loaded = dict(value.split(":", 1) for value in values(role, "LoadCredential"))
    assert loaded == {file: f"/etc/extract-image/secrets/{file}" for file in needed}
    given = unit_environment(role)
    assert {name: given[name] for name in given if name.endswith("_FILE")} == {
        name: f"%d/{file}" for name, file in files.items() if file in needed
    }
    # As the page has it: production.env without its lines of files, which would replace the unit's.
    plain = {name: value for name, value in example().items() if not name.endswith("_FILE")}
    environment = {**given, **plain}
    assert set(environment) <= {each.upper() for each in Settings.model_fields} | {f"{each}_FILE" for each in SECRETS} | {
        "TMPDIR",
        "WEB_CONCURRENCY",
    }
    ready = {name: value.replace("%d", str(secrets)).replace("%S", str(tmp_path)) for name, value in environment.items()}
    assert load_settings(ready, without=WITHOUT[role]).env == "production"


@pytest.mark.parametrize("role", ["web", "worker", "supervisor"])
def test_a_process_starts_after_the_migration_and_has_time_to_end(role):
    assert values(role, "Requires") == ["extract-image-migrate.service"]
    assert "extract-image-migrate.service" in values(role, "After")[0]
    assert values(role, "Restart") == ["always"]
    assert int(values(role, "TimeoutStopSec")[0]) > 30


def test_each_worker_has_a_folder_of_its_own():
    assert all("%i" in folder for folder in values("worker", "StateDirectory")[0].split())


def test_systemd_itself_finds_no_fault(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("no systemd-analyze is installed here")
    copies = []
    command = Path(sys.executable).with_name("extract-image")
    for path in UNITS.values():
        copy = tmp_path / path.name.replace("@.", "@1.")
        copy.write_text(path.read_text().replace("/opt/extract-image/.venv/bin/extract-image", str(command)))
        copies.append(str(copy))
    (tmp_path / "broken.service").write_text(Path(copies[0]).read_text().replace("ProtectSystem=strict", "ProtectSystem=very"))

    def said(*files: str) -> list[str]:
        """What it says of our files; it also says what it thinks of the machine's own units."""
        done = subprocess.run([analyze, "verify", *files], capture_output=True, text=True, check=False)
        return [line for line in (done.stdout + done.stderr).splitlines() if str(tmp_path) in line or "extract-image" in line]

    if any("Failed to" in line for line in said(*copies)):
        pytest.skip("systemd-analyze can't look at units here")
    assert said(*copies) == []
    assert said(str(tmp_path / "broken.service"))
