"""The command `extract-image`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import click

from cli.check_command import check
from cli.commands import Commands
from cli.jobs_command import jobs, usage
from cli.lean import import_lean
from cli.lifeline import PARENT, end_with_parent
from cli.mcp_command import mcp
from cli.run_command import run
from cli.schema_commands import schema
from cli.setup_commands import completion, login
from pipeline.hardening import make_private

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from config.roles import Role
    from config.settings import Settings
    from storage.database import Database

# Each command imports what it needs when it runs, so that `--help` and shell completion answer at once.


def _settings(role: Role | None = None) -> Settings:
    """The settings of a process of `role`, without the secrets that it does not need. None: all of them."""
    from config.roles import WITHOUT
    from config.settings import SettingsFault, load_settings

    try:
        return load_settings(os.environ, without=WITHOUT[role] if role else ())
    except SettingsFault as fault:
        raise click.ClickException(str(fault)) from None


def _running_settings(role: Role) -> Settings:
    """The settings of a process that starts no part itself, so every part must run already.

    The process forgets the variables that it does not need, so that no program that it starts gets them.
    """
    from config.roles import names_not_for

    settings = _settings(role)
    for name in names_not_for(role):
        os.environ.pop(name, None)
    if settings.redis_url == "embedded:":
        raise click.ClickException(
            "REDIS_URL is `embedded:`, but only `extract-image serve` starts the embedded Redis. Set REDIS_URL=redis://host:6379/0."
        )
    return settings


def _started(settings: Settings, role: str, *, by_serve: bool) -> None:
    """Configures the logs, and says what the process runs on and what is missing. `serve` says it for its own children."""
    _configure(settings)
    if by_serve:
        return
    from cli.starting import say_protection, say_start, say_what_is_missing

    say_protection(settings, decodes=role in {"web", "worker"})
    say_start(settings, role)
    if role != "web":  # it forks next, and a thread that looks would leave locks behind that nobody opens
        say_what_is_missing(settings)


def _end_on_sigterm() -> None:
    """Makes SIGTERM end the process while it starts, when there is nothing to clean up. Later the process sets its own handler.

    SystemExit would not do: a handler may run in a callback of the import system, and Python drops exceptions of such callbacks.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def _database(settings: Settings) -> Database:
    """Opens the database and migrates it, so that the commands below work before the first `serve` and while it runs."""
    from storage.database import migrate, open_database

    database = open_database(settings, "command")
    migrate(database)
    return database


def _configure(settings: Settings) -> None:
    from cli.logs import configure_logs, logs_are_json

    configure_logs(json=logs_are_json(settings))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="extract-image")
@click.pass_context
def main(context: click.Context) -> None:
    """Extract what a prompt asks for from images.

    To make a table of a folder of pictures, use `extract-image run`. The commands of the service take their settings from the
    environment; docs/reference/settings.md lists them. To see the service at work, run `extract-image demo`.
    """
    # The files made here hold prompts, results and keys, so only this user may read them. The user's other processes may not
    # read this process's memory.
    context.obj = os.umask(0o077)
    make_private()


for command in (run, mcp, jobs, usage, login, schema, completion, check):
    main.add_command(command)


@main.command()
@click.option("--ready-key", is_flag=True, help="Print a key with credits and a curl command that uses it, and serve examples/.")
def serve(*, ready_key: bool) -> None:
    """Run the whole service: web, worker, supervisor, and the embedded parts. Ctrl-C ends it."""
    from cli.serve import serve as run_service

    may_exec = end_with_parent()  # `run` starts this command for its own time
    settings = _settings()
    _configure(settings)
    from cli.starting import refuse_root

    refuse_root(settings)
    sys.exit(run_service(settings, with_key=ready_key, announce=sys.stdout, may_exec=may_exec))


@main.command()
@click.option("--fd", type=int, help="Serve on this inherited socket instead of HOST and PORT.")
@click.option("--examples", default="", hidden=True, help="Serve the pictures of examples/, at this address.")
def web(fd: int | None, examples: str) -> None:
    """Run a web process, which serves the HTTP API on HOST and PORT."""
    _end_on_sigterm()
    import_lean()
    from api.server import TooFewFiles, run_web
    from cli.starting import say_what_is_missing

    by_serve = PARENT in os.environ
    end_with_parent()
    settings = _running_settings("web")
    _started(settings, "web", by_serve=by_serve)
    try:
        run_web(
            settings,
            bind=f"fd://{fd}" if fd is not None else "",
            pictures=examples,
            on_start=None if by_serve else partial(say_what_is_missing, settings),
        )
    except TooFewFiles as fault:
        raise click.ClickException(str(fault)) from None


