"""SECRET_KEY: from the settings, or generated once and stored in DATA_DIR."""

from __future__ import annotations

import os
import secrets

from config.settings import Settings


def secret_key(settings: Settings) -> bytes:
    """The key for hashes and encryption.

    If the settings have none, the first process generates it in a file that only its owner can read. Later processes read that
    file.
    """
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
            os.link(fresh, path)  # atomic; raises FileExistsError if another process was first
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes().strip()
