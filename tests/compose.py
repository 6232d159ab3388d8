"""Reads docker-compose.yml and production.env.example for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from config.roles import WITHOUT, Role, names_not_for

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OVERLAYS = ["pgbouncer", "caddy"]  #: files of deploy/compose, each given to Compose after docker-compose.yml
ONCE = ["migrate", "s3-init"]  #: services that run once and end
EXAMPLE = (ROOT / "production.env.example").read_text()


def overlay(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy" / "compose" / f"{name}.yml").read_text()))


def merged(*names: str) -> dict[str, Any]:
    """What Compose makes of docker-compose.yml and the named overlays: mappings are merged, lists are joined, the rest is replaced."""

    def merge(before: Any, after: Any) -> Any:
        if isinstance(before, dict) and isinstance(after, dict):
            return {
                key: merge(before.get(key), after.get(key)) for key in (*before, *(key for key in after if key not in before))
            }
        if isinstance(before, list) and isinstance(after, list):
            return [*before, *after]
        return before if after is None else after

    found: Any = COMPOSE
    for name in names:
        found = merge(found, {key: value for key, value in overlay(name).items() if not key.startswith("x-")})
    return dict(found)


def example() -> dict[str, str]:
    """The variables in production.env.example."""
    lines = [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def environment(name: str) -> dict[str, str]:
    """The environment of a service's containers, from production.env.example and docker-compose.yml."""
    given = example() if SERVICES[name].get("env_file") == "production.env" else {}
    return {**given, **SERVICES[name].get("environment", {})}


def role(name: str) -> Role:
    """The role of a service of ours, which says what secrets it needs."""
    found = "bucket" if "entrypoint" in SERVICES[name] else SERVICES[name]["command"][0]
    assert found in WITHOUT
    return found


def read_by(name: str) -> dict[str, str]:
    """The variables of a service's environment that it reads."""
    unneeded = names_not_for(role(name)) if "build" in SERVICES[name] else frozenset()
    return {variable: value for variable, value in environment(name).items() if variable not in unneeded}


def mounted(values: dict[str, str], folder: Path) -> dict[str, str]:
    """The values, with the path of the secrets replaced by `folder`."""
    return {name: value.replace("/run/secrets", str(folder)) for name, value in values.items()}


def make_secrets(folder: Path) -> Path:
    """Fills the folder with the secrets of deploy/make_secrets.sh and a Gemini key. Returns the folder."""
    subprocess.run(["sh", ROOT / "deploy" / "make_secrets.sh", folder], check=True, capture_output=True)
    (folder / "gemini_api_key").write_text("a-key\n")
    return folder
