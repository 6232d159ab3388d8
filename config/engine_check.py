"""Checks whether the chosen engine can be used."""

from __future__ import annotations

from dataclasses import dataclass

from config.chosen_engine import engine_config, kind_of
from config.settings import Settings
from pipeline.ports import ModelUnavailable, ProbeFailed

SECONDS = 3.0  #: for the answer


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineChecked:
    """What the check found."""

    usable: bool
    text: str  #: one line: what was found, and what to do about it
    trouble: ModelUnavailable | None = None  #: what a call would certainly meet


def check_engine(settings: Settings, *, seconds: float = SECONDS) -> EngineChecked:
    """Asks the engine's server whether it accepts the key and has the model. Makes no model call and never raises."""
    try:
        found = kind_of(settings).load().probe(engine_config(settings), seconds)
    except ProbeFailed as failed:
        return EngineChecked(usable=False, text=f"{' '.join(str(failed).split())}. {failed.todo}", trouble=failed.trouble)
    except Exception as error:  # noqa: BLE001 - a check that fails must not stop the start
        return EngineChecked(usable=False, text=f"not checked: {type(error).__name__}")
    return EngineChecked(usable=True, text=found)
