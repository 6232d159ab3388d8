"""What engines raise when a server sheds a call in the tier `economy`, which it may do at any time because it has no capacity."""

from __future__ import annotations

from pipeline.ports import Cause, ModelUnavailable

SHED_SECONDS = 10.0  #: the wait after the first of several calls that were shed, if the server asks for no other


def shed(said: str, *, status: int, retry_after: float | None) -> ModelUnavailable:
    """The exception for a call that was shed. `retry_after`: the wait that the server asks for; None: it asks for none."""
    wait = SHED_SECONDS if retry_after is None else retry_after
    return ModelUnavailable(f"no capacity in the tier economy: {said}", retry_after=wait, cause=Cause.SHED, status=status)
