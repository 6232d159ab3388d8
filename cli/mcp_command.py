"""`extract-image mcp`: serves the tools for agents over standard input and output."""

from __future__ import annotations

import click

from cli.connection import HELP, find_service, options
from cli.exits import CommandFault, Exit, client_faults


@click.command(name="mcp")
@options
def mcp(url: str | None, key: str | None) -> None:
    """Serve tools for agents by the Model Context Protocol, over standard input and output.

    An agent's program starts this command; docs/how-to/agents.md has the lines for its configuration. Logs go to standard error.
    """
    from importlib.metadata import version

    from cli.agents.server import build_server
    from cli.client import Client

    service = find_service(url, key)
    if service is None:
        raise CommandFault(Exit.USAGE, f"No service is configured. {HELP}")
    # An agent's program gives up on a tool after about a minute, so a service that is away or busy is reported before that.
    with client_faults():
        client = Client(service.url, service.key, patience=10, busy_patience=20, request_source="mcp")
    with client:
        build_server(client, version("extract-image")).run("stdio")
