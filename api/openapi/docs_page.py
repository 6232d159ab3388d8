"""/docs: the OpenAPI document, shown by Scalar. Scalar's script comes from this service, so the page works offline.

The script lies in the installed package `flask-openapi-scalar`. Only that file is read; the package is not imported.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from importlib.metadata import distribution, version
from pathlib import Path

from markupsafe import Markup

PACKAGE = "flask-openapi-scalar"
#: The name has the version in it, because browsers are told to keep the script for good.
SCRIPT = f"scalar-{version(PACKAGE)}.js"

#: Scalar writes styles into the page while it runs and draws icons from `data:` URLs, so both are allowed. Scripts come from
#: this service alone and requests go to it alone, so an API key that is typed into the page can go nowhere else.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: What Scalar is told. Its defaults load fonts from its maker's host and offer the maker's services: all of that is off.
CONFIGURATION = {
    "agent": {"disabled": True},
    "authentication": {"preferredSecurityScheme": "key"},
    "documentDownloadType": "json",
    "externalUrls": {"dashboardUrl": "", "registryUrl": "", "proxyUrl": "", "apiBaseUrl": ""},
    "hideClientButton": True,
    "mcp": {"disabled": True},
    "modelsSectionLabel": "Objects",  # by default "Models", which here means something else
    "orderSchemaPropertiesBy": "preserve",
    "persistAuth": False,  # the key that a person types in is not kept in the browser
    "proxyUrl": "",
    "showDeveloperTools": "never",
    "telemetry": False,
    "withDefaultFonts": False,
}

PAGE = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title} API</title>
</head>
<body>
<noscript>This page needs JavaScript. The same for programs: <a href="/openapi.json">/openapi.json</a>.</noscript>
<script id="api-reference" data-url="/openapi.json" data-configuration="{configuration}"></script>
<script src="/docs/{script}"></script>
</body>
</html>
""")


def page(title: str) -> str:
    """The page about the service of this name."""
    return PAGE.format(title=title, configuration=json.dumps(CONFIGURATION), script=SCRIPT)


def script() -> bytes:
    """Scalar's script, 4.9 MB of UTF-8."""
    return _script_path().read_bytes()


@cache
def compressed_script() -> bytes:
    """The script by gzip, 1.4 MB. It is compressed when it is first asked for, and kept."""
    return gzip.compress(script(), mtime=0)


def _script_path() -> Path:
    return Path(str(distribution(PACKAGE).locate_file("flask_openapi_scalar/templates/scalar/js/scalar.standalone.js")))
