"""The OpenAPI document, made from the descriptions of the routes.

Each view function has a `@describe(...)` under its route. The document is made by walking the routes, so it describes only
routes that exist. If a route has no description, making the document fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Literal, TypeVar

from flask import Flask

from api.errors import COMPATIBLE, PROBLEM, UNAUTHORIZED
from api.openapi.building import Schema, ref
from api.openapi.error_codes import ERRORS, ITEM_CODES
from api.openapi.examples import ANSWERS, NO_PICTURES, OF_MEDIA, OF_STATUS, REQUESTS, with_pictures
from api.openapi.schemas import COMPONENTS, EVERY_ANSWER, HEADERS, PATH_PARAMETERS
from api.openapi.webhooks import webhooks
from pipeline.request.fields import FIELDS

JSON = "application/json"
TITLE = "extract-image"
#: The introduction that a reader needs before the first operation, in Markdown.
ABOUT = (
    "Extracts what a prompt asks for from 1 to 3000 images a request.\n\n"
    "Send an API key as `Authorization: Bearer <key>`. Bodies are JSON in UTF-8. Times are RFC 3339, in UTC. "
    "Ids cannot be guessed. Every refusal has a stable code in the header `X-Error-Code`."
)
#: The groups of operations, in the order in which they are shown.
TAGS = ("Extract", "Jobs", "Deliveries", "Account", "Health", "About")
_MARKDOWN_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
View = TypeVar("View", bound=Callable[..., Any])

#: Whether an operation needs a key → the codes that it may answer with in addition to its own.
OF_KEYS = {
    "needed": ("unauthorized", "rate_limited", "internal_error", "unavailable", "storage_full"),
    "optional": ("rate_limited", "internal_error", "unavailable", "storage_full"),
    "token": ("unauthorized", "internal_error"),
    "none": ("internal_error",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A parameter in the query or in a header."""

    name: str
    schema: Schema
    what: str
    place: Literal["query", "header"] = "query"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseSpec:
    """The answer if the operation succeeds."""

    status: int
    what: str
    schema: Schema | str | None = None  #: a JSON Schema, or the name of a component; None: there is no body
    media: Sequence[str] = (JSON,)
    others: dict[str, Schema | str] = field(default_factory=dict)  #: more media types, each with its own schema
    headers: Sequence[str] = ()  #: names in schemas.HEADERS, in addition to those of every answer
    example: Any = None  #: a body, if api/openapi/examples.py has none for its component or its media type
    names: dict[str, str] = field(default_factory=dict)  #: path parameter → JSON Pointer to its value in the body


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """The description of a route."""

    summary: str
    tag: str
    answers: Sequence[ResponseSpec]
    errors: Sequence[
        str | tuple[int, str]
    ] = ()  #: codes of api/openapi/error_codes.py that not every route has, or (status, code) if the status differs
    key: Literal["needed", "optional", "token", "none"] = "needed"  #: `token`: METRICS_TOKEN, or a request from this machine
    error_headers: Sequence[str] = ()  #: headers that every error may have
    parameters: Sequence[Parameter] = ()
    bodies: dict[str, Schema | str] = field(default_factory=dict)  #: media type → JSON Schema, or the name of a component
    details: str = ""

    @property
    def refusals(self) -> list[tuple[int, str]]:
        """Status and code of each error that the operation may answer with."""
        codes = (*self.errors, *OF_KEYS[self.key])
        found = {(ERRORS[code].status, code) if isinstance(code, str) else code for code in codes}
        return sorted(found)


class NotDescribed(Exception):
    """A route has no `@describe`."""


def describe(summary: str, **details: Any) -> Callable[[View], View]:
    """Attaches an Operation to the view function. `details` are the other fields of Operation."""
    operation = Operation(summary=summary, **details)

    def keep(view: View) -> View:
        view.operation = operation  # type: ignore[attr-defined]
        return view

    return keep


def operations(app: Flask) -> dict[tuple[str, str], Operation]:
    """(Method, path) → operation, with the path as OpenAPI spells it. Raises NotDescribed."""
    found = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        path = re.sub(r"<(?:[^:<>]*:)?([^<>]*)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            operation = getattr(view, "operation", None)
            if not isinstance(operation, Operation):
                raise NotDescribed(f"{method} {path} ({view.__module__}) needs a @describe under its route")
            found[method, path] = operation
    return found


def document(app: Flask, pictures: str = NO_PICTURES) -> dict[str, Any]:
    """The OpenAPI 3.1 document of all routes. Raises NotDescribed.

    `pictures`: the address of the folder with the pictures that the examples of requests name.
    """
    known = operations(app)
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in sorted(known.items(), key=lambda item: item[0][1]):
        shown = _operation(method, path, operation, _links(known, operation))
        paths.setdefault(path, {})[method.lower()] = with_pictures(shown, pictures)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": version("extract-image"),
            "summary": "Extracts what a prompt asks for from 1 to 3000 images a request.",
            "description": ABOUT,
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in TAGS],
        "paths": paths,
        "webhooks": webhooks(),
        "components": {
            "schemas": COMPONENTS,
            "headers": HEADERS,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
                "token": {"type": "http", "scheme": "bearer", "description": "`METRICS_TOKEN`; not needed on the same machine."},
            },
        },
    }


def _links(known: dict[tuple[str, str], Operation], operation: Operation) -> dict[int, dict[str, Any]]:
    """Status → links to the operations that can be called with a value from its answer."""
    return {
        answer.status: {
            _id(method, path): {"operationId": _id(method, path), "parameters": {name: f"$response.body#{pointer}"}}
            for name, pointer in answer.names.items()
            for method, path in known
            if f"{{{name}}}" in path
        }
        for answer in operation.answers
        if answer.names
    }


def _operation(method: str, path: str, operation: Operation, links: dict[int, dict[str, Any]]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "operationId": _id(method, path),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(path), *map(_parameter, operation.parameters)],
        "responses": _answers(operation, links) | _refusals(path, operation),
        "security": {"needed": [{"key": []}], "optional": [{}, {"key": []}], "token": [{}, {"token": []}], "none": []}[
            operation.key
        ],
    }
    if operation.details:
        shown["description"] = operation.details
    if operation.bodies:
        content = {media: _body(media, schema) for media, schema in operation.bodies.items()}
        shown["requestBody"] = {"required": True, "content": content}
    return shown


def _body(media: str, schema: Schema | str) -> dict[str, Any]:
    """The description of a body. In a form, fields that are neither text nor files are sent as JSON."""
    shown: dict[str, Any] = {"schema": _schema(schema)}
    if isinstance(schema, str):
        shown["examples"] = {
            re.sub(r"\W", "-", summary.lower()): {"summary": summary, "value": value}
            for summary, value in REQUESTS.get(schema, {}).items()
        }
    if media == "multipart/form-data" and isinstance(schema, str):
        as_json = [name for name, each in FIELDS.items() if each.form == "json" and _is_nested(each.schema) and name != "images"]
        shown["encoding"] = {name: {"contentType": JSON} for name in as_json}
    return shown


def _is_nested(schema: Schema) -> bool:
    return bool({"array", "object"} & set(schema.get("type", ())))


def _id(method: str, path: str) -> str:
    """The operation's id, which generated clients use as a name. `GET /api/v1/jobs/{job}/items` becomes `get_job_items`."""
    words: list[str] = []
    for part in path.removeprefix("/api/v1").strip("/").replace(".", "_").replace("-", "_").split("/"):
        if part.startswith("{"):
            words[-1] = part.strip("{}")  # `jobs/{job}` becomes `job`
        else:
            words.append(part)
    return "_".join([method.lower(), *(words if any(words) else ["start"])])


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", path)
    return [{"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]} for name in names]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": False,
        "description": parameter.what,
        "schema": parameter.schema,
        **({"allowEmptyValue": True} if parameter.place == "query" else {}),  # an empty value counts as not given
    }


def _answers(operation: Operation, links: dict[int, dict[str, Any]]) -> dict[str, Any]:
    answers = {}
    for answer in operation.answers:
        shown: dict[str, Any] = {"description": answer.what, "headers": _headers(operation, answer.headers)}
        if answer.schema is not None:
            bodies = dict.fromkeys(answer.media, answer.schema) | answer.others
            shown["content"] = {
                media: {"schema": _schema(schema), **_example(answer, media, schema)} for media, schema in bodies.items()
            }
        if answer.status in links:
            shown["links"] = links[answer.status]
        answers[str(answer.status)] = shown
    return answers


def _example(answer: ResponseSpec, media: str, schema: Schema | str) -> dict[str, Any]:
    """The member `example` of an answer's body, if there is an example."""
    if isinstance(schema, str):
        value = OF_STATUS.get((answer.status, schema), ANSWERS.get(schema))
    else:
        value = answer.example or OF_MEDIA.get(media)
    return {} if value is None else {"example": value}


def _refusals(path: str, operation: Operation) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for status, code in operation.refusals:
        by_status.setdefault(status, []).append(code)
    compatible = path.rstrip("/") == COMPATIBLE
    shown = {}
    for status, codes in by_status.items():
        headers = {name for code in codes if code in ERRORS for name in ERRORS[code].headers}
        code_header = {"description": "The stable code.", "required": True, "schema": {"type": "string", "enum": codes}}
        shown[str(status)] = {
            "description": "\n".join(
                f"- `{code}`: {ERRORS[code].when if code in ERRORS else ITEM_CODES[code]}" for code in codes
            ),
            "headers": {**_headers(operation, [*sorted(headers), *operation.error_headers]), "X-Error-Code": code_header},
            "content": _refused(status, codes[0], compatible=compatible),
        }
    return shown


def _refused(status: int, code: str, *, compatible: bool) -> dict[str, Any]:
    """The bodies of an error, with examples that have this code."""
    when = _MARKDOWN_LINK.sub(r"\1", ERRORS[code].when if code in ERRORS else ITEM_CODES[code])
    message = UNAUTHORIZED.message if code == UNAUTHORIZED.code else f"{when[0].upper()}{when[1:]}."
    error = {"error": message} if compatible else {"error": message, "code": code}
    about = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": message}
    return {
        JSON: {"schema": ref("CompatibleError" if compatible else "Error"), "example": error},
        PROBLEM: {"schema": ref("Problem"), "example": {**about, "error": message, "code": code}},
    }


def _headers(operation: Operation, names: Sequence[str]) -> dict[str, Any]:
    common = EVERY_ANSWER["all"] + (() if operation.key == "none" else EVERY_ANSWER["valid key"])
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, *common)}


def _schema(schema: Schema | str) -> Schema:
    return ref(schema) if isinstance(schema, str) else schema
