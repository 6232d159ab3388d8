"""The fake Gemini, driven by the SDK the service uses: it answers from what is in each picture."""

import io
import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx2
import pytest
from google import genai
from google.genai import types
from PIL import Image

from tests.fakes.gemini import FakeGemini, Outcome, numbered_picture, read_number
from tests.fakes.gemini_behaviours import (
    Behaviour,
    held,
)
from tests.fakes.gemini_client import MODEL, ask, client_of, config, finish_of, packed
from tests.fakes.gemini_pictures import NATIVE


@pytest.fixture
def fake() -> Iterator[FakeGemini]:
    with FakeGemini() as running:
        yield running


@pytest.fixture
def client(fake: FakeGemini) -> Iterator[genai.Client]:
    with client_of(fake) as made:
        yield made


class TestPictures:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "HEIC", "HEIF", "BMP", "GIF", "TIFF", "AVIF"])
    @pytest.mark.parametrize("n", [0, 2999, 2**32 - 1])
    def test_a_number_survives_every_format(self, kind: str, n: int) -> None:
        assert read_number(numbered_picture(n, format=kind)) == n

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "HEIC", "BMP", "GIF", "TIFF", "AVIF"])
    def test_padding_brings_a_file_to_the_size_asked_for(self, kind: str) -> None:
        data = numbered_picture(7, format=kind, pad_to=200_000)
        assert abs(len(data) - 200_000) < 64
        assert read_number(data) == 7

    @pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "AVIF"])
    def test_a_number_survives_becoming_a_png_of_another_size(self, kind: str) -> None:
        out = io.BytesIO()
        with Image.open(io.BytesIO(numbered_picture(123, format=kind, size=(200, 150)))) as image:
            image.convert("RGB").resize((120, 90)).save(out, "PNG")
        assert read_number(out.getvalue()) == 123

    def test_the_same_number_gives_the_same_bytes_and_another_one_other_bytes(self) -> None:
        first = numbered_picture(5, format="JPEG", pad_to=30_000)
        assert first == numbered_picture(5, format="JPEG", pad_to=30_000)
        assert first != numbered_picture(6, format="JPEG", pad_to=30_000)

    @pytest.mark.parametrize("turn", list(Image.Transpose))
    def test_a_turned_picture_has_no_number(self, turn: Image.Transpose) -> None:
        out = io.BytesIO()
        with Image.open(io.BytesIO(numbered_picture(7))) as image:
            image.transpose(turn).save(out, "PNG")
        assert read_number(out.getvalue()) is None

    @pytest.mark.parametrize("grey", [0, 127, 255])
    def test_a_plain_picture_has_no_number(self, grey: int) -> None:
        out = io.BytesIO()
        Image.new("L", (64, 48), grey).save(out, "PNG")
        assert read_number(out.getvalue()) is None


