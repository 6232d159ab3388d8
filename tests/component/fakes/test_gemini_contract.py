"""The fake Gemini refuses what Gemini refuses, and has its Files API."""

import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from google import genai
from google.genai import errors, types

from tests.fakes.gemini import FakeGemini, Outcome, numbered_picture
from tests.fakes.gemini_behaviours import (
    failing,
)
from tests.fakes.gemini_client import MODEL, RECORDS, ask, client_of, refusal


@pytest.fixture
def fake() -> Iterator[FakeGemini]:
    with FakeGemini() as running:
        yield running


@pytest.fixture
def client(fake: FakeGemini) -> Iterator[genai.Client]:
    with client_of(fake) as made:
        yield made


def shown(*parts: types.Part) -> list[Any]:
    return ["p", "Image 1:", *parts]


def post(fake: FakeGemini, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What the SDK would not send, sent by hand."""
    headers = {"x-goog-api-key": fake.key, "Content-Type": "application/json"}
    answer = httpx2.post(f"{fake.base_url}/v1beta/models/{MODEL}:generateContent", json=body, headers=headers)
    return answer.status_code, answer.json()


class TestContract:
    def test_an_unknown_field_is_refused_wherever_it_stands(self, fake: FakeGemini) -> None:
        turn = {"role": "user", "parts": [{"text": "x"}]}
        bodies: dict[str, dict[str, Any]] = {
            "": {"contents": [turn], "prompt": "x"},
            "contents[0].parts[0]": {"contents": [{"parts": [{"text": "x", "label": 1}]}]},
            "generation_config": {"contents": [turn], "generationConfig": {"maxTokens": 5}},
            "generation_config.thinking_config": {"contents": [turn], "generationConfig": {"thinkingConfig": {"budget": 1}}},
            "generation_config.response_schema.items": {
                "contents": [turn],
                "generationConfig": {
                    "responseMimeType": "application/json",
                    "responseSchema": {"type": "ARRAY", "items": {"type": "OBJECT", "additionalProperties": False}},
                },
            },
        }
        for where, body in bodies.items():
            status, answer = post(fake, body)
            assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
            assert "Cannot find field" in answer["error"]["message"]
            assert answer["error"]["details"][0]["fieldViolations"][0]["field"] == where
        assert len(fake.refused) == 5
        assert fake.calls == []

    def test_a_field_in_both_spellings_is_refused(self, fake: FakeGemini) -> None:
        part = {"inlineData": {"mimeType": "image/png", "mime_type": "image/png", "data": "AAAA"}}
        assert post(fake, {"contents": [{"parts": [part]}]})[0] == 400

    @pytest.mark.parametrize("body", [{}, {"contents": []}, {"contents": [{"role": "user"}]}, {"contents": [{"parts": [{}]}]}])
    def test_a_body_without_content_is_refused(self, fake: FakeGemini, body: dict[str, Any]) -> None:
        assert post(fake, body)[0] == 400

    @pytest.mark.parametrize("role", ["system", "assistant"])
    def test_a_role_that_gemini_has_not_is_refused(self, fake: FakeGemini, role: str) -> None:
        assert "valid role" in post(fake, {"contents": [{"role": role, "parts": [{"text": "x"}]}]})[1]["error"]["message"]

    @pytest.mark.parametrize("data", ["!!!!", "QQ", "Q Q=", "QQ==QQ=="])
    def test_base64_that_is_not_clean_is_refused(self, fake: FakeGemini, data: str) -> None:
        part = {"inlineData": {"mimeType": "image/png", "data": data}}
        status, answer = post(fake, {"contents": [{"parts": [part]}]})
        assert (status, "Base64" in answer["error"]["message"]) == (400, True)

    @pytest.mark.parametrize("model", ["gemini-2.0-flash", "gemini-1.5-flash", "gpt-4"])
    def test_a_model_that_is_shut_down_or_unknown_is_not_found(self, client: genai.Client, model: str) -> None:
        error = refusal(client, model=model)
        assert (error.code, error.status) == (404, "NOT_FOUND")

    def test_a_bad_key_is_a_400_with_its_reason(self, fake: FakeGemini) -> None:
        with client_of(fake, key="wrong") as other:
            error = refusal(other)
        assert (error.code, error.status) == (400, "INVALID_ARGUMENT")
        assert error.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"
        assert fake.bad_keys == 1

    def test_a_missing_key_is_refused_as_a_bad_one(self, fake: FakeGemini) -> None:
        answer = httpx2.post(f"{fake.base_url}/v1beta/models/{MODEL}:generateContent", json={})
        assert (answer.status_code, answer.json()["error"]["details"][0]["reason"]) == (400, "API_KEY_INVALID")

    def test_another_api_version_is_not_served(self, fake: FakeGemini) -> None:
        with client_of(fake, version="v1") as other:
            assert refusal(other).code == 404
        assert fake.refused == [f"no such method: POST /v1/models/{MODEL}:generateContent"]

    @pytest.mark.parametrize(
        "setting",
        [
            {"temperature": 0.0},
            {"top_p": 0.9},
            {"top_k": 40},
            {"candidate_count": 2},
            {"max_output_tokens": 65_537},
            {"max_output_tokens": 0},
            {"response_mime_type": "text/html"},
            {"response_json_schema": RECORDS},
            {"response_mime_type": "application/json", "response_json_schema": RECORDS, "response_schema": {"type": "STRING"}},
            {"thinking_config": types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW, thinking_budget=100)},
            {"stop_sequences": list("abcdef")},
            {"cached_content": "cachedContents/1"},
        ],
        ids=str,
    )
    def test_a_setting_gemini_refuses_is_refused(self, client: genai.Client, setting: dict[str, Any]) -> None:
        error = refusal(client, **setting)
        assert (error.code, error.status) == (400, "INVALID_ARGUMENT")

    def test_the_settings_the_service_has_use_for_are_taken(self, fake: FakeGemini, client: genai.Client) -> None:
        ask(
            client,
            1,
            form="records",
            candidate_count=1,
            seed=1,
            service_tier="flex",
            media_resolution="MEDIA_RESOLUTION_HIGH",
            thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel.MINIMAL),
            safety_settings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        )
        assert fake.refused == []

    @pytest.mark.parametrize("field", ["response_schema", "response_json_schema"])
    @pytest.mark.parametrize("bound", ["minItems", "maxItems"])
    def test_a_schema_with_a_large_bound_has_too_many_states(self, client: genai.Client, field: str, bound: str) -> None:
        kind: dict[str, Any] = {"type": "ARRAY", "items": {"type": "STRING"}} if field == "response_schema" else RECORDS
        setting: dict[str, Any] = {field: {**kind, bound: 20}}
        error = refusal(client, response_mime_type="application/json", **setting)
        assert "too many states" in (error.message or "")

    def test_a_media_resolution_gemini_has_not_is_refused(self, fake: FakeGemini) -> None:
        turn = {"parts": [{"text": "x"}]}
        for level in ("HIGH", "MEDIA_RESOLUTION_ULTRA_HIGH"):  # ultra high is for a part alone
            status, answer = post(fake, {"contents": [turn], "generationConfig": {"mediaResolution": level}})
            assert (status, "media_resolution" in answer["error"]["message"]) == (400, True)

    def test_a_type_gemini_does_not_take_is_refused(self, fake: FakeGemini, client: genai.Client) -> None:
        part = types.Part.from_bytes(data=numbered_picture(1, format="GIF"), mime_type="image/gif")
        assert "Unsupported MIME type" in (refusal(client, shown(part)).message or "")
        assert fake.refused

    @pytest.mark.parametrize(
        ("data", "mime"),
        [
            (numbered_picture(1, format="JPEG"), "image/png"),
            (numbered_picture(1, format="AVIF"), "image/heic"),
            (numbered_picture(1, format="JPEG", pad_to=9000)[:-40], "image/jpeg"),
            (numbered_picture(1)[:100], "image/png"),
            (b"no picture", "image/webp"),
        ],
        ids=["another type", "AVIF as HEIC", "JPEG cut short", "PNG cut short", "no picture"],
    )
    def test_bytes_that_do_not_decode_as_their_type_are_unreadable(
        self, fake: FakeGemini, client: genai.Client, data: bytes, mime: str
    ) -> None:
        error = refusal(client, ["p", "Image 1:", types.Part.from_bytes(data=data, mime_type=mime)])
        assert (error.code, (error.message or "").startswith("Unable to process input image")) == (400, True)
        assert fake.outcomes() == [Outcome.UNREADABLE]

    def test_a_picture_declared_as_another_type_is_also_a_protocol_fault(self, fake: FakeGemini, client: genai.Client) -> None:
        part = types.Part.from_bytes(data=numbered_picture(1, format="JPEG"), mime_type="image/png")
        refusal(client, shown(part))
        assert fake.faults == ["call 0: a picture declared image/png is image/jpeg"]

    def test_a_body_over_20_mb_is_refused_and_the_connection_serves_on(self, fake: FakeGemini, client: genai.Client) -> None:
        large = numbered_picture(1, pad_to=15 * 1024 * 1024 + 8192)  # base64 makes it 4/3 of that
        error = refusal(client, ["p", "Image 1:", types.Part.from_bytes(data=large, mime_type="image/png")])
        assert "Request payload size exceeds the limit: 20971520 bytes" in (error.message or "")
        assert ask(client, 1).text == "Image 1 shows 1."

    def test_a_picture_of_14_mb_is_taken(self, client: genai.Client) -> None:
        part = types.Part.from_bytes(data=numbered_picture(9, pad_to=14 * 1024 * 1024), mime_type="image/png")
        assert client.models.generate_content(model=MODEL, contents=shown(part)).text == "Image 1 shows 9."

    def test_more_than_3600_pictures_are_refused(self, client: genai.Client) -> None:
        part = types.Part.from_bytes(data=numbered_picture(1), mime_type="image/png")
        error = refusal(client, [part] * 3601, media_resolution="MEDIA_RESOLUTION_LOW")
        assert (error.code, "3600" in (error.message or "")) == (400, True)

    def test_more_tokens_than_the_context_holds_show_as_a_500(self, client: genai.Client) -> None:
        part = types.Part.from_bytes(data=numbered_picture(1), mime_type="image/png")
        with pytest.raises(errors.ServerError) as caught:
            client.models.generate_content(model=MODEL, contents=shown(*[part] * 937))
        assert (caught.value.code, caught.value.status) == (500, "INTERNAL")

    def test_a_model_can_be_looked_up_to_check_a_key(self, fake: FakeGemini, client: genai.Client) -> None:
        model = client.models.get(model=MODEL)
        assert (model.name, model.input_token_limit) == (f"models/{MODEL}", 1_048_576)
        with pytest.raises(errors.ClientError, match="NOT_FOUND"):
            client.models.get(model="gemini-1.5-flash")
        with client_of(fake, key="wrong") as other, pytest.raises(errors.ClientError, match="API_KEY_INVALID"):
            other.models.get(model=MODEL)


class TestFilesApi:
    def upload(self, client: genai.Client, data: bytes, mime: str = "image/png") -> types.File:
        return client.files.upload(file=io.BytesIO(data), config=types.UploadFileConfig(mime_type=mime, display_name="p"))

    @pytest.mark.parametrize("size", [None, 9 * 1024 * 1024])
    def test_a_picture_goes_by_file(self, fake: FakeGemini, client: genai.Client, size: int | None) -> None:
        file = self.upload(client, numbered_picture(77, pad_to=size))
        assert (file.state, file.mime_type, file.display_name) == (types.FileState.ACTIVE, "image/png", "p")
        assert client.files.get(name=file.name or "").uri == file.uri
        part = types.Part.from_uri(file_uri=file.uri or "", mime_type="image/png")
        assert client.models.generate_content(model=MODEL, contents=shown(part)).text == "Image 1 shows 77."
        assert fake.calls[0].by_file == (True,)
        assert fake.seen == Counter([77])

    def test_files_not_deleted_are_known_and_deleted_ones_are_gone(self, fake: FakeGemini, client: genai.Client) -> None:
        kept, gone = (self.upload(client, numbered_picture(n)) for n in (1, 2))
        client.files.delete(name=gone.name or "")
        assert fake.files.kept == (kept.name,)
        assert fake.files.deleted == [gone.name]
        assert [file.name for file in client.files.list()] == [kept.name]
        for use in (client.files.get, client.files.delete):
            with pytest.raises(errors.ClientError, match="NOT_FOUND"):
                use(name=gone.name or "")
        part = types.Part.from_uri(file_uri=gone.uri or "", mime_type="image/png")
        assert refusal(client, shown(part)).code == 403

    def test_a_file_that_is_no_picture_of_the_declared_type_is_unreadable(self, client: genai.Client) -> None:
        file = self.upload(client, numbered_picture(1, format="JPEG"))
        part = types.Part.from_uri(file_uri=file.uri or "", mime_type="image/png")
        assert "Unable to process input image" in (refusal(client, shown(part)).message or "")

    def test_a_file_name_is_taken_once_and_checked(self, client: genai.Client) -> None:
        named = types.UploadFileConfig(mime_type="image/png", name="mine")
        assert client.files.upload(file=io.BytesIO(numbered_picture(1)), config=named).name == "files/mine"
        with pytest.raises(errors.ClientError, match="ALREADY_EXISTS"):
            client.files.upload(file=io.BytesIO(numbered_picture(1)), config=named)
        with pytest.raises(errors.ClientError, match="INVALID_ARGUMENT"):
            client.files.upload(file=io.BytesIO(b"x"), config=types.UploadFileConfig(mime_type="image/png", name="Not_Good"))

    @pytest.mark.parametrize("action", ["start", "upload"])
    def test_an_upload_can_fail_at_each_step(self, fake: FakeGemini, client: genai.Client, action: str) -> None:
        fake.file_script = lambda step, _: failing(403) if step == action else None
        with pytest.raises(errors.ClientError, match="PERMISSION_DENIED"):
            self.upload(client, numbered_picture(1))
        assert fake.files.kept == ()

    def test_a_deletion_can_fail_and_leaves_the_file(self, fake: FakeGemini, client: genai.Client) -> None:
        name = self.upload(client, numbered_picture(1)).name or ""
        fake.file_script = lambda step, _: failing(503) if step == "delete" else None
        with pytest.raises(errors.ServerError):
            client.files.delete(name=name)
        assert fake.files.kept == (name,)

    def test_an_upload_that_ends_short_is_refused(self, fake: FakeGemini) -> None:
        headers = {
            "x-goog-api-key": fake.key,
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": "10",
            "X-Goog-Upload-Header-Content-Type": "image/png",
        }
        start = httpx2.post(f"{fake.base_url}/upload/v1beta/files", headers=headers, json={"file": {}})
        finish = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
        answer = httpx2.post(start.headers["X-Goog-Upload-URL"], headers=finish, content=b"12345")
        assert (answer.status_code, fake.files.kept) == (400, ())
