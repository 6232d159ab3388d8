"""The group of all commands. It turns the faults of the service's parts into a line or two."""

from __future__ import annotations

from typing import Any

import click


class Commands(click.Group):
    """A group whose commands end with a message, instead of a traceback, if a part of the service is away."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            from cli.faults import told  # takes long to import, and is rarely needed

            if (text := told(error)) is None:
                raise
            raise click.ClickException(text) from None
