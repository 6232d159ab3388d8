"""What a request may be: each field, each limit, each spelling of base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import pybase64
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.outbound.addresses import parse_allow
from pipeline.request.check import RequestFault, base64_payload, base64_size, check
from pipeline.request.fields import is_storable
from pipeline.types import MAX_IMAGE_BYTES, MAX_IMAGES, MAX_TOTAL_BYTES

FIELDS = {"inputMethod": "base64", "prompt": "What?"}
LARGEST = b"A" * (MAX_IMAGE_BYTES // 3 * 4) + b"AAA="  #: 20 MB exactly: the limit is 2 over a multiple of 3
ONE_OVER = b"A" * (MAX_IMAGE_BYTES // 3 * 4) + b"AAAA"


def wrapped(text: bytes, end: bytes, columns: int = 76) -> bytes:
    return end.join(text[at : at + columns] for at in range(0, len(text), columns))


def as_data_uri(prefix: str) -> Callable[[bytes], bytes]:
    return lambda data: prefix.encode() + base64.b64encode(data)


#: how existing clients write an image, after JSON's own escapes
SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "bare": base64.b64encode,
    "wrapped with CR LF": lambda data: wrapped(base64.b64encode(data), b"\r\n"),
    "wrapped with LF": base64.encodebytes,
    "wrapped at 64": lambda data: wrapped(base64.b64encode(data), b"\n", 64),
    "data URI": as_data_uri("data:image/png;base64,"),
    "upper-case data URI": as_data_uri("DATA:IMAGE/PNG;BASE64,"),
    "data URI with a character set": as_data_uri("data:image/svg+xml;charset=utf-8;base64,"),
    "data URI without a type": as_data_uri("data:;base64,"),
    "wrapped data URI": lambda data: b"data:image/jpeg;base64," + base64.encodebytes(data),
}


def fault_if_any(images: Any, fields: dict[str, Any]) -> RequestFault | None:
    try:
        check(fields, images)
    except RequestFault as refused:
        return refused
    return None


def fault(images: Any, **fields: Any) -> RequestFault:
    refused = fault_if_any(images, {**FIELDS, **fields})
    assert refused is not None
    return refused


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
@given(data=st.binary(max_size=400))
def test_the_size_is_that_of_the_decoded_image_in_every_spelling(spelling, data):
    text = spelling(data)
    assert base64_size(text) == len(data)
    assert pybase64.b64decode(base64_payload(text), validate=True) == data


def strict(decode: Callable[..., bytes], text: bytes) -> bytes | None:
    try:
        return decode(base64_payload(text), validate=True)
    except (binascii.Error, ValueError):
        return None


NEARLY_BASE64 = st.one_of(
    st.binary(max_size=40),
    st.text(alphabet="AZaz09+/==-_\r\n \t,;:%", max_size=24).map(str.encode),
    st.builds(
        lambda data, cut, tail: base64.b64encode(data)[: -cut or None] + tail,
        st.binary(max_size=30),
        st.integers(0, 3),
        st.sampled_from([b"", b"=", b"==", b"===", b"\x00", b" ", b"\n", b"A"]),
    ),
)


@given(text=NEARLY_BASE64)
@example(text=b"====")
@example(text=b"A===")
@example(text=b"AA=A")
@example(text=b"=AAA")
@example(text=b"AAAA====")
@example(text=b"AA==AA==")
@example(text=b"data:image/png,AAAA")
def test_what_a_strict_decoder_refuses_is_refused_and_what_passes_has_the_size_it_decodes_to(text):
    try:
        size = base64_size(text)
    except ValueError:
        return
    for decode in (pybase64.b64decode, base64.b64decode):
        decoded = strict(decode, text)
        assert decoded is not None
        assert len(decoded) == size


@given(data=st.binary(min_size=1, max_size=100))
def test_text_with_its_padding_missing_is_refused(data):
    text = base64.b64encode(data)
    if text.endswith(b"="):
        with pytest.raises(ValueError, match="no multiple of 4"):
            base64_size(text.rstrip(b"="))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"-_-_", "character 0 is outside the standard alphabet"),
        (b"AAA_", "character 3 is outside the standard alphabet"),
        (b"AA A", "character 2 is outside"),
        (b"AA%2BAA==", "character 2 is outside"),
        (b"AAA", "its length of 3 is no multiple of 4"),
        (b"AA=", "its length of 3 is no multiple of 4"),
        (b"AA=A", "character 2 is outside"),
        (b"\xff\xfe\x00A", "character 0 is outside"),
        (b"data:image/png,AAAA", 'no ";base64,"'),
        (b"data:image/png;base64", 'no ";base64,"'),
        (b"data:image/png;base64,data:image/png;base64,AAAA", "character 4 is outside"),
    ],
)
def test_text_that_is_no_base64_is_refused_in_words_that_name_the_image_and_the_fault(text, says):
    refused = fault([b"AAAA", text])
    assert refused.code == "invalid_base64"
    assert refused.message.startswith("images[1] is not valid base64: ")
    assert says in refused.message


@pytest.mark.parametrize("text", [b"", b"\r\n", b"data:image/png;base64,", b"data:;base64,\n"])
def test_images_without_a_byte_are_refused_if_there_is_no_other(text):
    assert fault_if_any([b"AAAA", b"AAAA", text], FIELDS) is None
    refused = fault([text, text])
    assert refused.code == "image_empty"
    assert refused.message.startswith("images[0] is an empty string")


@pytest.mark.parametrize("text", [b"", b" ", b"\n\t"])
def test_empty_urls_are_refused_if_there_is_no_other(text):
    assert fault_if_any([b"https://a.example/", text], {**FIELDS, "inputMethod": "url"}) is None
    refused = fault([text, text], inputMethod="url")
    assert (refused.code, refused.message) == ("image_empty", "images[0] is an empty string; send a URL.")


def test_a_bad_url_is_left_to_its_image():
    assert check({**FIELDS, "inputMethod": "url"}, [b"no url at all"]).images == [b"no url at all"]


def test_each_text_that_is_no_url_is_read_once_and_only_its_beginning_is_kept():
    class Counted(list):
        reads = 0

        def __iter__(self):
            for text in super().__iter__():
                self.reads += 1
                yield text

    images = Counted([b" http://a.example/" + b"x" * 1_000_000, "http://a.example/\u00fc".encode()])
    kept = check({"inputMethod": "url", "prompt": "p"}, images).images
    assert images.reads <= len(images) + 1  # the first one is looked at to see whether it is a data: URL
    assert len(kept[0]) < 50_000
    assert kept[0].startswith(b"http://a.example/x")
    assert kept[1] == images[1]


@given(text=st.text(st.characters(exclude_categories=())))
@example(text="\x00")
@example(text="\ud800")
def test_a_text_is_storable_without_nul_and_half_characters(text):
    assert is_storable(text) == (not any(letter == "\x00" or "\ud800" <= letter <= "\udfff" for letter in text))


@pytest.mark.parametrize("count", [1, MAX_IMAGES])
@pytest.mark.parametrize(("method", "text"), [("base64", b"AAAA"), ("url", b"https://a.example/")])
def test_one_to_three_thousand_images_pass(method, text, count):
    assert len(check({**FIELDS, "inputMethod": method}, [text] * count).images) == count


@pytest.mark.parametrize("count", [0, MAX_IMAGES + 1, 10 * MAX_IMAGES])
@pytest.mark.parametrize("method", ["base64", "url"])
def test_no_image_and_more_than_three_thousand_are_refused(method, count):
    refused = fault([b"AAAA"] * count, inputMethod=method)
    assert refused.code == "invalid_image_count"
    assert refused.message == f"images must hold 1 to 3000 strings, this request has {count}."


def test_an_image_of_twenty_megabytes_passes_and_one_byte_more_is_refused_by_its_index():
    assert base64_size(LARGEST) == MAX_IMAGE_BYTES
    assert base64_size(ONE_OVER) == MAX_IMAGE_BYTES + 1
    check(FIELDS, [LARGEST])
    refused = fault([b"AAAA", ONE_OVER])
    assert refused.code == "image_too_large"
    assert refused.message == "images[1] is 20.0 MB (20971521 bytes); an image may have 20 MB."


def test_line_breaks_and_a_data_uri_do_not_count_as_bytes_of_the_image():
    check(FIELDS, [b"data:image/png;base64," + wrapped(LARGEST, b"\r\n")])


def test_a_hundred_megabytes_pass_and_one_byte_more_is_refused_where_it_is_reached():
    assert 5 * MAX_IMAGE_BYTES == MAX_TOTAL_BYTES
    check(FIELDS, [LARGEST] * 5)
    refused = fault([LARGEST] * 5 + [b"AA==", b"AAAA"])
    assert refused.code == "total_too_large"
    assert "over 100 MB in total, reached at images[5]" in refused.message


def test_each_duplicate_counts_for_the_total():
    half = b"A" * (MAX_IMAGE_BYTES // 2 // 3 * 4)
    assert fault([half] * 11).code == "total_too_large"


@pytest.mark.parametrize("method", [None, "", "URL", "file", "base64 ", 1, True, ["url"], {"url": 1}, "x" * 5000])
def test_an_input_method_other_than_the_two_is_refused(method):
    refused = fault([b"AAAA"], inputMethod=method)
    assert refused.code == "invalid_input_method"
    assert len(refused.message) < 150


@pytest.mark.parametrize("prompt", [None, "", " \n\t ", "\u00a0\u2003", 1, True, ["p"], {"p": 1}, "a\x00b", "a\ud800b", "\udfff"])
def test_a_prompt_that_is_missing_blank_or_no_text_is_refused(prompt):
    assert fault([b"AAAA"], prompt=prompt).code == "invalid_prompt"


@pytest.mark.parametrize("prompt", ["p", " p ", "Was ist das? 图片 🧾", "a\nb\tc", "p" * 100_000])
def test_a_prompt_is_kept_as_it_was_sent(prompt):
    assert check({**FIELDS, "prompt": prompt}, [b"AAAA"]).question.prompt == prompt


@pytest.mark.parametrize(
    ("value", "meant"),
    [(None, False), (True, True), (False, False), ("true", True), ("false", False), ("True", True), (" FALSE ", False)],
)
def test_json_mode_is_a_boolean_or_its_name(value, meant):
    assert check({**FIELDS, "jsonMode": value}, [b"AAAA"]).question.json_mode is meant


@pytest.mark.parametrize("value", ["", "yes", "1", 1, 0, 1.0, [], {}, [True], 10**400])
def test_any_other_json_mode_is_refused(value):
    assert fault([b"AAAA"], jsonMode=value).code == "invalid_json_mode"


def test_without_json_mode_and_granularity_the_answer_is_merged_text():
    question = check(FIELDS, [b"AAAA"]).question
    assert (question.json_mode, question.per_image) == (False, False)


@pytest.mark.parametrize("value", ["", "perimage", "PERIMAGE", 1, ["merged"], {}])
def test_an_unknown_granularity_is_refused(value):
    assert fault([b"AAAA"], granularity=value).code == "invalid_granularity"


def test_images_that_are_missing_are_asked_for():
    assert fault(None).message == "images is required: an array of 1 to 3000 strings."


def test_a_value_that_is_deeply_nested_is_refused_like_any_other():
    value: Any = 1
    for _ in range(50_000):
        value = [value]
    assert fault([b"AAAA"], inputMethod=value).message == 'inputMethod must be "url" or "base64", not an array.'
    while isinstance(value, list):  # taken apart by hand: freeing it at once may exhaust the stack too
        value = value[0]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    fields=st.dictionaries(st.sampled_from([*FIELDS, "granularity", "schema", "merge", "imagesPerCall", "other"]), json_values),
    valid=st.booleans(),
    images=st.none() | st.lists(st.binary(max_size=12), max_size=4),
)
def test_whatever_the_fields_hold_the_request_passes_or_is_refused_with_a_short_sentence(fields, valid, images):
    refused = fault_if_any(images, {**(FIELDS if valid else {}), **fields})
    if refused is not None:
        assert refused.code
        assert 0 < len(refused.message) < 300


def test_a_webhook_without_its_scheme_is_told_nothing_of_buckets():
    assert fault([b"AAAA"], webhookUrl="localhost:3000/hook").message == (
        "webhookUrl can't be used. The URL must start with http:// or https://."
    )


@pytest.mark.parametrize(
    "url", ["http://localhost/hook", "https://LOCALHOST./", "http://app.localhost:80/x", "http://localhost:3000/"]
)
def test_a_webhook_to_the_service_s_own_machine_is_refused_with_the_setting_that_allows_it(url):
    refused = fault([b"AAAA"], webhookUrl=url)
    assert refused.code == "invalid_webhook_url"
    assert "WEBHOOK_ALLOW" in refused.message
    assert "FETCH_ALLOW" not in refused.message
    for allowed in ("127.0.0.1/32:*", "0.0.0.0/0:*", "[::1/128]:*"):
        request = check({**FIELDS, "webhookUrl": url}, [b"AAAA"], webhook_allow=parse_allow(allowed))
        assert request.webhook_url == url
