"""How long a step that asks the model may go on before it gives its thread to others."""

from __future__ import annotations

from time import monotonic

from config.settings import Settings

CALL_SECONDS = 180.0  #: for one model call; a long answer of 8,192 tokens takes about a minute


class StepPaused(Exception):
    """The step has had its time. What it settled is kept; the rest is for its next turn."""


def slice_seconds(settings: Settings) -> float:
    """A turn ends well before the hard limit: one more call fits in."""
    return settings.step_seconds / 2


def call_seconds(settings: Settings, ends: float) -> float:
    """What the next call may take, where the job's deadline is at `ends` by `monotonic`."""
    return max(min(CALL_SECONDS, slice_seconds(settings), ends - monotonic()), 1.0)
