"""Images sent as files of a form: streamed to scratch, under the same limits, answered 202."""

from __future__ import annotations

import io
import json
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from api.body import BodyRoom, Sent
from api.errors import ApiError
from api.places import Places
from api.uploads import read_upload
from pipeline.request.check import RequestFault
from pipeline.types import MAX_IMAGE_BYTES
from storage import schema
from tests.harness import CREDITS, running
from tests.rows import job_row

JOBS = "/api/v1/jobs"
COMPATIBLE = "/api/v1/extract-image"


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="2", MERGED_PER_CALL="2") as made:
        yield made


def files(*pictures: bytes, name: str = "images"):
    return {name: [(io.BytesIO(picture), f"{place}.png") for place, picture in enumerate(pictures)]}


def encoded(form):
    """The form's bytes and its content type: another boundary each time."""
    with closing(EnvironBuilder(method="POST", data=form, content_type="multipart/form-data")) as builder:
        environ = builder.get_environ()
        with closing(environ["wsgi.input"]) as body:
            return body.read(), environ["CONTENT_TYPE"]


def send(house, path=JOBS, headers=None, **form):
    body, content_type = encoded({"prompt": "p", **form})
    return house.ask("POST", path, data=body, content_type=content_type, headers=headers or {})


@pytest.mark.parametrize("path", [JOBS, COMPATIBLE])
def test_files_become_a_job_that_is_answered_at_once(house, path):
    answer = send(house, path, **files(b"img a", b"img b", b"img c"))
    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.json["links"]["self"]
    assert len(house.scratch.objects) == 2
    house.drain()
    job = answer.json["id"]
    assert house.get(f"{JOBS}/{job}/results").json["imageCount"] == 3
    assert house.balance() == (CREDITS - 13, 0, 13)
    assert [call.pictures[0].data for call in house.engine.calls] == [b"img a", b"img c"]
    items = house.get(f"{JOBS}/{job}/items").json["items"]
    assert [(item["customId"], item["source"]) for item in items] == [(name, name) for name in ("0.png", "1.png", "2.png")]


def test_the_other_fields_are_what_json_would_have(house):
    metadata = {"order": 7, "tags": ["a", None]}
    answer = send(
        house,
        **files(b"img a", b"img b"),
        prompt="42",
        jsonMode="true",
        granularity="perImage",
        customIds=json.dumps(["x", "y"]),
        metadata=json.dumps(metadata),
        deadlineSeconds="600",
        maxCredits="12",
        onError="fail",
        webhookUrl="https://receiver.example/hook",
        inputMethod="",
        unknown="left alone",
    )
    row = job_row(house.database, answer.json["id"])
    assert (row.prompt, row.options["json_mode"], row.options["per_image"]) == ("42", True, True)
    assert (row.metadata, row.deadline_ms, row.fail_on_error) == (metadata, 600_000, True)
    assert (row.webhook_url, row.input_method) == ("https://receiver.example/hook", "upload")
    house.drain()
    items = house.get(f"{JOBS}/{row.id}/items").json["items"]
    assert [(item["customId"], item["result"]) for item in items] == [("x", {"saw": "img a"}), ("y", {"saw": "img b"})]


def test_a_field_that_comes_several_times_is_an_array(house):
    answer = send(house, **files(b"img a", b"img b"), customIds=["x", "y"])
    assert [item["customId"] for item in house.get(f"{JOBS}/{answer.json['id']}/items").json["items"]] == ["x", "y"]


@pytest.mark.parametrize("ids", [["7"], ["7", "08"], ["x"], ["true", "null"]])
def test_custom_ids_in_parts_of_their_own_are_texts_whatever_they_look_like(house, ids):
    answer = send(house, **files(*[b"img a"] * len(ids)), customIds=ids)
    assert [item["customId"] for item in house.get(f"{JOBS}/{answer.json['id']}/items").json["items"]] == ids


@pytest.mark.parametrize("name", ["images", "images[]", "image"])
def test_files_may_be_called_as_forms_call_them(house, name):
    assert send(house, **files(b"img a", name=name)).json["counts"]["total"] == 1


