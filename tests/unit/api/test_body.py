"""A body, cut up as it is read: what JSON allows passes, everything else is one refusal."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.body import parse_body
from pipeline.request.check import RequestFault


def parse(body: bytes):
    sent = parse_body(body)
    fields, images = sent.fields, sent.images
    return fields, None if images is None else [images[index] for index in range(len(images))]


def refusal_if_any(body: bytes) -> RequestFault | None:
    try:
        parse(body)
    except RequestFault as refused:
        return refused
    return None


def refusal(body: bytes) -> RequestFault:
    refused = refusal_if_any(body)
    assert refused is not None
    return refused


def test_the_images_come_out_as_they_were_written_and_unknown_fields_are_left_alone():
    body = (
        b'{"inputMethod": "url", "images": ["https://a.example/?q=1", "b"], "prompt": "p", "jsonMode": true, "later": {"x": [1]}}'
    )
    assert parse(body) == ({"inputMethod": "url", "prompt": "p", "jsonMode": True}, [b"https://a.example/?q=1", b"b"])


def test_escapes_in_an_image_are_undone():
    assert parse(rb'{"images": ["iVBOR\/8\/", "AA\r\nBB", "\u0041\u002b", "\ud83d\ude00"]}')[1] == [
        b"iVBOR/8/",
        b"AA\r\nBB",
        b"A+",
        "😀".encode(),
    ]


@given(images=st.lists(st.text(), max_size=5), ascii_only=st.booleans(), indent=st.none() | st.just(2))
def test_any_texts_that_json_can_carry_come_out_the_same(images, ascii_only, indent):
    try:
        sent = json.dumps({"images": images}, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:
        return
    if any("\ud800" <= character <= "\udfff" for text in images for character in text):
        refusal(sent)
    else:
        assert parse(sent)[1] == [text.encode() for text in images]


def test_a_single_image_counts_where_images_is_missing():
    assert parse(b'{"image": "AAAA"}')[1] == [b"AAAA"]
    assert parse(b'{"images": null, "image" : "AAAA" }')[1] == [b"AAAA"]


@pytest.mark.parametrize("image", [b"1", b"null", b"true", b'["AAAA"]', b'{"a": "AAAA"}'])
def test_a_single_image_that_is_no_string_counts_as_none(image):
    assert parse(b'{"image": ' + image + b"}")[1] is None


def test_images_has_the_word_where_both_are_there():
    assert parse(b'{"image": "AAAA", "images": ["BBBB"]}')[1] == [b"BBBB"]
    assert parse(b'{"images": [], "image": "AAAA"}')[1] == []


def test_a_body_of_countless_values_is_refused_before_it_is_decoded(monkeypatch):
    numbers = b"[" + b"0," * 400_000 + b"0]"
    monkeypatch.setattr("api.body._OBJECT", None)  # decoding it would fail
    for body in (b'{"images": ' + numbers + b"}", b'{"other": ' + numbers + b"}", b"{" + b'"a":0,' * 400_000 + b'"a":0}'):
        refused = refusal(body)
        assert (refused.code, "commas" in refused.message) == ("invalid_json", True)


def test_a_full_request_has_far_fewer_values_than_are_taken():
    urls = ["https://images.example/w_200,h_200,c_fill/picture.jpg?a=1,2"] * 3000
    body = {"prompt": "," * 100_000, "images": urls, "customIds": ["one, two"] * 3000, "metadata": {"list": [0] * 10_000}}
    assert len(parse(json.dumps(body).encode())[1]) == 3000


def test_of_a_repeated_key_the_last_one_counts():
    assert parse(b'{"prompt": "a", "prompt": "b", "images": ["A"], "images": ["B"]}') == ({"prompt": "b"}, [b"B"])


def test_a_byte_order_mark_and_white_space_around_the_object_are_tolerated():
    assert parse(b'\xef\xbb\xbf \r\n\t{"prompt": "p"}\n ')[0] == {"prompt": "p"}


@pytest.mark.parametrize("body", [b"null", b"true", b"1", b'"text"', b"[]", b'[{"prompt": "p"}]'])
def test_a_body_that_is_json_but_no_object_is_told_so(body):
    refused = refusal(body)
    assert (refused.code, refused.message) == ("invalid_json", "The body must be a JSON object.")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{}}",
        b"{} x",
        b'{"prompt": "p"} {"prompt": "p"}',
        b'{"prompt": "p",}',
        b"{'prompt': 'p'}",
        b'{prompt: "p"}',
        b'{"prompt": NaN}',
        b'{"other": NaN}',
        b'{"other": Infinity}',
        b'{"other": -Infinity}',
        b'{"jsonMode": 1e999}',
        b'{"jsonMode": ' + b"9" * 5000 + b"}",
        rb'{"prompt": "\ud800"}',
        rb'{"prompt": "\udc00"}',
        rb'{"\ud800": 1}',
        rb'{"other": "\ud800\u0041"}',
        b'{"prompt": "\xff"}',
        b'{"\xff": 1}',
        b'{"prompt": "a\nb"}',
        rb'{"prompt": "\x41"}',
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        '{"prompt": "p"}'.encode("utf-16"),
        b"inputMethod=url&prompt=p",
        b"\x00" * 20,
    ],
)
def test_a_body_that_is_no_json_is_refused(body):
    assert refusal(body).code == "invalid_json"


@pytest.mark.parametrize("images", [b'"AAAA"', b"1", b"true", b'{"0": "AAAA"}'])
def test_images_must_be_an_array(images):
    refused = refusal(b'{"images": ' + images + b"}")
    assert refused.code == "invalid_images"
    assert refused.message.startswith("images must be an array of 1 to 3000 strings.")


@pytest.mark.parametrize("image", [b"1", b"null", b"true", b"[]", b'["AAAA"]', b'{"url": "AAAA"}'])
def test_an_image_that_is_no_string_is_refused_by_its_index(image):
    assert refusal(b'{"images": ["AAAA", ' + image + b"]}").message.startswith("images[1] must be a string. It is ")


@pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("field", [b"prompt", b"inputMethod", b"jsonMode", b"granularity", b"images", b"image", b"other"])
def test_nesting_of_any_depth_is_read_or_refused(field, start, end):
    # Around the depth at which the stack is full, each of the readers may be the one that finds it so.
    for depth in (1, 100, *range(850, 1010), 10_000, 200_000):
        body = b'{"' + field + b'": ' + start * depth + b"1" + end * depth + b"}"
        refused = refusal_if_any(body)
        assert refused is None or refused.code in {"invalid_json", "invalid_images"}


NEARLY_JSON = st.one_of(
    st.binary(max_size=60),
    st.text(alphabet='{}[]":,\\ntrue0.e-ud8image', max_size=40).map(str.encode),
    st.builds(
        lambda start, junk, end: start + junk + end,
        st.sampled_from([b'{"images": [', b'{"prompt": "', b'{"', b'{"jsonMode": ', b'{"image": "', b'{"images": ["']),
        st.binary(max_size=20),
        st.sampled_from([b"", b'"}', b"}", b"]}", b'"]}', b'": 1}']),
    ),
)


@given(body=NEARLY_JSON)
@example(body=b'{"\xff": 1}')
def test_any_bytes_are_read_or_refused_and_nothing_else(body):
    refused = refusal_if_any(body)
    if refused is not None:
        assert refused.code in {"invalid_json", "invalid_images"}
        assert len(refused.message) < 300


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_body_in_another_unicode_encoding_is_no_file_and_told_to_be_utf_8(encoding):
    assert "Write the body in UTF-8." in refusal('{"prompt": "größe"}'.encode(encoding)).message


def test_a_text_in_latin_1_is_told_to_be_utf_8_without_the_words_of_a_library():
    assert refusal('{"prompt": "größe"}'.encode("latin-1")).message == ("prompt is not in UTF-8; write the whole body in UTF-8.")


def test_a_body_that_was_encoded_twice_is_told_so():
    assert refusal(json.dumps(json.dumps({"prompt": "p"})).encode()).message == (
        "The body must be a JSON object. It is a text that holds one: it was encoded as JSON twice, so encode it once."
    )
