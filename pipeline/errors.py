"""Two exceptions of ours that say whether it is worth waiting: whoever raises one knows, and nobody else has to guess.

The adapters (database, scratch, Redis, decoder processes, temporary files) translate the errors of their vendor or of the
operating system into these two, so no error of a vendor reaches the workers or the front door. The rule is what heals:

- `Transient`: time heals it, or a person who runs the service can mend it while the job waits. The job's deadline bounds the wait.
- `Permanent`: the same request would meet the same error again: the code, the schema or the stored data is wrong.

An exception that is neither is a bug, and counts as a failure of the step, as `Permanent` does. Models have exceptions of their
own in `pipeline.ports`: `ModelUnavailable` is to a model what `Transient` is to the other parts, with the same two values. It
stays apart because other models may be asked in its place. `FileNotFoundError` stays what a missing scratch object is.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

OUTAGE_SECONDS = 5.0  #: until a part that is away is tried again
PERSON_SECONDS = 15.0  #: until a part that a person has to mend is tried again

FULL = "The service has no room left for images or rows; the job goes on when whoever runs it has made some."
NOT_ALLOWED = (
    "The service may not use its storage or its database as it is set up; the job goes on when whoever runs it has mended that."
)


class PartError(Exception):
    """A part that the service works with has failed. Only raised as Transient or Permanent."""


class Transient(PartError):
    """The part can't be used now, and can be later: a step that meets it waits, and uses up no try."""

    def __init__(self, message: str, *, retry_after: float = OUTAGE_SECONDS, notice: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after  #: seconds
        self.notice = notice  #: for the job's warnings, when a person has to act


class StorageFull(Transient):
    """A disk, a database or a bucket takes no more until somebody makes room."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=PERSON_SECONDS, notice=FULL)


class Permanent(PartError):
    """No waiting helps: a step that meets it uses up a try."""


def not_allowed(message: str) -> Transient:
    """For what the settings or the permissions forbid: a person can mend it while the job waits."""
    return Transient(message, retry_after=PERSON_SECONDS, notice=NOT_ALLOWED)


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# A folder's owner or a mount that was made read-only is mended from outside; all of our files have one owner, so it is
# never a single object that is refused.
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_TRANSIENT = frozenset(
    {
        errno.EIO,
        errno.ESTALE,  # a network file system whose server was replaced
        errno.EAGAIN,  # of fork: no process is left to this user or container
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
    """What an error of the operating system means; None where it was not the operating system that raised it.

    Subclasses of libraries (TLS, name look-ups) fill `errno` with numbers of their own, so they are not judged here.
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
    """Raises errors of the operating system as Transient or Permanent; FileNotFoundError as it is, since ports give it a meaning."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if (ours := os_error(error)) is None:
            raise
        raise ours from error
