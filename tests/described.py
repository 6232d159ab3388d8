"""A test client that compares every answer with the description of its route in /openapi.json."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from typing import Any

import jsonschema_rs
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from api.openapi.document import OF_KEYS, document
from api.openapi.error_codes import ERRORS
from api.openapi.schemas import COMPONENTS

_documents: dict[frozenset[tuple[str, ...]], dict[str, Any]] = {}  #: by routes
#: Error codes of requests that match no route (api/errors.py).
OF_NO_ROUTE = {"not_found", "method_not_allowed", *OF_KEYS["optional"]}


class DescribedClient(FlaskClient):
    """Fails if an answer has a status, a code, a header, a media type or a key that is not described."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        response = super().open(*args, **kwargs)
        check_refusal(response)
        request = response.request
        try:
            rule, _ = self.application.url_map.bind("", path_info=request.path).match(method=request.method, return_rule=True)
        except HTTPException:
            assert response.headers["X-Error-Code"] in OF_NO_ROUTE
            return response
        check_answer(_described(self.application), request.method.lower(), _path(rule.rule), response)
        return response


def check_answer(described: dict[str, Any], method: str, path: str, response: TestResponse) -> None:
    """Raises AssertionError if the document does not describe this answer."""
    where = f"{method} {path}: {response.status_code}"
    if method in {"head", "options"}:
        return
    answers = described["paths"][path][method]["responses"]
    assert str(response.status_code) in answers, f"{where} is not described"
    answer = answers[str(response.status_code)]
    code = response.headers.get("X-Error-Code")
    if "X-Error-Code" in answer["headers"]:
        assert code in answer["headers"]["X-Error-Code"]["schema"]["enum"], f"{where} {code} is not described"
    else:
        assert code is None, f"{where} {code} is not described"
    ours = set(described["components"]["headers"]) & set(response.headers.keys())
    assert ours <= set(answer["headers"]), f"{where} has headers that are not described"
    content = answer.get("content", {})
    assert (response.mimetype in content) or (not content and not response.content_length), f"{where} is {response.mimetype}"
    if response.mimetype.endswith("json") and not response.is_streamed:
        _validator(json.dumps(content[response.mimetype]["schema"])).validate(json.loads(response.data))


def check_refusal(response: TestResponse) -> None:
    """Raises AssertionError if a header of the answer's error code is missing."""
    code = response.headers.get("X-Error-Code")
    if code in ERRORS:
        assert set(ERRORS[code].headers) <= set(response.headers.keys()), f"{code} lacks one of {ERRORS[code].headers}"
    assert response.status_code not in {429, 503} or code is None or "Retry-After" in response.headers


def _path(rule: str) -> str:
    return rule.replace("<", "{").replace(">", "}")


def _described(app: Any) -> dict[str, Any]:
    """The document of an app. It is the same for all apps with the same routes, and takes as long as a small test to make."""
    routes = frozenset((rule.rule, rule.endpoint, *sorted(rule.methods or ())) for rule in app.url_map.iter_rules())
    if routes not in _documents:
        _documents[routes] = document(app)
    return _documents[routes]


@cache
def _validator(schema: str) -> Any:
    """A validator of the schema that also rejects keys which the schema does not name."""
    return jsonschema_rs.Draft202012Validator({**json.loads(schema), "components": {"schemas": _closed(COMPONENTS)}})


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(deepcopy(inner)) for name, inner in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed
