"""/openapi.json says what the code does, and /docs shows it without anybody's help."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from flask import Flask

from api.app import create_app
from api.openapi.document import NotDescribed, document, operations
from api.openapi.error_codes import ERRORS
from api.openapi.schemas import COMPONENTS, HEADERS
from pipeline.request.fields import FIELDS
from tests.docs.test_reference import error_codes_in_the_code
from tests.harness import Harness

#: Answers of addresses that are none, and of methods that an address has not.
OF_NO_OPERATION = {"method_not_allowed"}


@pytest.fixture
def described(harness: Harness):
    return harness.get("/openapi.json").json


def refs(value):
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from refs(inner)


def test_every_route_and_method_is_described_and_no_other(harness, described):
    routed = {
        (method.lower(), re.sub(r"<(\w+)>", r"{\1}", rule.rule))
        for rule in create_app(harness.web).url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert {(method, path) for path, methods in described["paths"].items() for method in methods} == routed


def test_a_route_without_a_description_is_named():
    app = Flask("api", static_folder=None)
    app.get("/secret/<thing>")(lambda thing: thing)
    with pytest.raises(NotDescribed, match=re.escape("GET /secret/{thing}")):
        document(app)


def test_the_fields_of_a_request_are_those_that_the_code_reads(described):
    assert set(described["components"]["schemas"]["Request"]["properties"]) == {*FIELDS, "image"}


def test_the_error_codes_are_those_that_the_code_raises_with_the_same_status():
    assert {(error.status, code) for code, error in ERRORS.items()} == error_codes_in_the_code()


def test_every_error_code_belongs_to_an_operation(harness):
    named = {code for operation in operations(harness.app).values() for _, code in operation.refusals}
    assert set(ERRORS) - named == OF_NO_OPERATION


def test_every_reference_leads_somewhere_and_every_component_is_referred_to(described):
    named = set(refs(described))
    there = {f"#/components/schemas/{name}" for name in COMPONENTS} | {f"#/components/headers/{name}" for name in HEADERS}
    assert named == there - {"#/components/headers/Allow"}


def test_every_operation_has_a_name_of_its_own_and_says_who_may_call_it(described):
    found = [operation for methods in described["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in found}) == len(found)
    for operation in found:
        may_be_refused = operation["security"] in ([{"key": []}], [{}, {"token": []}])
        assert may_be_refused == ("401" in operation["responses"]), operation["operationId"]


def test_every_operation_refuses_by_rfc_9457_for_who_asks_for_it(harness, described):
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if operation["security"] == [{"key": []}]:
                accept = {"Accept": "application/problem+json"}
                refused = harness.client.open(re.sub("{.*?}", "x", path), method=method.upper(), headers=accept)
                assert refused.content_type == "application/problem+json"
                assert (refused.json["status"], refused.json["code"]) == (401, "unauthorized")


def test_every_operation_stands_under_one_of_the_tags_and_none_is_empty(described):
    used = {tuple(operation["tags"]) for methods in described["paths"].values() for operation in methods.values()}
    assert used == {(tag["name"],) for tag in described["tags"]}


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.inside, self.outside, self.tags = set(), set(), set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                assert value not in self.ids
                self.ids.add(value)
            elif name in {"href", "src", "srcset", "action"}:
                (self.inside if value.startswith("#") else self.outside).add(value)


def test_the_page_for_people_has_every_operation_and_object_and_loads_nothing(harness, described):
    shown = harness.client.get("/docs")
    assert shown.content_type == "text/html; charset=utf-8"
    links = Links()
    links.feed(shown.text)
    operation_ids = {operation["operationId"] for methods in described["paths"].values() for operation in methods.values()}
    assert links.ids == operation_ids | set(described["components"]["schemas"])
    assert {name.removeprefix("#") for name in links.inside} == links.ids
    assert links.outside == {"/openapi.json"}
    assert not links.tags & {"script", "link", "img", "iframe", "form", "object"}
    assert "url(" not in shown.text


def test_the_page_for_people_may_do_nothing_but_be_styled(harness):
    policy = harness.client.get("/docs").headers["Content-Security-Policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert re.fullmatch(r"style-src 'sha256-[A-Za-z0-9+/=]+'", policy[1])
    assert {"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
