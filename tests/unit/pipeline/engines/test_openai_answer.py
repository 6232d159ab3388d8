"""What servers with OpenAI's API answer with. A good answer is the same answer however its server writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.engines.openai_answer import read_completion, read_document
from pipeline.engines.wording import instruction
from pipeline.ports import ModelFault, ModelUnavailable
from pipeline.types import Call, Finish, Form, Picture

RECORDS = json.dumps({"records": [{"index": 1, "result": {"name": "Anna"}}]})
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def call(form: Form = Form.RECORDS) -> Call:
    schema = SCHEMA if form is Form.RECORDS else None
    pictures = (Picture(number=1, mime="image/png", data=b"x"),)
    return Call(prompt="p", form=form, json_mode=form is not Form.TEXT, pictures=pictures, schema=schema, timeout=1)


def completion(message: Any, **choice: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}]}


def read(document: Any, form: Form = Form.RECORDS):
    asked = call(form)
    answer, _ = read_completion(asked, document, schema=instruction(asked)[1])
    return answer


@pytest.mark.parametrize(
    "message",
    [
        {"content": RECORDS},
        {"content": [{"type": "text", "text": RECORDS[:9]}, {"type": "text", "text": RECORDS[9:]}]},
        {"content": [{"type": "thinking", "thinking": '{"records": []}'}, {"type": "text", "text": RECORDS}]},
        {"content": [{"type": "reasoning", "text": '{"a": 1}'}, {"type": "output_text", "text": RECORDS}]},
        {"content": [{"text": '{"a": 1}', "thought": True}, {"text": RECORDS}]},
        {"content": None, "reasoning_content": RECORDS},
        {"content": "", "reasoning": f"Let me see. {RECORDS}"},
        {"content": None, "tool_calls": [{"function": {"name": "records", "arguments": RECORDS}}]},
        {"content": "Here you are.", "tool_calls": [{"function": {"name": "records", "arguments": json.loads(RECORDS)}}]},
        {"content": "", "function_call": {"name": "records", "arguments": RECORDS}},
        {"content": RECORDS, "reasoning_content": '{"records": []}'},
        {"content": "<think>\n\n</think>\n" + RECORDS, "reasoning_content": None},
    ],
)
def test_records_are_found_wherever_the_message_has_them(message):
    assert json.loads(read(completion(message)).text) == [{"index": 1, "result": {"name": "Anna"}}]


@pytest.mark.parametrize(
    "finish", ["stop", "eos_token", "stop_sequence", "eos", "end_turn", "STOP", "", None, "tool_calls", "done"]
)
def test_a_finish_reason_that_does_not_say_otherwise_means_a_whole_answer(finish):
    assert read(completion({"content": RECORDS}, finish_reason=finish)).finish is Finish.COMPLETE


def test_a_missing_finish_reason_means_a_whole_answer():
    assert read({"choices": [{"message": {"content": RECORDS}}]}).finish is Finish.COMPLETE


@pytest.mark.parametrize("finish", ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length"])
def test_an_answer_that_was_cut_off_has_no_text(finish):
    answer = read(completion({"content": RECORDS}, finish_reason=finish))
    assert (answer.finish, answer.text) == (Finish.TRUNCATED, "")


@pytest.mark.parametrize("finish", ["content_filter", "content-filter", "safety", "SAFETY", "blocked"])
def test_a_filtered_answer_is_blocked(finish):
    assert read(completion({"content": RECORDS}, finish_reason=finish)).finish is Finish.BLOCKED


@pytest.mark.parametrize("usage", [None, "many", [], {"prompt_tokens": "9"}, {"prompt_tokens": None}, {"prompt_tokens": "nine"}])
def test_usage_may_be_anything(usage):
    answer = read({**completion({"content": RECORDS}), "usage": usage})
    assert answer.input_tokens == (9 if usage == {"prompt_tokens": "9"} else 0)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"choices": []},
        {"choices": [None]},
        completion({"content": None}),
        completion({"content": " "}),
        completion({"content": "x"}, finish_reason="error"),
        completion({"content": [{"type": "thinking", "thinking": "x"}]}),
    ],
)
def test_an_answer_that_says_nothing_is_a_fault(document):
    with pytest.raises(ModelFault):
        read(document)


def test_thoughts_are_never_the_text_of_an_answer():
    with pytest.raises(ModelFault):
        read(completion({"content": "", "reasoning_content": "I think that it is 12."}), Form.TEXT)
    with pytest.raises(ModelFault):
        read(completion({"content": "<think>I think that it is 12."}), Form.TEXT)
    assert read(completion({"content": "maybe</think>\n\n12"}), Form.TEXT).text == "12"


def test_two_documents_are_left_for_the_caller_to_refuse():
    two = f"{RECORDS}\n{RECORDS.replace('Anna', 'Bert')}"
    assert read(completion({"content": two})).text == two


def events(*chunks: Any, done: bool = True) -> bytes:
    lines = [f": comment\ndata: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def delta(**members: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": members, "finish_reason": None}]}


@pytest.mark.parametrize("content_type", ["text/event-stream; charset=utf-8", "application/json", ""])
def test_events_that_come_unasked_are_put_together(content_type):
    body = events(delta(role="assistant", content=None), delta(content=RECORDS[:9]), delta(content=RECORDS[9:]), {"choices": []})
    answer = read(read_document(content_type, body))
    assert json.loads(answer.text)[0]["result"] == {"name": "Anna"}


def test_the_finish_reason_and_the_usage_of_events_are_read():
    cut = {"choices": [{"delta": {}, "finish_reason": "length"}], "usage": {"prompt_tokens": 3}}
    answer = read(read_document("text/event-stream", events(delta(content=RECORDS), cut, done=False)))
    assert (answer.finish, answer.input_tokens) == (Finish.TRUNCATED, 3)


@pytest.mark.parametrize("body", [events(delta(content=RECORDS), done=False), b"data: {", b"data: []\n\n", b"", b"<html>"])
def test_a_body_that_is_not_whole_is_no_answer(body):
    with pytest.raises(ModelUnavailable):
        read_document("text/event-stream" if body.startswith(b"data") else "", body)


def test_a_body_may_begin_with_a_byte_order_mark_and_hold_half_characters():
    body = b'\xef\xbb\xbf{"choices": [{"message": {"content": "a\\ud800"}}]}'
    assert read(read_document("application/json", body), Form.TEXT).text == "a\ud800"
