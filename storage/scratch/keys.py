"""The grammar of scratch keys."""

from __future__ import annotations

import re

KEY = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