class TestAnswers:
    def test_a_text_names_each_picture_under_its_label(self, fake: FakeGemini, client: genai.Client) -> None:
        assert ask(client, 41, 7).text == "Image 1 shows 41.\nImage 2 shows 7."
        (call,) = fake.calls
        assert (call.prompt, call.labels, call.numbers, call.form) == (("What is it?",), (1, 2), (41, 7), "text")
        assert (call.model, call.max_output_tokens, call.server_timeout, call.outcome) == (MODEL, 8192, 20.0, Outcome.COMPLETE)
        assert fake.seen == fake.sent == Counter([41, 7])
        assert fake.faults == fake.refused == []

    def test_json_without_a_schema_lists_the_pictures(self, client: genai.Client) -> None:
        text = ask(client, 41, 7, form="json").text
        assert json.loads(text or "") == {"pictures": [{"label": 1, "number": 41}, {"label": 2, "number": 7}]}

    def test_records_hold_one_result_for_each_picture(self, fake: FakeGemini, client: genai.Client) -> None:
        text = ask(client, 41, 7, form="records").text
        assert json.loads(text or "") == [{"index": 1, "result": "picture 41"}, {"index": 2, "result": "picture 7"}]
        assert fake.calls[0].form == "records"

    def test_a_result_of_any_json_is_an_object_with_the_number(self, client: genai.Client) -> None:
        schema = {"type": "array", "items": {"type": "object", "properties": {"index": {"type": "integer"}, "result": {}}}}
        text = ask(client, 41, form="records", response_json_schema=schema).text
        assert json.loads(text or "") == [{"index": 1, "result": {"number": 41}}]

    def test_a_result_with_a_schema_fits_it(self, client: genai.Client) -> None:
        result = {
            "type": "object",
            "properties": {
                "total": {"type": "number", "maximum": 40},
                "shop": {"type": ["null", "string"]},
                "kind": {"enum": ["receipt", "ticket"]},
                "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
            },
        }
        items = {"type": "object", "properties": {"index": {"type": "integer"}, "result": result}}
        schema = {"type": "array", "items": items, "$defs": {"line": {"anyOf": [{"type": "null"}, {"type": "integer"}]}}}
        (record,) = json.loads(ask(client, 41, form="records", response_json_schema=schema).text or "")
        assert record["result"] == {"total": 40, "shop": "picture 41", "kind": "receipt", "lines": [41]}

    def test_a_call_without_pictures_tells_again_what_its_prompt_says_of_them(self, client: genai.Client) -> None:
        prompt = "Merge these.\nImage 1 shows 41.\nImage 2 shows 7.\nBe brief."
        text = client.models.generate_content(model=MODEL, contents=prompt).text
        assert text == "Image 1 shows 41.\nImage 2 shows 7."

    def test_usage_counts_pictures_by_resolution_and_text_by_four(self, client: genai.Client) -> None:
        plain = ask(client, 41, 7).usage_metadata
        low = ask(client, 41, 7, media_resolution="MEDIA_RESOLUTION_LOW").usage_metadata
        assert plain
        assert low
        assert plain.prompt_token_count == 2 * 1120 + 3 + 2 * 2  # "What is it?", "Image 1:", "Image 2:"
        assert low.prompt_token_count == 2 * 280 + 3 + 2 * 2
        assert plain.candidates_token_count == 9  # 35 characters
        assert plain.total_token_count == 2 * 1120 + 7 + 9

    def test_an_answer_names_its_model_version_and_has_an_id_of_its_own(self, client: genai.Client) -> None:
        first, second = ask(client, 1), ask(client, 2)
        assert first.model_version == f"{MODEL}-001"
        assert first.response_id != second.response_id
        assert finish_of(first) == "STOP"

    @pytest.mark.parametrize("kind", list(NATIVE))
    def test_each_native_type_is_read(self, fake: FakeGemini, client: genai.Client, kind: str) -> None:
        contents = packed(12, 13, kind=kind)
        assert client.models.generate_content(model=MODEL, contents=contents).text == "Image 1 shows 12.\nImage 2 shows 13."
        assert fake.calls[0].mimes == (NATIVE[kind],) * 2

    def test_a_picture_that_has_no_number_is_answered_all_the_same(self, fake: FakeGemini, client: genai.Client) -> None:
        out = io.BytesIO()
        Image.new("RGB", (64, 64), "red").save(out, "PNG")
        parts: list[Any] = ["p", "Image 1:", types.Part.from_bytes(data=out.getvalue(), mime_type="image/png")]
        assert client.models.generate_content(model=MODEL, contents=parts).text == "Image 1 shows None."
        assert fake.outcomes() == [Outcome.COMPLETE]

    def test_32_calls_at_once_are_all_answered_and_counted_once(self, fake: FakeGemini, client: genai.Client) -> None:
        everyone = Event()

        def until_all_are_here(call: Any) -> Behaviour:
            if call.order == 31:
                everyone.set()
            return held(everyone)

        fake.script = until_all_are_here
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda i: ask(client, 2 * i, 2 * i + 1).text, range(32)))
        assert answers == [f"Image 1 shows {2 * i}.\nImage 2 shows {2 * i + 1}." for i in range(32)]
        assert fake.seen == Counter(range(64))
        assert (fake.peak, fake.in_flight) == (32, 0)
        assert [call.order for call in fake.calls] == list(range(32))


class TestProtocolFaults:
    def test_a_picture_without_a_label_is_a_fault(self, fake: FakeGemini, client: genai.Client) -> None:
        parts = packed(1, 2)
        client.models.generate_content(model=MODEL, contents=[*parts[:3], parts[4]])
        assert fake.faults == ["call 0: picture 2 of the call has no label"]
        assert fake.calls[0].labels == (1, None)

    def test_a_label_used_twice_is_a_fault(self, fake: FakeGemini, client: genai.Client) -> None:
        parts = packed(1, 2)
        client.models.generate_content(model=MODEL, contents=[*parts[:3], "Image 1:", parts[4]])
        assert fake.faults == ["call 0: label 1 is used 2 times"]

    def test_a_label_without_a_picture_is_a_fault(self, fake: FakeGemini, client: genai.Client) -> None:
        client.models.generate_content(model=MODEL, contents=[*packed(1), "Image 2:"])
        assert fake.faults == ["call 0: label 2 has no picture"]

    def test_a_call_without_a_prompt_is_a_fault(self, fake: FakeGemini, client: genai.Client) -> None:
        client.models.generate_content(model=MODEL, contents=packed(1)[1:])
        assert fake.faults == ["call 0: the call has no prompt"]

    def test_a_prompt_that_reads_like_a_label_is_a_prompt(self, fake: FakeGemini, client: genai.Client) -> None:
        client.models.generate_content(model=MODEL, contents=["Image 1:", *packed(5)[1:]])
        assert (fake.calls[0].prompt, fake.calls[0].labels, fake.faults) == (("Image 1:",), (1,), [])

    def test_a_system_instruction_counts_as_prompt(self, fake: FakeGemini, client: genai.Client) -> None:
        client.models.generate_content(model=MODEL, contents=packed(1)[1:], config=config(system_instruction="Read."))
        assert (fake.calls[0].prompt, fake.faults) == (("Read.",), [])


def test_requests_on_one_connection_are_served_in_turn(fake: FakeGemini) -> None:
    with httpx2.Client(headers={"x-goog-api-key": fake.key}) as kept:
        for _ in range(3):
            answer = kept.get(f"{fake.base_url}/v1beta/models/{MODEL}")
            assert answer.json()["name"] == f"models/{MODEL}"
            assert "connection" not in answer.headers


def test_the_fake_listens_on_the_loopback_only(fake: FakeGemini) -> None:
    assert fake.base_url.startswith("http://127.0.0.1:")
    asked = urllib.request.Request(f"{fake.base_url}/v1beta/models", headers={"x-goog-api-key": fake.key})
    with urllib.request.urlopen(asked) as answer:
        assert json.load(answer)["models"][0]["name"] == f"models/{MODEL}"
