"""The commands `login` and `completion`."""

from __future__ import annotations

import os
import sys

import click

from cli import connection
from cli.exits import CommandFault, Exit, client_faults

SHELLS = click.Choice(["bash", "zsh", "fish"])
VARIABLE = "_EXTRACT_IMAGE_COMPLETE"  #: click's name for the variable in which the shell asks for completions


@click.command()
@click.option("--url", help="The address of the service. Asked for if it is missing.")
@click.option("--key", help="The API key. Asked for without showing it if it is missing.")
def login(*, url: str | None, key: str | None) -> None:
    """Keep the address of a service and a key, so that the other commands need neither.

    They are checked first, and kept in a file that only you may read. If standard input is no terminal, what is missing is read from
    it: first the address, then the key, a line each.
    """
    from cli.client import Client

    url = (url or _asked("Address of the service")).strip().rstrip("/")
    key = (key or _asked("API key", hidden=True)).strip()
    with client_faults(), Client(url, key, patience=5) as client:
        balance = client.usage(days=1)["balance"]
    path = connection.keep(connection.Service(url=url, key=key), os.environ)
    click.echo(f"The key works: {balance['available']} credits. It is kept in {path}.")


def _asked(what: str, *, hidden: bool = False) -> str:
    """The user's answer, or the next line of a pipe. A pipe needs no question, and there is no echo that could be switched off."""
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=hidden, err=True))
    if line := sys.stdin.readline().strip():
        return line
    raise CommandFault(Exit.USAGE, f"{what} is missing: standard input has no line for it. Give it with --url and --key.")


@click.command()
@click.argument("shell", type=SHELLS)
@click.pass_context
def completion(context: click.Context, /, *, shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    For bash, put `eval "$(extract-image completion bash)"` into ~/.bashrc; zsh and fish have such files too.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    try:
        click.echo(found(context.find_root().command, {}, "extract-image", VARIABLE).source())
    except RuntimeError as error:  # the shell is too old, or not there
        click.echo(str(error), err=True)
        sys.exit(1)
