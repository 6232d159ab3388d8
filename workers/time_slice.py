"""How long a step that asks the model may run before it frees its thread for other steps."""

from __future__ import annotations

from time import monotonic

from config.settings import Settings

CALL_SECONDS = 180.0  #: the limit for one model call; a long answer of 8,192 tokens takes about a minute


class StepPaused(Exception):
    """The step has used up its time slice. The outcomes so far are kept, and the next turn does the rest."""


def slice_seconds(settings: Settings) -> float:
    """How long one turn may take. It is half of the hard limit, so that one more call fits in."""
    return settings.step_seconds / 2


def call_seconds(settings: Settings, ends: float) -> float:
    """How long the next call may take. `ends` is the job's deadline by `monotonic`."""
    return max(min(CALL_SECONDS, slice_seconds(settings), ends - monotonic()), 1.0)
