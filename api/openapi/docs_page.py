"""/docs: the OpenAPI document as one HTML page. No script, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #8881; --faint: #777; --link: #0b62c4; --get: #1a7f4b; --post: #0b62c4;
  --delete: #b3261e }
@media (prefers-color-scheme: dark) { :root { --faint: #999; --link: #7cb7ff; --get: #5fd39a; --post: #7cb7ff; --delete: #ff8a80 } }
* { box-sizing: border-box }
html { scroll-padding-top: 1rem }
body { margin: 0; font: 16px/1.55 system-ui, sans-serif; display: grid; grid-template-columns: 17rem minmax(0, 1fr) }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; padding: 1.5rem 1.25rem; border-right: 1px solid var(--line);
  font-size: .875rem }
nav h2 { font-size: .75rem; text-transform: uppercase; letter-spacing: .06em; color: var(--faint); margin: 1.4rem 0 .3rem }
nav a { display: block; padding: .15rem 0; overflow-wrap: anywhere }
main { padding: 1.5rem 2.5rem 5rem; max-width: 60rem }
a { color: var(--link); text-decoration: none } a:hover, a:focus-visible { text-decoration: underline }
h1 { font-size: 1.9rem; margin: 0 } h1 small { font-size: 1rem; color: var(--faint); font-weight: normal }
h2.tag { margin: 3rem 0 0; font-size: 1.35rem }
section.operation, section.schema { border-top: 1px solid var(--line); padding: 1.4rem 0 .6rem; margin-top: 1rem }
h3 { margin: 0; font-size: 1.1rem } h4 { margin: 1.2rem 0 .3rem; font-size: .95rem }
.address { font: 600 .95rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; margin: .35rem 0 }
.method { display: inline-block; min-width: 3.4rem; text-transform: uppercase }
.get { color: var(--get) } .post { color: var(--post) } .delete { color: var(--delete) }
code { font: .875em ui-monospace, monospace; background: var(--soft); border-radius: .25rem; padding: .08em .3em }
.key { color: var(--faint); font-size: .875rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .925rem }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--faint); font-size: .8rem }
td ul { margin: 0; padding-left: 1rem }
details { margin-top: .8rem } summary { cursor: pointer; font-weight: 600; font-size: .95rem }
td:first-child { white-space: nowrap }
.must { color: var(--faint); font-size: .8rem }
@media (max-width: 50rem) { body { display: block } nav { position: static; height: auto; border: 0; border-bottom: 1px solid var(--line) }
  main { padding: 1.25rem } nav, main { padding-left: 1rem; padding-right: 1rem } }
"""

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ info.title }} API</title>
<style>{{ style }}</style>
</head>
<body>
<nav aria-label="Contents">
<strong>{{ info.title }}</strong>
{% for tag, operations in tags.items() %}
<h2>{{ tag }}</h2>
{% for operation in operations %}<a href="#{{ operation.operationId }}">{{ operation.summary }}</a>
{% endfor %}
{% endfor %}
<h2>Objects</h2>
{% for name in schemas %}<a href="#{{ name }}">{{ name }}</a>
{% endfor %}
</nav>
<main>
<h1>{{ info.title }} <small>{{ info.version }}</small></h1>
<p>{{ info.summary }} Also for programs: <a href="/openapi.json">openapi.json</a> (OpenAPI {{ openapi }}).</p>
<p>A key goes in <code>Authorization: Bearer &lt;key&gt;</code>. Bodies are JSON in UTF-8; times are RFC 3339, in UTC.</p>
{% for tag, operations in tags.items() %}
<h2 class="tag">{{ tag }}</h2>
{% for operation in operations %}
<section class="operation" id="{{ operation.operationId }}">
<h3>{{ operation.summary }}</h3>
<p class="address"><span class="method {{ operation.method }}">{{ operation.method }}</span> {{ operation.path }}</p>
<p class="key">{{ operation.key }}</p>
{% if operation.description %}<p>{{ operation.description | marked }}</p>{% endif %}
{% if operation.parameters %}
<h4>Parameters</h4>
<div class="scroll"><table>
<tr><th>name</th><th>in</th><th>value</th><th>meaning</th></tr>
{% for parameter in operation.parameters %}
<tr><td><code>{{ parameter.name }}</code>{% if parameter.required %} <span class="must">required</span>{% endif %}</td>
<td>{{ parameter.in }}</td><td>{{ parameter.schema | kind }}</td><td>{{ parameter.description | marked }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% for media, content in operation.get("requestBody", {}).get("content", {}).items() %}
<h4>Body, <code>{{ media }}</code></h4>
<p>{{ content.schema | kind }}</p>
{% endfor %}
{% for refusals in (false, true) %}
{% if refusals %}<details><summary>Errors</summary>{% else %}<h4>Answers</h4>{% endif %}
<div class="scroll"><table>
<tr><th>status</th><th>body</th><th>when</th></tr>
{% for status, answer in operation.responses.items() if refusals == ("X-Error-Code" in answer.headers) %}
<tr><td>{{ status }}</td>
<td>{% for media, content in answer.get("content", {}).items() %}{% if media != "application/problem+json" %}\
{{ content.schema | kind }}{% if media != "application/json" %} <code>{{ media }}</code>{% endif %}<br>{% endif %}{% endfor %}</td>
<td>{{ answer.description | marked }}</td></tr>
{% endfor %}
</table></div>
{% if refusals %}</details>{% endif %}
{% endfor %}
</section>
{% endfor %}
{% endfor %}
<h2 class="tag">Objects</h2>
{% for name, schema in schemas.items() %}
<section class="schema" id="{{ name }}">
<h3>{{ name }}</h3>
{% if schema.description %}<p>{{ schema.description | marked }}</p>{% endif %}
{% if schema.properties %}
<div class="scroll"><table>
<tr><th>member</th><th>value</th><th>meaning</th></tr>
{% for member, inner in schema.properties.items() %}
<tr><td><code>{{ member }}</code>{% if member in schema.get("required", []) %} <span class="must">always</span>{% endif %}</td>
<td>{{ inner | kind }}</td><td>{{ inner.get("description", "") | marked }}</td></tr>
{% endfor %}
</table></div>
{% else %}<p>{{ schema | kind }}</p>{% endif %}
</section>
{% endfor %}
</main>
</body>
</html>
"""

LONG_PATTERN = "x" * 24  #: what is as long helps nobody who reads

KEYS = {
    "needed": "Needs a key.",
    "optional": "Needs no key; one is tolerated.",
    "token": "For who asks from the same machine, or has METRICS_TOKEN.",
    "none": "Needs no key.",
}


def page(document: dict[str, Any]) -> str:
    """The page about an OpenAPI document of api/openapi/document.py."""
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters.update(kind=_kind, marked=_marked)
    tags: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            shown = {**operation, "path": path, "method": method, "key": _key(operation)}
            tags[operation["tags"][0]].append(shown)
    return environment.from_string(TEMPLATE).render(
        info=document["info"],
        openapi=document["openapi"],
        schemas=document["components"]["schemas"],
        style=Markup(STYLE),  # noqa: S704 - ours
        tags=tags,
    )


def _key(operation: dict[str, Any]) -> str:
    schemes = {name for scheme in operation["security"] for name in scheme}
    return KEYS[
        "token" if "token" in schemes else "none" if not schemes else "optional" if {} in operation["security"] else "needed"
    ]


def _marked(text: str) -> Markup:
    """Backticks and lists of Markdown: all that the descriptions use."""
    shown = re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text)))
    if shown.startswith("- "):
        shown = "<ul>" + "".join(f"<li>{line.removeprefix('- ')}</li>" for line in shown.split("\n")) + "</ul>"
    return Markup(shown)  # noqa: S704 - escaped above


def _kind(schema: dict[str, Any]) -> Markup:
    """A schema in a few words, with links to the objects that it names."""
    return Markup(", ").join([_type(schema), *_limits(schema)])


def _type(schema: dict[str, Any]) -> Markup:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#{0}">{0}</a>').format(name)
    if "enum" in schema:
        return Markup(" or ").join(
            Markup("<code>{}</code>").format("null" if value is None else value) for value in schema["enum"]
        )
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return Markup(" or ").join(map(_type, choices))
    if "items" in schema:
        return Markup("array of {}").format(_type(schema["items"]))
    if inner := schema.get("properties"):
        names = Markup(", ").join(Markup("<code>{}</code>").format(name) for name in inner)
        return Markup("object: {}").format(names)
    kinds = schema.get("type", "any")
    return escape(" or ".join(kinds) if isinstance(kinds, list) else kinds)


def _limits(schema: dict[str, Any]) -> list[Markup]:
    least, most = schema.get("minimum", schema.get("minItems")), schema.get("maximum", schema.get("maxItems"))
    said = []
    if most is not None:
        said.append(f"{least or 0} to {most}")
    if "default" in schema:
        said.append(f"default {json.dumps(schema['default'])}")
    if len(schema.get("pattern", LONG_PATTERN)) < len(LONG_PATTERN):
        said.append(f"matching `{schema['pattern']}`")
    return [_marked(text) for text in said]
