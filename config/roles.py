"""Which secrets each kind of process needs. A process that is taken over cannot give away what it never had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from config.engines import ENGINES

#: `command`: the commands that change keys, credits and webhook secrets. `check`: `extract-image check`. `bucket`: deploy/s3_init.py.
Role = Literal["web", "worker", "supervisor", "migrate", "command", "check", "bucket"]

#: The settings with the keys of models' servers.
MODEL_KEYS = frozenset(kind.api_key for kind in ENGINES.values() if kind.api_key)
_STORE = frozenset(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))

#: Role → the settings that its processes do not read. Only the workers ask models.
WITHOUT: Mapping[Role, frozenset[str]] = {
    "web": MODEL_KEYS,
    "worker": frozenset(("METRICS_TOKEN",)),
    "supervisor": MODEL_KEYS | {"METRICS_TOKEN", "SECRET_KEY"},
    "migrate": MODEL_KEYS | _STORE | {"METRICS_TOKEN", "REDIS_URL", "SECRET_KEY"},
    "command": MODEL_KEYS | _STORE | {"METRICS_TOKEN", "REDIS_URL"},
    "check": MODEL_KEYS | {"METRICS_TOKEN", "REDIS_URL", "SECRET_KEY"},
    "bucket": MODEL_KEYS | {"DATABASE_URL", "METRICS_TOKEN", "REDIS_URL", "SECRET_KEY"},
}


def names_not_for(role: Role) -> frozenset[str]:
    """The environment variables that a process of `role` needs no value of: the settings of WITHOUT, and those with their files."""
    return WITHOUT[role] | {f"{name}_FILE" for name in WITHOUT[role]}
