"""docker-compose.yml and production.env.example, read for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
ONCE = ["migrate", "s3-init"]  #: services that end by themselves
EXAMPLE = (ROOT / "production.env.example").read_text()


def example() -> dict[str, str]:
    """What production.env holds after it was copied."""
    lines = [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def environment(name: str) -> dict[str, str]:
    """What the containers of a service see of production.env and docker-compose.yml."""
    given = example() if SERVICES[name].get("env_file") == "production.env" else {}
    return {**given, **SERVICES[name].get("environment", {})}


def mounted(values: dict[str, str], folder: Path) -> dict[str, str]:
    """The values as they are where the secrets lie in `folder`."""
    return {name: value.replace("/run/secrets", str(folder)) for name, value in values.items()}


def make_secrets(folder: Path) -> Path:
    """The folder, with what deploy/make_secrets.sh makes in it and a Gemini key."""
    subprocess.run(["sh", ROOT / "deploy" / "make_secrets.sh", folder], check=True, capture_output=True)
    (folder / "gemini_api_key").write_text("a-key\n")
    return folder
