"""SECRET_KEY: given, or made once and kept in DATA_DIR."""

from __future__ import annotations

import os
import secrets

from config.settings import Settings


def secret_key(settings: Settings) -> bytes:
    """The key of the hashes. Made on first use, in a file only its owner can read; whoever comes second reads it."""
    if settings.secret_key:
        return settings.secret_key.get_secret_value().encode()
    path = settings.data_dir / "secret_key"
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".secret_key-{os.getpid()}-{secrets.token_hex(4)}")
    if not path.exists():
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(48))
        try:
            os.link(fresh, path)  # fails where another process was first; the file appears whole or not at all
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes().strip()