def test_one_bad_file_fails_alone(house):
    job = send(house, **files(b"img a", b"none", b"")).json["id"]
    house.drain()
    errors = house.get(f"{JOBS}/{job}/results").json["errors"]
    assert [error["code"] for error in errors] == ["unsupported_format", "image_empty"]
    refused = house.ask("POST", f"{JOBS}/{job}/retry")
    assert (refused.status_code, refused.json["code"]) == (409, "inputs_gone")


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({}, 400, "invalid_image_count"),
        ({"images": "https://pictures.example/0"}, 400, "invalid_multipart"),
        (files(b"img", name="photo"), 400, "invalid_multipart"),
        (files(b"", b""), 400, "image_empty"),
        (files(b"img" + bytes(MAX_IMAGE_BYTES)), 400, "image_too_large"),
        ({**files(b"img"), "prompt": " "}, 400, "invalid_prompt"),
        ({**files(b"img"), "prompt": ["a", "b"]}, 400, "invalid_prompt"),
        ({**files(b"img"), "prompt": "p" * 3_000_000}, 400, "invalid_multipart"),
        ({**files(b"img"), "deadlineSeconds": "soon"}, 400, "invalid_deadline_seconds"),
        ({**files(b"img"), "metadata": "[1]"}, 400, "invalid_metadata"),
        ({**files(b"img"), "metadata": '{"a":'}, 400, "invalid_metadata"),
        ({**files(b"img"), "maxCredits": "10"}, 402, "max_credits_too_low"),
    ],
    ids=range(12),
)
def test_a_form_that_can_not_be_is_refused_and_leaves_nothing(house, form, status, code):
    for path in (JOBS, COMPATIBLE):
        refused = send(house, path, **_again(form))
        assert (refused.status_code, refused.headers["X-Error-Code"]) == (status, code)
    assert house.count_rows("jobs") == 0
    assert house.scratch.objects == {}
    assert house.balance() == (CREDITS, 0, 0)


def _again(form):
    """The same form once more: what is sent is read to its end."""
    return {
        name: [(io.BytesIO(each[0].getvalue()), each[1]) if isinstance(each, tuple) else each for each in value]
        if isinstance(value, list)
        else value
        for name, value in form.items()
    }


def test_images_of_a_form_are_over_the_limit_together_as_others_are(house, monkeypatch):
    monkeypatch.setattr("pipeline.request.check.MAX_TOTAL_BYTES", 10)
    refused = send(house, **files(b"img a", b"img b", b"img c"))
    assert (refused.status_code, refused.json["code"]) == (400, "total_too_large")
    assert "images[2]" in refused.json["error"]


def test_more_than_three_thousand_files_are_refused(house):
    refused = send(house, **files(*[b"img"] * 3001))
    assert (refused.status_code, refused.json["code"]) == (400, "invalid_image_count")
    refused = send(house, **files(*[b"img"] * 6101))
    assert (refused.status_code, refused.json["code"]) == (400, "invalid_multipart")


def test_the_same_form_with_the_same_key_is_the_same_job_whatever_its_boundary(house):
    key = {"Idempotency-Key": "k"}
    boundaries, answers = set(), []
    for _ in range(2):
        body, content_type = encoded({"prompt": "p", **files(b"img a")})
        boundaries.add(content_type)
        answers.append(house.ask("POST", JOBS, data=body, content_type=content_type, headers=key))
    assert len(boundaries) == 2
    assert answers[0].json["id"] == answers[1].json["id"]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    other = send(house, **files(b"img b"), headers=key)
    assert (other.status_code, other.json["code"]) == (409, "idempotency_key_reused")
    with house.database.read() as connection:
        assert len(connection.execute(schema.jobs_table.select()).all()) == 1


HEAD = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "boundary"),
    [
        (HEAD + b"img\r\n--b--\r\n", ""),
        (HEAD + b"img\r\n--b--\r\n", "; boundary="),
        (HEAD + b"img\r\n--b--\r\n", "; boundary=" + "b" * 201),
        (HEAD + b"img\r\n--b--\r\n", "; boundary=other"),
        (HEAD + b"img\r\n", "; boundary=b"),
        (b"", "; boundary=b"),
        (b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n", "; boundary=b"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", "; boundary=b"),
        (b"--b\r\nContent-Disposition: form-data; name=\xff\r\n\r\nx\r\n--b--\r\n", "; boundary=b"),
        (b"--b\r\nX: " + b"x" * 300_000 + b"\r\n\r\nx\r\n--b--\r\n", "; boundary=b"),
        (b"x" * 300_000, "; boundary=b"),
        (b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\r\n--b--\r\n', "; boundary=b"),
    ],
    ids=range(12),
)
def test_a_body_that_is_no_form_is_refused(house, body, boundary):
    refused = house.ask("POST", JOBS, data=body, content_type=f"multipart/form-data{boundary}")
    assert refused.status_code == 400
    assert refused.json["code"] in {"invalid_multipart", "invalid_image_count"}
    assert house.count_rows("jobs") == 0


