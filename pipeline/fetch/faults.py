"""The reasons why a request brings no image, as values."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.types import MB, ItemCode

# One text for every failure before a connection to an allowed address exists: unknown names, refused and blocked addresses. If
# the texts differed, a caller could use the service to scan the networks that it stands in.
UNREACHABLE = (
    "The image's server could not be reached. Check that the URL is right and that anyone on the internet can open it. "
    "Whoever runs this service can allow a private address with FETCH_ALLOW."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """The reason why a request brought no image."""

    code: ItemCode
    detail: str  #: for the caller
    reason: str  #: for the log
    transient: bool = False  #: whether another try may help
    unconnected: bool = False  #: whether the server accepted no connection
    broken: bool = False  #: whether the server ended the connection
    stale: bool = False  #: whether the ended connection was one kept from an earlier request; then the request counts as no try
    retry_after: float = 0.0  #: seconds that the server asked to wait; 0: it asked for none


def failed(detail: str, reason: str, *, transient: bool = False, retry_after: float = 0.0) -> Fault:
    return Fault(code=ItemCode.FETCH_FAILED, detail=detail, reason=reason, transient=transient, retry_after=retry_after)


def unreachable(reason: str) -> Fault:
    return failed(UNREACHABLE, reason)


def unconnected(reason: str) -> Fault:
    """The caller is told the same as for `unreachable`, but the server may accept the next connection."""
    return Fault(code=ItemCode.FETCH_FAILED, detail=UNREACHABLE, reason=reason, transient=True, unconnected=True)


def timed_out(seconds: float) -> Fault:
    detail = f"The image's server did not deliver it within {seconds:g} seconds."
    return Fault(code=ItemCode.FETCH_TIMEOUT, detail=detail, reason="deadline")


def too_large(max_bytes: int) -> Fault:
    detail = f"The image is larger than {max_bytes / MB:g} MB ({max_bytes} bytes)."
    return Fault(code=ItemCode.IMAGE_TOO_LARGE, detail=detail, reason="size")
