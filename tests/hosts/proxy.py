"""deploy/nginx.conf for an nginx that runs outside of a container."""

from __future__ import annotations

import re
from pathlib import Path

from testbed import ROOT

DOOR = 8080


def configuration(servers: list[str], folder: Path, *, port: int = DOOR) -> str:
    """The configuration for web processes at these addresses. `folder`: where nginx may write.

    Debian's nginx can't look names up again, as `resolve` does in the container. So the addresses stand in the file.
    """
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    text = re.sub(r"^ *resolver .*\n", "", text, flags=re.MULTILINE)
    text, names = re.subn(r"server web:8000 resolve;", "\n        ".join(f"server {server};" for server in servers), text)
    text, ports = re.subn(rf"listen {DOOR};", f"listen {port};", text)
    assert (names, ports) == (1, 1), "deploy/nginx.conf names the web processes or its port in another way"
    return text.replace(" /tmp/", f" {folder}/").replace(" /var/cache/nginx", f" {folder}/cache")
