"""Writes the digest of each image's tag into the Compose files and the Dockerfiles: `python -m tools.pins [FILE …]`.

A tag may be moved to other bytes later; a digest names the bytes. Digests are looked up with `docker buildx imagetools inspect`, which
asks the registry and downloads no image. The files are written only if every digest was found. A digest that a file already has is
replaced by the one that the tag has now.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_MORE = ROOT / "deploy" / "compose"
FILES = (
    *(ROOT / "docker-compose.yml", ROOT / "Dockerfile"),
    *(_MORE / name for name in ("pgbouncer.yml", "pgbouncer.Dockerfile", "caddy.yml", "caddy.Dockerfile")),
)
OURS = "extract-image"  #: what is built here begins with it, so no registry has it

#: `image: name:tag` of Compose, and `FROM name:tag` of a Dockerfile, each with the digest that it may have.
_IMAGE = re.compile(
    r"^(?P<before>[ ]*image:[ ]+|FROM[ ]+)(?P<name>[\w./-]+):(?P<tag>[\w.-]+)(?:@sha256:[0-9a-f]{64})?(?=\s)", re.MULTILINE
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class NotFound(Exception):
    """The digest of an image could not be looked up."""


def images(text: str) -> dict[str, str]:
    """Name → tag of each image in the text of a Compose file or a Dockerfile, without the image that is built here."""
    return {found["name"]: found["tag"] for found in _IMAGE.finditer(text) if not found["name"].startswith(OURS)}


def pinned(text: str, digest_of: Callable[[str], str]) -> str:
    """The text with the digest of each image. `digest_of` gives the digest of `name:tag`."""

    def pin(found: re.Match[str]) -> str:
        if found["name"].startswith(OURS):
            return found[0]
        image = f"{found['name']}:{found['tag']}"
        return f"{found['before']}{image}@{digest_of(image)}"

    return _IMAGE.sub(pin, text)


def look_up(image: str) -> str:
    """The digest that the registry has for `name:tag`, of all platforms together. Raises NotFound."""
    command = ("docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotFound(f"{image}: {error}") from error
    digest = done.stdout.strip()
    if done.returncode or not _DIGEST.fullmatch(digest):
        raise NotFound(f"{image}: {(done.stderr.strip() or digest or 'docker said nothing')[-300:]}")
    return digest


def main(files: Iterable[Path]) -> int:
    """0 if every image was pinned. 1 if a digest was not found: no file is changed then."""
    known: dict[str, str] = {}

    def digest_of(image: str) -> str:
        if image not in known:
            known[image] = look_up(image)
            print(f"{image} is {known[image]}")
        return known[image]

    try:
        texts = {path: pinned(path.read_text(), digest_of) for path in files}
    except NotFound as error:
        print(f"No file was changed, because a digest was not found. {error}", file=sys.stderr)
        return 1
    for path, text in texts.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(given) for given in sys.argv[1:]] or FILES))
