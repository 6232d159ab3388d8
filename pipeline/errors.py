"""Two exceptions that say whether a retry can help. The code that raises one decides, so the code that catches it need not guess.

The adapters (database, scratch, Redis, decoder processes, temporary files) translate the errors of their vendor or of the
operating system into these two. So no vendor's error reaches the workers or the API.

- `Transient`: the error goes away by itself, or an operator can fix it while the job waits. The job's deadline limits the wait.
- `Permanent`: a retry would meet the same error, because the code, the schema or the stored data is wrong.

Any other exception is a bug. It counts as a failure of the step, as `Permanent` does. Models have exceptions of their own in
`pipeline.ports`. `ModelUnavailable` is like `Transient` and has the same two attributes, but it is a separate class because
another model may be asked instead. A missing scratch object raises `FileNotFoundError`, which is not translated.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

OUTAGE_SECONDS = 5.0  #: until a part that is unavailable is tried again
PERSON_SECONDS = 15.0  #: until a part that a person has to fix is tried again

FULL = "The service has no space left for images or rows. The job continues when the operator has freed some."
NOT_ALLOWED = (
    "The service is not allowed to use its storage or its database. The job continues when the operator has corrected the setup."
)


class PartError(Exception):
    """A part that the service depends on has failed. It is raised only as Transient or Permanent."""


class Transient(PartError):
    """The part can't be used now, but later. The step is retried later, and the retry is not counted."""

    def __init__(self, message: str, *, retry_after: float = OUTAGE_SECONDS, notice: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after  #: seconds
        self.notice = notice  #: for the job's warnings, if a person has to act


class StorageFull(Transient):
    """A disk, a database or a bucket is full until a person frees space."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=PERSON_SECONDS, notice=FULL)


class Permanent(PartError):
    """Waiting does not help. The failure of the step is counted."""


def not_allowed(message: str) -> Transient:
    """A Transient for what settings or permissions forbid, because a person can fix it while the job waits."""
    return Transient(message, retry_after=PERSON_SECONDS, notice=NOT_ALLOWED)


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# These are transient, because an operator can fix the owner of a folder or a read-only mount. They never concern a single object,
# because all of the service's files have the same owner.
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_TRANSIENT = frozenset(
    {
        errno.EIO,
        errno.ESTALE,  # the server of a network file system was replaced
        errno.EAGAIN,  # from fork: this user or container has reached its limit of processes
        errno.EINTR,
        errno.EBUSY,
        errno.ETXTBSY,
        errno.EDEADLK,
        errno.ENOLCK,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EPIPE,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
    }
)


def os_error(error: OSError) -> PartError | None:
    """Translates an error of the operating system. None if the operating system did not raise it.

    Subclasses that libraries define (TLS, DNS lookups) are not translated, because their `errno` has another meaning.
    """
    if type(error).__module__ != "builtins":
        return None
    text = str(error) or type(error).__name__
    if error.errno in _FULL:
        return StorageFull(text)
    if error.errno in _NOT_ALLOWED:
        return not_allowed(text)
    if error.errno in _TRANSIENT or isinstance(error, ConnectionError | TimeoutError):
        return Transient(text)
    return None if error.errno is None else Permanent(text)


@contextmanager
def os_errors() -> Iterator[None]:
    """Translates errors of the operating system into Transient or Permanent.

    FileNotFoundError is not translated, because it has a meaning of its own in the ports.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if (ours := os_error(error)) is None:
            raise
        raise ours from error