@main.command()
@click.option("--alone", is_flag=True, hidden=True, help="Run the single steps named on standard input, for a worker.")
def worker(*, alone: bool) -> None:
    """Run a worker process, with WORKER_CONCURRENCY threads that run the steps of jobs."""
    _end_on_sigterm()
    import_lean()
    from workers.app import run_alone, run_worker

    by_serve = PARENT in os.environ
    end_with_parent()
    settings = _running_settings("worker")
    _started(settings, "worker", by_serve=by_serve or alone)
    (run_alone if alone else run_worker)(settings)


@main.command()
def supervisor() -> None:
    """Run the supervisor, which announces due steps and reclaims lost ones. One is enough; running two is safe."""
    _end_on_sigterm()
    import_lean()
    from pipeline.tracing import spans
    from pipeline.tracing.start import FLUSH_SECONDS, start
    from storage.database import open_database
    from storage.redis.counts import Publisher
    from storage.redis.signals import Signals
    from storage.scratch.open import open_scratch
    from workers.alive import touch
    from workers.supervisor import Supervisor

    by_serve = PARENT in os.environ
    end_with_parent()
    settings = _running_settings("supervisor")
    _started(settings, "supervisor", by_serve=by_serve)
    start("supervisor", os.environ)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    database = open_database(settings, "supervisor")
    signals = Signals(settings.redis_url)
    alive = partial(touch, settings.data_dir, "supervisor")
    publisher = Publisher(signals, "supervisor")
    Supervisor(database=database, scratch=open_scratch(settings), signals=signals, show_alive=alive).run(stop)
    publisher.close()
    signals.close()
    database.close()
    spans.close(FLUSH_SECONDS)


@main.command(name="migrate")
def migrate_command() -> None:
    """Update the database's schema to this version. You can run it again safely.

    The schema of a newer version stays as it is, because it serves this version too.
    """
    from storage.database import schema_is_current

    settings = _settings("migrate")
    _configure(settings)
    database = _database(settings)
    current = schema_is_current(database)
    database.close()
    click.echo("The database is up to date." if current else "The schema is a newer version's, which serves this one too.")


@main.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help='Print {"ok", "checks"}.')
@click.option("--only", metavar="CHECK", multiple=True, help="Check only this part and the settings. You can repeat the option.")
def doctor_command(*, as_json: bool, only: tuple[str, ...]) -> None:
    """Check each part of the service, and say how to repair a fault.

    The parts are the settings, the database, the clock, Redis, scratch, the engine, the disk, the user and the sandbox.
    """
    import logging

    from cli.doctor import doctor
    from cli.logs import configure_logs

    configure_logs(json=not sys.stderr.isatty(), level=logging.ERROR)
    try:
        code = doctor(os.environ, only=only, as_json=as_json)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(code)


@main.command()
@click.option("--keep", is_flag=True, help="Keep the demo's data folder, and print its path.")
def demo(*, keep: bool) -> None:
    """Start the service, send it the images in examples/, and show the results."""
    from cli.demo import run_demo

    sys.exit(run_demo(keep=keep))


@main.group()
def keys() -> None:
    """Create, list and revoke API keys. You can use these commands while the service runs."""


