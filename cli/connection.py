"""Which service the commands talk to: the options, the environment, or what `extract-image login` has kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.exits import CommandFault, Exit

if TYPE_CHECKING:
    from cli.client import Client

URL, KEY = "EXTRACT_IMAGE_URL", "EXTRACT_IMAGE_KEY"
HELP = (
    "To name the service, use --url and --key, set EXTRACT_IMAGE_URL and EXTRACT_IMAGE_KEY, or run `extract-image login`. "
    "`extract-image serve --ready-key` starts one here and prints both."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """The address of a service and the key that is used there."""

    url: str
    key: str


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --url and --key to a command."""
    command = click.option("--key", envvar=KEY, help="The API key. [env: EXTRACT_IMAGE_KEY]")(command)
    return click.option("--url", envvar=URL, help="The address of the service. [env: EXTRACT_IMAGE_URL]")(command)


def find_service(url: str | None, key: str | None) -> Service | None:
    """The service that is configured, or None if there is none. Raises CommandFault if only half of it is."""
    kept = read_kept(os.environ)
    if not url and kept:
        return Service(url=kept.url, key=key or kept.key)
    if url and not key and kept and kept.url == url.rstrip("/"):
        return kept
    if bool(url) != bool(key):
        missing = "a key" if url else "the address of the service"
        raise CommandFault(Exit.USAGE, f"There is {'an address' if url else 'a key'}, but not {missing}. {HELP}")
    return Service(url=url.rstrip("/"), key=key) if url and key else None


def open_client(url: str | None, key: str | None) -> Client:
    """A client of the configured service. Raises CommandFault if there is none."""
    from cli.client import Client, ClientError

    service = find_service(url, key)
    if service is None:
        raise CommandFault(Exit.USAGE, f"No service is configured. {HELP}")
    try:
        return Client(service.url, service.key, patience=10, request_source="extract-image")
    except ClientError as error:
        raise CommandFault(Exit.USAGE, str(error)) from None


def kept_path(environment: Mapping[str, str]) -> Path:
    """The file that `login` writes."""
    folder = environment.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "extract-image" / "login.json"


def read_kept(environment: Mapping[str, str]) -> Service | None:
    """What `login` has kept. Raises CommandFault if the file can't be read."""
    path = kept_path(environment)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Service(url=str(kept["url"]), key=str(kept["key"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise CommandFault(Exit.USAGE, f"{path} can't be read. Run `extract-image login` again, or delete the file.") from None


def keep(service: Service, environment: Mapping[str, str]) -> Path:
    """Writes the file, which only its owner may read. Returns its path."""
    path = kept_path(environment)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps({"url": service.url, "key": service.key}) + "\n")
    new.chmod(0o600)
    new.replace(path)
    return path


def state_home(environment: Mapping[str, str]) -> Path:
    """The folder for data that a later run needs."""
    return Path(environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "extract-image"
