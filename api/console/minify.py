"""Makes scripts and styles shorter before they are served, so that their source can have comments and whole names.

The library renames only what is local to a function. It has packages for Linux alone. Elsewhere the files are served as they are:
the console works the same, and a browser loads about half as much again.
"""

from __future__ import annotations

try:
    import minify as library
except ImportError:
    library = None

LIBRARY = library is not None  #: whether files get shorter
MEDIA_TYPES = {".css": "text/css", ".js": "application/javascript"}  #: the files that it shortens, by their suffix


def minified(suffix: str, source: str) -> str:
    """The same script or style, shorter. A file of another kind stays as it is. Raises ValueError at a fault of syntax."""
    if library is None or suffix not in MEDIA_TYPES:
        return source
    shorter: str = library.string(MEDIA_TYPES[suffix], source)
    return shorter
