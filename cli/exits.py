"""The exit codes of the commands that talk to a service, and the error that ends such a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import click


class Exit(IntEnum):
    """Why a command ended. Scripts rely on these numbers."""

    ALL = 0
    SOME_FAILED = 1  #: some or all images failed; the rows are written
    USAGE = 2  #: an option, the prompt or the schema is wrong
    UNREACHABLE = 3  #: the service or its model can't be reached
    KEY_OR_CREDITS = 4  #: the key is refused, or the credits or the limits on cost do not suffice
    INTERRUPTED = 130  #: Ctrl-C


class CommandFault(click.ClickException):
    """Ends the command with this message and exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc]  # click reads it from the instance


@contextmanager
def client_faults() -> Iterator[None]:
    """Turns the client's errors in the block into a CommandFault with the matching exit code."""
    from cli.client import ApiError, ClientError, Unreachable

    try:
        yield
    except ApiError as error:
        raise CommandFault(exit_of(error.status), _explained(error.status, error.message)) from None
    except Unreachable as error:
        raise CommandFault(Exit.UNREACHABLE, str(error)) from None
    except ClientError as error:
        raise CommandFault(Exit.USAGE, str(error)) from None


def exit_of(status: int) -> Exit:
    """The exit code for a refusal with this HTTP status."""
    if status in {401, 402, 403}:
        return Exit.KEY_OR_CREDITS
    return Exit.USAGE if 400 <= status < 500 else Exit.UNREACHABLE


def _explained(status: int, message: str) -> str:
    if status == 401:
        return "The service refuses the key. Give the right one with --key, EXTRACT_IMAGE_KEY or `extract-image login`."
    return message
