"""POST and GET /api/v1/extract-image as existing clients use them: fields, tolerances, spellings, answers."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import textwrap
from typing import IO

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from api.app import create_app
from pipeline.types import MB
from storage.schema import images_table, jobs_table
from tests.fakes.scratch import MemoryScratch
from tests.harness import URL, Harness, b64

PICTURE = b"img " + bytes(range(33, 127)) * 3  #: long enough for four lines of base64, with + and / in it
TEXT = f"1={PICTURE.decode()}"
BODY = {"inputMethod": "base64", "images": [b64(PICTURE)], "prompt": "What?"}
ONE = b'{"inputMethod":"base64","images":["aW1n"],"prompt":"p"%s}'


def answered(harness: Harness, body: object, **options: object) -> dict[str, object]:
    """The body of a 200 that has just the four keys."""
    answer = harness.post(body, **options)
    assert answer.status_code == 200, answer.json
    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json) == ["results", "prompt", "imageCount", "creditUsage"]
    return answer.json


def untouched(harness: Harness) -> bool:
    """Whether nothing was accepted, reserved or written to scratch."""
    return (
        harness.balance() == (100_000, 0, 0)
        and harness.count_rows("jobs") == 0
        and harness.count_rows("steps") == 0
        and harness.scratch.objects == {}
    )


# What existing clients send.


def test_a_client_that_sends_image_and_request_source_is_served(harness):
    body = {"inputMethod": "base64", "image": b64(PICTURE), "prompt": "What?", "requestSource": "API"}
    assert answered(harness, body) == {"results": TEXT, "prompt": "What?", "imageCount": 1, "creditUsage": 11}


@pytest.mark.parametrize(("sent", "is_json"), [("true", True), ("false", False), (True, True), (False, False), (None, False)])
def test_json_mode_may_be_a_string(harness, sent, is_json):
    results = answered(harness, {**BODY, "jsonMode": sent})["results"]
    assert isinstance(results, str)
    assert results == TEXT if not is_json else json.loads(results) == [{"label": 1, "saw": PICTURE.decode()}]


@pytest.mark.parametrize("accept", ["text/html,application/xhtml+xml,application/xml;q=0.9", "text/html", "application/xml", "x"])
def test_whatever_a_client_accepts_json_comes_back(harness, accept):
    answered(harness, BODY, headers={"Accept": accept})
    refused = harness.post({}, headers={"Accept": accept})
    assert refused.headers["Content-Type"] == "application/json"
    assert list(refused.json) == ["error"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8", ""])
def test_the_content_type_decides_nothing(harness, kind):
    answered(harness, BODY, headers={"Content-Type": kind})


@pytest.mark.parametrize(("sent", "kept"), [("API", "API"), (None, None), ("", None), ("x" * 300, "x" * 200)])
def test_the_request_source_is_kept_on_the_job(harness, sent, kept):
    answered(harness, BODY, headers={"Request-Source": sent})
    with harness.database.read() as connection:
        assert connection.execute(select(jobs_table.c.request_source)).scalar_one() == kept


def test_unknown_fields_and_query_parameters_are_ignored(harness):
    body = json.dumps({**BODY, "requestSource": {"deep": [1]}, "temperature": 0.5, "": None}).encode()
    answer = harness.client.post(
        f"{URL}?inputMethod=url&x[]=1&y=%ff", data=body, headers={"Authorization": f"Bearer {harness.key}"}
    )
    assert answer.status_code == 200
    assert answer.json["results"] == TEXT


def test_a_slash_at_the_end_of_the_address_is_tolerated(harness):
    sent = {"Authorization": f"Bearer {harness.key}"}
    assert harness.client.post(f"{URL}/", data=json.dumps(BODY), headers=sent).status_code == 200
    refused = harness.client.post(f"{URL}/", data=b"{}", headers=sent)
    assert (refused.status_code, list(refused.json)) == (400, ["error"])


def test_an_address_with_a_slash_at_its_end_is_the_same_address(make_harness):
    harness = make_harness(workers_count=0, RATE_LIMIT="100000/minute")
    for rule in harness.app.url_map.iter_rules():
        path = re.sub("<[^>]*>", "none", rule.rule)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            plain, slashed = (harness.ask(method, at, data=b"{}") for at in (path, path.rstrip("/") + "/"))
            assert (plain.status_code, plain.headers.get("X-Error-Code")) == (
                slashed.status_code,
                slashed.headers.get("X-Error-Code"),
            ), rule.rule
            assert slashed.status_code not in {307, 308}


def test_the_root_leads_to_the_description(harness):
    answer = harness.client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/console")


def test_a_request_whose_images_are_all_data_urls_may_call_them_urls(harness):
    data = f"data:image/png;base64,{b64(PICTURE)}"
    assert answered(harness, {**BODY, "inputMethod": "url", "images": [data]})["results"] == TEXT


def test_base64_among_urls_fails_alone_and_is_not_kept_in_the_database(harness):
    page = harness.page("https://pictures.example/1", PICTURE)
    large = b64(bytes(range(256)) * 100)
    answer = harness.post({**BODY, "inputMethod": "url", "images": [page, large, f"data:image/png;base64,{large}"]})
    assert [(error["index"], error["code"]) for error in answer.json["errors"]] == [
        (1, "url_not_allowed"),
        (2, "url_not_allowed"),
    ]
    assert "it looks like base64" in answer.json["errors"][0]["message"]
    assert "it is a data: URL" in answer.json["errors"][1]["message"]
    with harness.database.read() as connection:
        sources = connection.execute(select(images_table.c.source)).scalars().all()
    assert max(map(len, sources)) <= 8001


def test_unknown_fields_and_unchecked_patterns_are_warnings_of_the_job(harness):
    schema = {"properties": {"total": {"type": "string", "pattern": "^(?!0)"}}}
    sent = harness.post({**BODY, "json_mode": True, "schema": schema}, headers={"Prefer": "respond-async"})
    unknown, unchecked = sent.json["warnings"]
    assert '"json_mode" (did you mean "jsonMode"?)' in unknown
    assert "#/properties/total/pattern" in unchecked


def test_a_byte_order_mark_before_the_body_is_tolerated(harness):
    answered(harness, b"\xef\xbb\xbf" + json.dumps(BODY).encode())


def in_json(text: str) -> bytes:
    return json.dumps({**BODY, "images": ["%"]}).replace('"%"', f'"{text}"').encode()


SPELLINGS = {
    "bare": b64(PICTURE),
    "wrapped at 76 columns with CR LF": "\\r\\n".join(textwrap.wrap(b64(PICTURE), 76)) + "\\r\\n",
    "wrapped at 76 columns with LF": base64.encodebytes(PICTURE).decode().replace("\n", "\\n"),
    "as PHP's json_encode writes it": b64(PICTURE).replace("/", "\\/"),
    "PHP's chunk_split with escaped slashes": "\\r\\n".join(textwrap.wrap(b64(PICTURE), 76)).replace("/", "\\/"),
    "with plus signs escaped": b64(PICTURE).replace("+", "\\u002b"),
    "a data URI": f"data:image/png;base64,{b64(PICTURE)}",
    "an upper-case data URI": f"DATA:IMAGE/PNG;BASE64,{b64(PICTURE)}",
    "a data URI with a character set": f"data:image/png;charset=utf-8;base64,{b64(PICTURE)}",
    "a data URI from PHP": f"data:image/png;base64,{b64(PICTURE)}".replace("/", "\\/"),
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_base64_is_read_in_every_spelling_that_clients_use(harness, text):
    assert answered(harness, in_json(text))["results"] == TEXT


@pytest.mark.parametrize("prompt", ["Was steht da? 图片 🧾", ' "quoted"\\ \n', "p" * 100_000])
def test_the_prompt_comes_back_as_it_was_sent(harness, prompt):
    assert answered(harness, {**BODY, "prompt": prompt})["prompt"] == prompt


# What is refused at the door.

REFUSED: dict[str, tuple[bytes, str]] = {
    "no body": (b" ", "invalid_json"),
    "an array": (b"[]", "invalid_json"),
    "null": (b"null", "invalid_json"),
    "NaN": (ONE % b',"jsonMode":NaN', "invalid_json"),
    "NaN in an unknown field": (ONE % b',"x":[NaN]', "invalid_json"),
    "a lone surrogate in the prompt": (ONE % rb',"prompt":"\ud800"', "invalid_json"),
    "a lone surrogate in an image": (ONE % rb',"images":["\udc00"]', "invalid_json"),
    "bytes that are no UTF-8 in a name": (ONE % b',"\xff":1', "invalid_json"),
    "bytes that are no UTF-8 in the prompt": (ONE % b',"prompt":"\xff"', "invalid_json"),
    "trailing garbage": (ONE % b"" + b"x", "invalid_json"),
    "nesting without end": (ONE % (b',"x":' + b"[" * 100_000), "invalid_json"),
    "a deeply nested jsonMode": (ONE % (b',"jsonMode":' + b"[" * 500 + b"]" * 500), "invalid_json_mode"),
    "a last inputMethod that is wrong": (ONE % b',"inputMethod":"file"', "invalid_input_method"),
    "no inputMethod": (b'{"images":["aW1n"],"prompt":"p"}', "invalid_input_method"),
    "inputMethod as a number": (ONE % b',"inputMethod":1', "invalid_input_method"),
    "no images": (b'{"inputMethod":"url","prompt":"p"}', "invalid_images"),
    "images as a string": (ONE % b',"images":"aW1n"', "invalid_images"),
    "images as an object": (ONE % b',"images":{"0":"aW1n"}', "invalid_images"),
    "an image as a number": (ONE % b',"images":["aW1n",1]', "invalid_images"),
    "an image as null": (ONE % b',"images":["aW1n",null]', "invalid_images"),
    "an empty array": (ONE % b',"images":[]', "invalid_image_count"),
    "no prompt": (b'{"inputMethod":"base64","images":["aW1n"]}', "invalid_prompt"),
    "a blank prompt": (ONE % rb',"prompt":" \n"', "invalid_prompt"),
    "prompt as a number": (ONE % b',"prompt":1', "invalid_prompt"),
    "prompt as null": (ONE % b',"prompt":null', "invalid_prompt"),
    "a NUL in the prompt": (ONE % rb',"prompt":"a\u0000"', "invalid_prompt"),
    "jsonMode as a number": (ONE % b',"jsonMode":1', "invalid_json_mode"),
    "jsonMode as yes": (ONE % b',"jsonMode":"yes"', "invalid_json_mode"),
    "jsonMode as a huge number": (ONE % (b',"jsonMode":' + b"9" * 400), "invalid_json_mode"),
    "the url-safe alphabet": (ONE % b',"images":["aW1n","-_-_"]', "invalid_base64"),
    "base64 without its padding": (ONE % b',"images":["aW1n","aW0"]', "invalid_base64"),
    "a data URI without base64": (ONE % b',"images":["aW1n","data:image/png,aW1n"]', "invalid_base64"),
    "an empty string": (ONE % b',"images":[""]', "image_empty"),
    "only empty strings": (ONE % b',"images":[" ",""]', "image_empty"),
    "an empty data URI": (ONE % b',"images":["data:image/png;base64,"]', "image_empty"),
    "an empty URL": (ONE % b',"inputMethod":"url","images":["",""]', "image_empty"),
}


@pytest.mark.parametrize(("body", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_request_of_the_wrong_shape_is_a_400_with_one_key_and_leaves_nothing(harness, body, code):
    refused = harness.post(body)
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (400, code)
    assert list(refused.json) == ["error"]
    assert isinstance(refused.json["error"], str)
    assert untouched(harness)


@pytest.mark.parametrize("name", ["the url-safe alphabet", "base64 without its padding"])
def test_a_refused_image_is_named_by_its_index(harness, name):
    assert harness.post(REFUSED[name][0]).json["error"].startswith("images[1] is ")


@pytest.mark.parametrize(
    ("method", "empty"), [("base64", ""), ("base64", " \r\n"), ("base64", "data:image/png;base64,"), ("url", ""), ("url", "\t")]
)
def test_an_empty_string_among_images_fails_alone(make_harness, method, empty):
    harness = make_harness(MERGED_PER_CALL="1")  # so that it is alone in its chunk too
    good = b64(PICTURE) if method == "base64" else harness.page("https://pictures.example/1", PICTURE)
    answer = harness.post({**BODY, "inputMethod": method, "images": [empty, good]})
    assert (answer.status_code, answer.json["imageCount"]) == (200, 1)
    assert [(error["index"], error["code"]) for error in answer.json["errors"]] == [(0, "image_empty")]


def test_who_asks_for_problem_details_gets_them_with_error_kept(harness):
    refused = harness.post({}, headers={"Accept": "application/json;q=0.1, application/problem+json"})
    text = 'inputMethod must be "url" or "base64", not nothing.'
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": text,
        "error": text,
        "code": "invalid_input_method",
    }
    assert refused.headers["X-Error-Code"] == "invalid_input_method"


@pytest.mark.parametrize("accept", ["*/*", "application/*", "application/problem+json;q=0, */*"])
def test_who_does_not_name_problem_details_does_not_get_them(harness, accept):
    assert list(harness.post({}, headers={"Accept": accept}).json) == ["error"]


@pytest.mark.parametrize("accept", ["Application/Problem+JSON", "application/problem+json; charset=utf-8"])
def test_problem_details_are_known_in_any_spelling(harness, accept):
    assert harness.post({}, headers={"Accept": accept}).headers["Content-Type"] == "application/problem+json"


def test_an_address_that_is_none_is_a_404_in_json(harness):
    missing = harness.get("/api/v1/nothing")
    assert (missing.status_code, missing.headers["X-Error-Code"]) == (404, "not_found")
    assert missing.json == {
        "error": "There is nothing at this address. GET /docs lists every address.",
        "code": "not_found",
    }


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_another_method_is_a_405_in_json_that_names_the_allowed_ones(harness, method):
    refused = harness.client.open(URL, method=method, headers={"Accept": "text/html"})
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (405, "method_not_allowed")
    assert refused.json == {"error": f"{method} is not possible at this address; use GET or POST."}
    assert {"GET", "POST"} <= set(refused.headers["Allow"].split(", "))


class BrokenScratch(MemoryScratch):
    """Fails at the second object of a job."""

    def put(self, key: str, body: IO[bytes]) -> None:
        if key.endswith("c1"):
            raise ValueError("a mistake of ours: /secret/place")
        super().put(key, body)


def test_a_fault_of_ours_is_a_500_in_the_contract_s_words_that_tells_no_secret_and_leaves_nothing(make_harness):
    harness = make_harness(MERGED_PER_CALL="1")
    broken = BrokenScratch()
    app = create_app(dataclasses.replace(harness.web, scratch=broken))
    body = {**BODY, "images": [b64(b"img a"), b64(b"img b"), b64(b"img c")]}
    failed = app.test_client().post(URL, json=body, headers={"Authorization": f"Bearer {harness.key}"})
    assert (failed.status_code, failed.headers["X-Error-Code"]) == (500, "internal_error")
    assert list(failed.json) == ["error"]
    assert failed.json["error"].startswith("Failed to extract image data: ")
    assert "secret" not in failed.json["error"]
    assert broken.objects == {}
    assert untouched(harness)


# GET: what can be sent.


@pytest.mark.parametrize("key", [None, "right", "wrong", "[object Object]"])
@pytest.mark.parametrize("query", ["", "?format=xml&x=1", "?%ff=%00"])
def test_the_formats_and_limits_are_told_to_everyone(harness, key, query):
    sent = {"Authorization": f"Bearer {harness.key if key == 'right' else key}"} if key else {}
    answer = harness.client.get(URL + query, headers={**sent, "Accept": "text/html"})
    assert answer.status_code == 200
    assert answer.json["supportedFormats"] == ["PNG", "JPEG", "WebP", "HEIC", "HEIF"]
    assert {"TIFF", "GIF", "BMP"} <= set(answer.json["convertedFormats"])
    assert not set(answer.json["supportedFormats"]) & set(answer.json["convertedFormats"])
    assert answer.json["limits"] == {
        "maxImages": 3000,
        "maxImageBytes": 20 * MB,
        "maxTotalBytes": 100 * MB,
        "maxOutputTokensPerCall": 8192,
    }
    assert answer.json["credits"] == {"base": 10, "perImage": 1}
    assert ("X-RateLimit-Limit" in answer.headers) is (key == "right")


# Whatever comes.

FRAGMENTS = st.sampled_from(
    [
        b'"prompt":"p"',
        b'"inputMethod":"url"',
        b'"inputMethod":"base64"',
        b'"images":["aW1n"]',
        b'"images":["https://a.example/"]',
        b'"images":[""]',
        b'"images":[',
        b'"image":"aW1n"',
        b'"jsonMode":"true"',
        b'"granularity":"perImage"',
        b'"\xff":1',
        b"null",
    ]
)
BODIES = st.one_of(
    st.binary(max_size=80),
    st.builds(lambda parts, junk: b"{" + b",".join(parts) + junk + b"}", st.lists(FRAGMENTS, max_size=5), st.binary(max_size=6)),
    st.builds(lambda value: ONE % b"," + json.dumps(value).encode()[1:-1], st.dictionaries(st.text(), st.text(), min_size=1)),
)


def test_any_bytes_are_answered_and_what_is_refused_leaves_nothing(make_harness):
    harness = make_harness(RATE_LIMIT="1000000/minute")

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(body=BODIES)
    @example(body=b"")
    @example(body=b'{"\xff": 1}')
    @example(body=ONE % b"")
    @example(body=ONE % (b',"jsonMode":' + b'{"a":' * 930 + b"1" + b"}" * 930))
    def send(body: bytes) -> None:
        before = harness.count_rows("jobs"), harness.count_rows("ledger")
        answer = harness.post(body)
        assert answer.status_code in {200, 400, 411}
        if answer.status_code == 200:
            return
        assert list(answer.json) == ["error"]
        assert answer.headers["X-Error-Code"]
        accepted = harness.count_rows("jobs") - before[0]
        if accepted == 0:  # else the job has failed: no image of it could be processed, and it has released all it held
            assert harness.count_rows("ledger") == before[1]
        assert harness.balance()[1] == 0

    send()
