"""/openapi.json says what the code does, and /docs shows it without anybody's help."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from flask import Flask

from api.app import create_app
from api.openapi.building import EVENTS
from api.openapi.docs_page import SCRIPT, script
from api.openapi.document import NotDescribed, document, operations
from api.openapi.error_codes import ERRORS
from api.openapi.schemas import COMPONENTS, HEADERS
from pipeline.request.fields import FIELDS
from tests.described import _validator
from tests.docs.markdown import ROOT
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


def bodies(described):
    """Each body of a request or an answer: where it is, and what the document says of it."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                yield f"{method} {path} {media}", content
            for status, answer in operation["responses"].items():
                for media, content in answer.get("content", {}).items():
                    yield f"{method} {path} {status} {media}", content


def test_every_body_and_every_answer_has_an_example_that_fits_its_schema(described):
    for where, content in bodies(described):
        examples = [each["value"] for each in content.get("examples", {}).values()] + [content.get("example")]
        examples = [example for example in examples if example is not None]
        assert examples, f"{where} has no example"
        for example in examples:
            _validator(json.dumps(content["schema"])).validate(example)


def test_every_example_of_a_json_request_is_accepted(make_harness, described):
    harness = make_harness(workers_count=0)
    content = described["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        assert harness.ask("POST", "/api/v1/jobs", json=example["value"]).status_code == 202
    harness.drain()


def test_no_schema_of_a_request_states_a_default_because_generated_clients_would_send_it(described):
    assert [field for field, schema in COMPONENTS["Request"]["properties"].items() if "default" in schema] == []
    assert 'default `"merged"`' in COMPONENTS["Request"]["properties"]["granularity"]["description"]


def test_every_webhook_is_described_with_its_signature_and_an_example_that_fits(described):
    assert list(described["webhooks"]) == EVENTS
    for event, webhook in described["webhooks"].items():
        headers = [parameter["name"] for parameter in webhook["post"]["parameters"] if parameter["in"] == "header"]
        assert headers == ["webhook-id", "webhook-timestamp", "webhook-signature"]
        content = webhook["post"]["requestBody"]["content"]["application/json"]
        assert (content["example"]["type"], content["example"]["data"]["status"]) == (event, event.removeprefix("job."))
        _validator(json.dumps(content["schema"])).validate(content["example"])


def test_a_webhook_that_is_sent_is_as_described(make_harness):
    harness = make_harness(workers_count=0)
    body = {"inputMethod": "url", "images": harness.urls(1), "prompt": "p", "webhookUrl": "https://hooks.example/"}
    assert harness.ask("POST", "/api/v1/jobs", json=body).status_code == 202
    harness.drain()
    [(_, headers, sent)] = harness.deliver.calls
    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= set(headers)
    _validator(json.dumps({"$ref": "#/components/schemas/WebhookEvent"})).validate(json.loads(sent))


def test_the_examples_folder_is_served_to_this_machine_alone_and_only_if_asked_for(harness):
    name = "/examples/09-ferry-banner.gif"
    assert harness.client.get(name).status_code == 404
    client = create_app(harness.web, "http://127.0.0.1:8000/examples").test_client()
    shown = client.get(name)
    assert (shown.content_type, shown.data) == ("application/octet-stream", (ROOT / name.strip("/")).read_bytes())
    assert client.get(name, environ_base={"REMOTE_ADDR": "203.0.113.9"}).status_code == 404
    assert client.get(name, headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 404
    for other in ("expected.json", "make.py", "..%2fREADME.md", "none.gif"):
        assert client.get(f"/examples/{other}").status_code == 404
    assert b"http://127.0.0.1:8000/examples/09-ferry-banner.gif" in client.get("/openapi.json").data


class Page(HTMLParser):
    """What a page loads, and what stands between its script tags."""

    def __init__(self):
        super().__init__()
        self.loaded, self.links, self.tags, self.script_text, self.script = [], [], [], "", {}

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.loaded += [values[name] for name in ("src", "srcset", "data-url") if name in values]
        self.links += [values["href"]] if "href" in values else []
        self.script = values if tag == "script" and "data-configuration" in values else self.script
        assert "style" not in values
        assert not any(name.startswith("on") for name in values)

    def handle_data(self, data):
        self.script_text += data.strip() if self.tags[-1:] == ["script"] else ""


@pytest.fixture
def docs(harness):
    page = Page()
    page.feed(harness.client.get("/docs").text)
    return page


def test_the_page_for_people_loads_the_document_and_one_script_of_this_service(docs):
    assert docs.loaded == ["/openapi.json", f"/docs/{SCRIPT}"]
    assert docs.links == ["data:,", "/openapi.json"]
    assert docs.script_text == ""
    assert not set(docs.tags) & {"style", "img", "iframe", "form", "object", "base"}


def test_the_page_for_people_tells_scalar_to_use_nothing_of_other_hosts(docs):
    told = json.loads(docs.script["data-configuration"])
    assert (told["withDefaultFonts"], told["telemetry"], told["persistAuth"]) == (False, False, False)
    assert (told["agent"], told["mcp"], told["hideClientButton"]) == ({"disabled": True}, {"disabled": True}, True)
    assert {told["proxyUrl"], *told["externalUrls"].values()} == {""}
    assert "://" not in docs.script["data-configuration"]


def test_the_policy_of_the_page_for_people_allows_scripts_and_requests_of_this_service_alone(harness):
    shown = harness.client.get("/docs")
    assert shown.content_type == "text/html; charset=utf-8"
    assert (shown.headers["X-Content-Type-Options"], shown.headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    policy = dict(rule.split(" ", 1) for rule in shown.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "connect-src": "'self'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize("accepted", ["gzip, deflate, br", "identity", "gzip;q=0", ""])
def test_the_script_is_kept_for_good_and_compressed_for_who_takes_it(harness, accepted):
    shown = harness.client.get(f"/docs/{SCRIPT}", headers={"Accept-Encoding": accepted})
    assert shown.content_type == "text/javascript; charset=utf-8"
    assert shown.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert (shown.headers["Vary"], shown.headers["X-Content-Type-Options"]) == ("Accept-Encoding", "nosniff")
    compressed = accepted.startswith("gzip,")
    assert shown.headers.get("Content-Encoding") == ("gzip" if compressed else None)
    assert (gzip.decompress(shown.data) if compressed else shown.data) == script()


def test_nothing_else_lies_under_the_page_for_people(harness):
    for name in ("scalar.js", "..", f"{SCRIPT}.map", "%2e%2e%2fpyproject.toml"):
        assert harness.client.get(f"/docs/{name}").json["code"] == "not_found"


def test_the_script_s_package_is_read_and_not_imported():
    code = "import sys, api.app, api.openapi.docs_page as page; page.script(); print([n for n in sys.modules if 'openapi_scalar' in n])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
