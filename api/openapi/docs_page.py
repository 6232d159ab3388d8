"""/docs: Scalar shows the OpenAPI document. Scalar's script comes from this service, so the page works offline.

The script is a file of the installed package `flask-openapi-scalar`. Only that file is read; the package is not imported.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from importlib.metadata import distribution, version
from pathlib import Path

from markupsafe import Markup

PACKAGE = "flask-openapi-scalar"
#: The name contains the version, because browsers may cache the script for ever.
SCRIPT = f"scalar-{version(PACKAGE)}.js"

#: Scalar writes styles into the page and draws icons from `data:` URLs, so both are allowed. Scripts come only from this service
#: and requests go only to it, so that an API key that a user types into the page is sent nowhere else.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: Scalar's options. By default Scalar loads fonts from its maker's host and offers the maker's services, so all of that is off.
CONFIGURATION = {
    "agent": {"disabled": True},
    "authentication": {"preferredSecurityScheme": "key"},
    "documentDownloadType": "json",
    "externalUrls": {"dashboardUrl": "", "registryUrl": "", "proxyUrl": "", "apiBaseUrl": ""},
    "hideClientButton": True,
    "mcp": {"disabled": True},
    "modelsSectionLabel": "Objects",  # the default is "Models", which means something else here
    "orderSchemaPropertiesBy": "preserve",
    "persistAuth": False,  # the browser does not keep the key that a user types in
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
    """The HTML page of /docs. `title` is the name of the service."""
    return PAGE.format(title=title, configuration=json.dumps(CONFIGURATION), script=SCRIPT)


def script() -> bytes:
    """Scalar's script, 4.9 MB of UTF-8."""
    return _script_path().read_bytes()


@cache
def compressed_script() -> bytes:
    """The script compressed by gzip, 1.4 MB. It is compressed at the first request and then kept in memory."""
    return gzip.compress(script(), mtime=0)


def _script_path() -> Path:
    return Path(str(distribution(PACKAGE).locate_file("flask_openapi_scalar/templates/scalar/js/scalar.standalone.js")))