@keys.command("create")
@click.argument("name")
@click.option("--credits", "amount", type=click.IntRange(min=0), default=0, help="Credits to grant to the account.")
@click.option("--account", help="Add the key to this account (id or name) instead of creating one.")
@click.option("--json", "as_json", is_flag=True, help='Print {"account", "key"}.')
def create_key(*, name: str, amount: int, account: str | None, as_json: bool) -> None:
    """Create an API key called NAME. The key is shown only once."""
    from storage.account import accounts, ledger
    from storage.account.secret import secret_key

    settings = _settings("command")
    database = _database(settings)
    with database.write() as connection:
        owner = _find(connection, account) if account else accounts.create_account(connection, name)
        if amount:
            ledger.grant(connection, owner, amount)
        key = accounts.create_key(connection, account=owner, name=name, secret_key=secret_key(settings))
    database.close()
    if as_json:
        click.echo(json.dumps({"account": owner, "key": key}))
        return
    click.echo(f"account  {owner}\nkey      {key}\nKeep the key: it can't be shown again.")


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_keys(*, as_json: bool) -> None:
    """List all keys with the credits of their accounts."""
    from storage.account import accounts

    database = _database(_settings("command"))
    with database.read() as connection:
        rows = accounts.list_keys(connection)
    database.close()
    if as_json:
        fields = ("id", "name", "account", "available", "held", "charged")
        listed = [{**{field: getattr(row, field) for field in fields}, "revoked": row.revoked_at is not None} for row in rows]
        click.echo(json.dumps(listed))
        return
    # The lines are as long as they need to be in every terminal, because an id that is cut off or folded can't be copied.
    lines = [("id", "name", "account", "available", "held", "charged", "state")]
    for row in rows:
        state = "revoked" if row.revoked_at else "live"
        lines.append((row.id, row.name, row.account, str(row.available), str(row.held), str(row.charged), state))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@keys.command("revoke")
@click.argument("key")
def revoke_key(key: str) -> None:
    """Revoke the key with the id or name KEY. From now on, requests with it are refused."""
    from storage.account import accounts

    database = _database(_settings("command"))
    try:
        with database.write() as connection:
            revoked = accounts.revoke_key(connection, key)
    except accounts.UnknownAccount as error:
        raise click.ClickException(str(error)) from None
    finally:
        database.close()
    click.echo(f"{revoked} key{'s' if revoked > 1 else ''} revoked.")


@main.group(name="credits")
def credits_group() -> None:
    """Grant credits to accounts."""


@credits_group.command("grant")
@click.argument("account")
@click.argument("amount", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help='Print {"account", "available"}.')
def grant_credits(*, account: str, amount: int, as_json: bool) -> None:
    """Grant AMOUNT credits to ACCOUNT (the id or name of an account or a key)."""
    from storage.account import accounts, ledger

    database = _database(_settings("command"))
    with database.write() as connection:
        owner = _find(connection, account)
        ledger.grant(connection, owner, amount)
        available = accounts.available_credits(connection, owner)
    database.close()
    click.echo(json.dumps({"account": owner, "available": available}) if as_json else f"{owner} has {available} credits.")


@main.group()
def webhooks() -> None:
    """Show and change the secret that signs the webhooks of an account."""


@webhooks.group(name="secret")
def webhook_secret() -> None:
    """Show and change the secret that receivers use to check signatures."""


@webhook_secret.command("show")
@click.argument("account")
@click.option("--json", "as_json", is_flag=True, help='Print {"account", "secrets"}.')
def show_webhook_secret(*, account: str, as_json: bool) -> None:
    """Show the webhook secrets of ACCOUNT.

    ACCOUNT is the id or name of an account or a key. There are two secrets for a day after a rotation, else one.
    """
    _print_secrets(account, rotate=False, as_json=as_json)


@webhook_secret.command("rotate")
@click.argument("account")
@click.option("--json", "as_json", is_flag=True, help='Print {"account", "secrets"}.')
def rotate_webhook_secret(*, account: str, as_json: bool) -> None:
    """Create a new secret for ACCOUNT. The old secret also signs for a day, so that you can update the receivers."""
    _print_secrets(account, rotate=True, as_json=as_json)


def _print_secrets(account: str, *, rotate: bool, as_json: bool) -> None:
    from pipeline.outbound.webhook import as_text
    from storage.account import webhook_secrets
    from storage.account.secret import secret_key

    settings = _settings("command")
    database = _database(settings)
    key = secret_key(settings)
    with database.write() as connection:
        owner = _find(connection, account)
        try:
            if rotate:
                webhook_secrets.rotate(connection, owner, key)
            shown = [as_text(secret) for secret in webhook_secrets.signing_secrets(connection, owner, key)]
        except webhook_secrets.SecretUnreadable as error:
            raise click.ClickException(str(error)) from None
    database.close()
    click.echo(json.dumps({"account": owner, "secrets": shown}) if as_json else "\n".join(shown))


def _find(connection: Connection, name_or_id: str) -> str:
    from storage.account import accounts

    try:
        return accounts.find_account(connection, name_or_id)
    except accounts.UnknownAccount as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
