"""Imports packages without those that they import only because these are installed.

structlog draws tracebacks with rich if it finds it, and redis-py measures itself with OpenTelemetry. The service uses neither, and each takes 3 to
4 MB in each of its processes.
"""

from __future__ import annotations

import importlib
import sys

#: Package → a package that it imports if it can.
NOT_WITH = {"structlog": "rich", "redis": "opentelemetry"}


def import_lean() -> None:
    """Call it first in a process that runs for long. What is left out here can still be imported afterwards."""
    for package, unwanted in NOT_WITH.items():
        if package in sys.modules or unwanted in sys.modules:
            continue
        sys.modules[unwanted] = None  # type: ignore[assignment]  # `import` then raises ImportError, which the package expects
        try:
            importlib.import_module(package)
        finally:
            del sys.modules[unwanted]
