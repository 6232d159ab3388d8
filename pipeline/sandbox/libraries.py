"""Where the libraries lie that a sandboxed process may load."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

_OURS = Path(__file__).resolve().parents[1]
#: The system's libraries and what their loader reads, and random numbers.
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
)
#: The folders that hold packages and nothing else.
_OF_PACKAGES = ("site-packages", "dist-packages")


def library_paths(packages: Sequence[str]) -> list[str]:
    """The folders and files of Python, of the system's libraries, of `pipeline`, and of the named packages that are installed.

    The folders of sys.path are not among them as such, because one may be the folder that also holds the database.
    """
    python = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.join(sys.base_prefix, "lib"))  # noqa: PTH118
    told = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    return [*_SYSTEM, *python, *told, str(_OURS), *_of_packages(packages)]


def _of_packages(packages: Sequence[str]) -> Iterator[str]:
    for name in packages:
        spec = find_spec(name)
        for folder in (spec and spec.submodule_search_locations) or ():
            package = Path(folder).resolve()
            if package.parent.name in _OF_PACKAGES:
                yield str(package.parent)
                continue
            yield str(package)
            yield from map(str, package.parent.glob("*.libs"))  # shared libraries that wheels bring
