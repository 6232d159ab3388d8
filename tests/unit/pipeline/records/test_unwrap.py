"""An answer is the same answer whatever is wrapped around it. Two documents are never merged, and nothing is repaired."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.merge import MalformedJson
from pipeline.records.unwrap import document_in, json_text, plain_text, records_in

TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXT | st.just("</think> [not] {this}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
RESULTS = st.dictionaries(st.sampled_from(["name", "total", "lines"]), VALUES, min_size=1, max_size=3)
PROSE = st.sampled_from(
    ["Sure! Here is what I found:", "I looked at the [left] column {twice}.", "Total: 12.50 EUR", "Bilder von links 👍", "(1)"]
)
#: Each wrapping takes the answer's text, and leaves the answer the same.
WRAPPINGS = st.sampled_from(
    [
        lambda text, _: text,
        lambda text, _: f"```json\n{text}\n```",
        lambda text, _: f"```JSON\n{text}\n```\n",
        lambda text, _: f"```\n{text}\n```",
        lambda text, _: f"~~~json\n{text}\n~~~",
        lambda text, said: f"{said}\n{text}",
        lambda text, said: f"{said}\n\n```json\n{text}\n```\n{said}",
        lambda text, said: f"{text}\n{said}",
        lambda text, _: f"\ufeff{text}",
        lambda text, said: f'<think>\n{said} {{"index": 1}} {{"cut\n</think>\n{text}',
        lambda text, said: f"<thinking>{said}</thinking>{text}",
        lambda text, said: f"<reasoning>{said}</reasoning>\n\n{text}",
        lambda text, said: f"{said} [1 and then {{\n</think>\n\n{text}",
        lambda text, said: f"<think>\n{said}\n{text}",
        lambda text, said: f"◁think▷{said}◁/think▷{text}",
        lambda text, said: f"<|begin_of_box|>{text}<|end_of_box|>",
    ]
)
#: Each form holds the same records, and names the label of each.
FORMS = st.sampled_from(
    [
        lambda records: records,
        lambda records: {"records": records},
        lambda records: {"results": records},
        lambda records: {"data": {"items": records}},
        lambda records: {"note": "done", "answers": records},
        lambda records: {"records": json.dumps(records)},
        lambda records: json.dumps({"records": records}),
        lambda records: [{**record, "index": str(record["index"])} for record in records],
        lambda records: [{**record, "index": f"Image {record['index']}"} for record in records],
        lambda records: [{**record, "index": float(record["index"])} for record in records],
        lambda records: {f"Image {record['index']}": record["result"] for record in records},
        lambda records: {"records": {str(record["index"]): record for record in records}},
        lambda records: records[::-1],
    ]
)


def read(text: str, labels: range, **options: Any) -> Any:
    return records_in(document_in(text, records=True), labels=labels, **options)


@settings(max_examples=150)
@given(results=st.lists(RESULTS, min_size=1, max_size=4), form=FORMS, wrapping=WRAPPINGS, said=PROSE, ascii_=st.booleans())
def test_any_wrapping_of_a_good_answer_gives_the_same_records_as_none(results, form, wrapping, said, ascii_):
    records = [{"index": number, "result": result} for number, result in enumerate(results, start=1)]
    text = wrapping(json.dumps(form(records), ensure_ascii=ascii_), said)
    found = read(text, range(1, len(results) + 1))
    assert sorted(found, key=lambda record: record["index"]) == records


@settings(max_examples=60)
@given(
    first=RESULTS, second=RESULTS, between=st.sampled_from(["\n", " and ", "\n```\n```json\n"]), wrapping=WRAPPINGS, said=PROSE
)
def test_of_two_documents_in_a_text_neither_is_taken(first, second, between, wrapping, said):
    one, other = ({"records": [{"index": 1, "result": result}]} for result in (first, {**second, "other": 1}))
    with pytest.raises(MalformedJson):
        document_in(wrapping(f"{json.dumps(one)}{between}{json.dumps(other)}", said), records=True)


@settings(max_examples=60)
@given(results=st.lists(RESULTS, min_size=1, max_size=3), cut=st.floats(0.01, 0.99), wrapping=WRAPPINGS, said=PROSE)
def test_what_was_cut_off_is_never_repaired(results, cut, wrapping, said):
    whole = json.dumps({"records": [{"index": 1, "result": result} for result in results]})
    with pytest.raises(MalformedJson):
        document_in(wrapping(whole[: max(int(len(whole) * cut), 1)], said), records=True)
    with pytest.raises(MalformedJson):
        document_in(wrapping(whole[max(int(len(whole) * cut), 1) :], said), records=True)


@settings(max_examples=60)
@given(text=st.text(alphabet='{}[]",:1aN \n`<>/think\\', max_size=60))
def test_any_text_is_a_document_or_malformed(text):
    try:
        document_in(text)
    except MalformedJson:
        plain_text(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "NaN",
            "[NaN]",
            '{"a": NaN}',
            '{"a": Infinity}',
            '{"a": 1e999}',
            '{"a": "\\ud800"}',
            "{'a': 1}",
            '{"a": 1,}',
            '{"a": 1}}',
        ),
        *("", "nothing", "```json\n```", '"a": 1}', "[" * 100_000, '{"a":' * 100_000),
    ],
    ids=lambda text: text[:20],
)
def test_what_a_strict_parser_refuses_is_malformed(text):
    with pytest.raises(MalformedJson):
        document_in(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.5", 12.5),
        ("```\n12.5\n```", 12.5),
        ("It is:\n~~~json\n12.5\n~~~\nYes.", 12.5),
        ('"plain"', "plain"),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('{"a": 1} {"a": 1}', {"a": 1}),
        ("null", None),
    ],
)
def test_a_document_may_be_any_json(text, value):
    assert document_in(text) == value


def test_a_document_is_taken_out_of_its_wrapping_as_the_model_wrote_it():
    assert json_text('Here it is:\n{"total":  12.50}\nIs that all?') == '{"total":  12.50}'
    assert json_text('"{\\"total\\": 12.50}"') == '{"total": 12.50}'


def fits(result: Any) -> bool:
    return isinstance(result, dict) and isinstance(result.get("name"), str)


@pytest.mark.parametrize(
    "document",
    [
        {"index": 1, "result": {"name": "Anna"}},
        {"index": "1", "name": "Anna"},
        {"name": "Anna"},
        {"record": {"name": "Anna"}},
        {"result": {"name": "Anna"}},
        [{"name": "Anna"}],
        {"index": 1, "result": '{"name": "Anna"}'},
        '{"name": "Anna"}',
    ],
)
def test_the_only_picture_of_a_call_may_have_its_record_bare(document):
    assert records_in(document, labels=[1], fits=fits) == [{"index": 1, "result": {"name": "Anna"}}]


@pytest.mark.parametrize(
    "document",
    [
        [{"name": "Anna"}, {"name": "Bert"}],
        {"records": [{"name": "Anna"}, {"name": "Bert"}]},
        {"name": "Anna"},
        {"first": [{"index": 1, "result": {"name": "Anna"}}], "second": [{"index": 1, "result": {"name": "Bert"}}]},
        {"records": [{"index": True, "result": {"name": "Anna"}}]},
        {"records": []},
    ],
)
def test_a_result_without_a_label_never_goes_to_an_image_by_its_position(document):
    found = records_in(document, labels=[1, 2], fits=fits)
    assert not any("result" in record and type(record.get("index")) is int for record in found if isinstance(record, dict))


def test_a_bare_result_that_does_not_fit_the_schema_is_no_record():
    assert records_in({"customer": "Anna"}, labels=[1], fits=fits) == {"customer": "Anna"}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The total is 12.50.", "The total is 12.50."),
        ("  keeps its edges \n", "  keeps its edges \n"),
        ("<think>\nmaybe 12\n</think>\n\nThe total is 12.50.", "The total is 12.50."),
        ("<Thinking>a</Thinking><think>b</think> c", "c"),
        ("maybe 12\n</think>\n\nThe total is 12.50.", "The total is 12.50."),
        ("[THINK]a[/THINK]b", "b"),
        ("<think>thoughts without an end", ""),
        ("The page shows <think>.", "The page shows <think>."),
        ("<|begin_of_box|>12.50<|end_of_box|>", "12.50"),
        ("12.50<|im_end|>", "12.50"),
        ("\ufeff12.50", "12.50"),
        ("```\nx\n```", "```\nx\n```"),
    ],
)
def test_of_a_text_only_the_thoughts_are_dropped(text, plain):
    assert plain_text(text) == plain