@given(pictures=st.lists(st.binary(min_size=1, max_size=300), max_size=4), cut=st.integers(0, 400))
def test_whatever_bytes_files_have_they_come_out_the_same_and_a_form_that_is_cut_short_is_refused(pictures, cut):
    body, content_type = encoded({"prompt": "p", **files(*pictures)})

    def read(sent: bytes) -> Sent:
        environ = {"wsgi.input": io.BytesIO(sent), "CONTENT_LENGTH": str(len(sent)), "CONTENT_TYPE": content_type}
        request = Request({"REQUEST_METHOD": "POST", "wsgi.input_terminated": True, **environ})
        with read_upload(
            request, 10**9, BodyRoom(account="acc", arriving=Places(128), large_bodies=Places(1)), hashed=True
        ) as found:
            assert [found.images[index] for index in range(len(found.images))] == pictures
            assert found.fields == {"prompt": "p"}
            return found

    assert read(body).uploaded
    if 2 < cut < len(body):
        with pytest.raises((RequestFault, ApiError)):
            read(body[: len(body) - cut])


def test_a_single_fallback_model_is_a_part_like_any_other(house):
    [model, *_] = house.web.models
    answer = send(house, fallbackModels=model, **files(b"img a"))
    assert answer.status_code == 202
    assert job_row(house.database, answer.json["id"]).options["fallback_models"] == [model]
    house.drain()


def test_a_file_s_name_is_its_custom_id_and_its_source_in_every_form_of_the_results(house):
    names = ["Beleg ü 日本.jpg", "folder/b.jpg", "C:\\fakepath\\b.jpg", "b.jpg", "none.jpg"]
    pictures = [(io.BytesIO(b"none" if name == "none.jpg" else b"img"), name) for name in names]
    job = send(house, images=pictures, granularity="perImage").json["id"]
    house.drain()
    shown = ["Beleg ü 日本.jpg", "folder/b.jpg", "b.jpg", "b.jpg", "none.jpg"]
    items = house.get(f"{JOBS}/{job}/items").json["items"]
    assert [(item["customId"], item["source"]) for item in items] == [(name, name) for name in shown]
    lines = house.get(f"{JOBS}/{job}/results?format=jsonl").text.splitlines()
    assert [json.loads(line)["customId"] for line in lines] == shown
    table = house.get(f"{JOBS}/{job}/results?format=csv").text.splitlines()
    assert [row.split(",")[1:3] for row in table[1:]] == [[name, name] for name in shown]
    assert [error["customId"] for error in house.get(f"{JOBS}/{job}/results").json["errors"]] == ["none.jpg"]


def test_given_custom_ids_go_before_the_files_names(house):
    job = send(house, **files(b"img a", b"img b"), customIds=["x", "y"]).json["id"]
    items = house.get(f"{JOBS}/{job}/items").json["items"]
    assert [(item["customId"], item["source"]) for item in items] == [("x", "0.png"), ("y", "1.png")]


@pytest.mark.parametrize(
    ("disposition", "shown"),
    [
        ('filename="C:\\fakepath\\a.jpg"', "a.jpg"),
        ('filename="folder\\a.jpg"', "folder/a.jpg"),
        ('filename="C:\\\\pictures\\\\a.jpg"', "a.jpg"),
        ('filename="say \\"a\\".jpg"', 'say "a".jpg'),
        ('filename="say %22a%22.jpg"', 'say "a".jpg'),
        ("filename=a.jpg", "a.jpg"),
        ("filename=\"a.jpg\"; filename*=UTF-8''%C3%BC.jpg", "ü.jpg"),
        ('filename=""', None),
    ],
)
def test_a_file_s_name_is_read_as_browsers_and_libraries_send_it(house, disposition, shown):
    parts = [f'name="images"; {disposition}', 'name="prompt"']
    body = b"".join(f"--b\r\nContent-Disposition: form-data; {part}\r\n\r\nimg\r\n".encode() for part in parts) + b"--b--\r\n"
    job = house.ask("POST", JOBS, data=body, content_type="multipart/form-data; boundary=b").json["id"]
    [item] = house.get(f"{JOBS}/{job}/items").json["items"]
    assert (item["customId"], item["source"]) == (shown, shown)


def test_the_same_files_under_other_names_are_another_body(house):
    sent = [send(house, headers={"Idempotency-Key": "k"}, images=[(io.BytesIO(b"img"), name)]) for name in ("a", "a", "b")]
    assert [answer.status_code for answer in sent] == [202, 202, 409]
    assert sent[0].json["id"] == sent[1].json["id"]
