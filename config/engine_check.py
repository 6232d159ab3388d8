"""Checks whether the chosen engine can be used."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from config.chosen_engine import engine_config, kind_of
from config.engines import ENGINES, EngineKind
from config.settings import Settings
from pipeline.hardening import make_private
from pipeline.ports import Cause, EngineConfig, ModelUnavailable, ProbeFailed

SECONDS = 3.0  #: for the answer
APART_SECONDS = 60.0  #: for a process that checks, with its imports on a busy machine


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineChecked:
    """What the check found."""

    usable: bool
    text: str  #: one line: what was found, and what to do about it
    trouble: ModelUnavailable | None = None  #: what a call would certainly meet


def check_engine(settings: Settings, *, seconds: float = SECONDS) -> EngineChecked:
    """Asks the engine's server whether it accepts the key and has the model. Makes no model call and never raises."""
    return _check(kind_of(settings), engine_config(settings), seconds)


def check_engine_apart(settings: Settings) -> EngineChecked:
    """What `check_engine` finds, but in a process of its own, because a vendor's package would stay in this one with its memory."""
    config = engine_config(settings)
    asked = {"engine": settings.engine, "config": {**asdict(config), "directory": str(config.directory)}}
    try:
        said = subprocess.run(
            [sys.executable, "-P", "-m", "config.engine_check"],
            input=json.dumps(asked).encode(),  # not as arguments, which other users may read
            stdout=subprocess.PIPE,
            timeout=APART_SECONDS,
            check=True,
        )
        return _read(json.loads(said.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        return EngineChecked(usable=False, text=f"The check did not end: {type(error).__name__}. The first call will show it.")


def _read(found: dict[str, Any]) -> EngineChecked:
    trouble = found["trouble"]
    if trouble:
        trouble = ModelUnavailable(trouble.pop("message"), **{**trouble, "cause": Cause(trouble["cause"])})
    return EngineChecked(usable=found["usable"], text=found["text"], trouble=trouble)


def main() -> None:
    """Checks for `check_engine_apart`: reads what to check from standard input, and writes what it found."""
    make_private()
    asked = json.load(sys.stdin)
    config = EngineConfig(**{**asked["config"], "directory": Path(asked["config"]["directory"])})
    found = _check(ENGINES[asked["engine"]], config, SECONDS)
    trouble = found.trouble and {
        "message": str(found.trouble),
        "retry_after": found.trouble.retry_after,
        "notice": found.trouble.notice,
        "cause": found.trouble.cause.value,
        "status": found.trouble.status,
    }
    sys.stdout.write(json.dumps({"usable": found.usable, "text": found.text, "trouble": trouble}))


def _check(kind: EngineKind, config: EngineConfig, seconds: float) -> EngineChecked:
    try:
        found = kind.load().probe(config, seconds)
    except ProbeFailed as failed:
        return EngineChecked(usable=False, text=f"{' '.join(str(failed).split())}. {failed.todo}", trouble=failed.trouble)
    except Exception as error:  # noqa: BLE001 - a check that fails must not stop the start
        return EngineChecked(usable=False, text=f"not checked: {type(error).__name__}")
    return EngineChecked(usable=True, text=found)


if __name__ == "__main__":
    main()
