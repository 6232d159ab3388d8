"""Pictures are shown re-encoded, to their account alone, and only while they are kept."""

from __future__ import annotations

import io
import threading
from dataclasses import replace

import pytest
from PIL import Image

from api.app import create_app
from api.errors import ApiError
from api.previews import Previews
from pipeline.types import ItemCode, Prepared, Refused
from tests.fakes.picture_files import encoded, exif
from tests.harness import b64
from tests.rows import eventually

PREVIEW = "/api/v1/preview"
PHOTO = encoded(Image.new("RGB", (400, 200), "red"), "JPEG", exif=exif(6))
KEPT = {"inputMethod": "base64", "images": [b64(b"img0"), b64(b"img1")], "prompt": "p", "keepInputsSeconds": 600}


def size_of(answer):
    with Image.open(io.BytesIO(answer.data)) as image:
        return image.size


def job_of(house, body):
    job = house.ask("POST", "/api/v1/jobs", json=body).json["id"]
    house.drain()
    return job


@pytest.fixture
def house(make_harness):
    return make_harness(workers_count=0)


def test_a_picture_that_is_sent_comes_back_upright_and_re_encoded(house):
    answer = house.ask("POST", f"{PREVIEW}?width=64", data=PHOTO)
    assert answer.status_code == 200
    assert (answer.mimetype, size_of(answer)) == ("image/jpeg", (64, 128))
    assert answer.data != PHOTO
    assert house.balance()[1:] == (0, 0)


def test_a_picture_is_kept_by_no_cache_and_can_run_nothing(house):
    headers = house.ask("POST", PREVIEW, data=PHOTO).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'"
    assert headers["Cache-Control"] == "private, no-store"
    assert headers["Content-Disposition"] == 'inline; filename="preview.jpg"'


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"data": b"no picture"}, 400, "image_corrupt"),
        ({"environ_overrides": {"CONTENT_LENGTH": "0"}}, 400, "image_empty"),
        ({"data": PHOTO, "query_string": "width=63"}, 400, "invalid_width"),
        ({"data": PHOTO, "query_string": "width=2049"}, 400, "invalid_width"),
        ({"data": PHOTO, "key": "no key"}, 401, "unauthorized"),
        ({"environ_overrides": {"CONTENT_LENGTH": str(20 * 1024 * 1024 + 1)}}, 400, "image_too_large"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_its_code(house, options, status, code):
    answer = house.ask("POST", PREVIEW, **options)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (status, code)


def test_an_image_of_a_job_is_shown_while_it_is_kept_and_to_its_account_alone(house):
    job = job_of(house, KEPT)
    address = f"/api/v1/jobs/{job}/items/1/image"
    shown = house.get(address)
    assert (shown.status_code, shown.mimetype) == (200, "image/jpeg")
    assert (shown.headers["X-Image-Width"], shown.headers["X-Image-Height"]) == ("1", "1")
    assert shown.headers["Content-Disposition"] == 'inline; filename="image-1.jpg"'
    _, other = house.new_key()
    assert house.get(address, key=other).status_code == 404
    assert house.get(f"/api/v1/jobs/{job}/items/2/image").status_code == 404
    assert house.get(f"/api/v1/jobs/{job}/items/x/image").status_code == 404
    house.expire_inputs()
    gone = house.get(address)
    assert (gone.status_code, gone.json["code"]) == (410, "inputs_gone")
    assert "keepInputsSeconds" in gone.json["error"]


def test_an_image_that_is_not_kept_is_shown_until_its_job_has_ended(house):
    body = {name: value for name, value in KEPT.items() if name != "keepInputsSeconds"}
    job = house.ask("POST", "/api/v1/jobs", json=body).json["id"]
    assert house.get(f"/api/v1/jobs/{job}/items/0/image").status_code == 200
    house.drain()
    assert house.get(f"/api/v1/jobs/{job}/items/0/image").status_code == 410


def test_an_image_by_url_is_never_fetched_again_to_be_shown(house):
    job = job_of(house, {"inputMethod": "url", "images": house.urls(1), "prompt": "p", "keepInputsSeconds": 600})
    fetched = list(house.fetch.fetched)
    assert house.get(f"/api/v1/jobs/{job}/items/0/image").status_code == 410
    assert house.fetch.fetched == fetched


def test_an_uploaded_file_is_shown_and_a_file_that_is_no_picture_is_refused_with_its_code(house):
    form = {"images": [(io.BytesIO(PHOTO), "<b>.jpg"), (io.BytesIO(b"text"), "b.txt")], "prompt": "p", "keepInputsSeconds": "60"}
    job = house.ask("POST", "/api/v1/jobs", data=form).json["id"]
    house.drain()
    shown = house.get(f"/api/v1/jobs/{job}/items/0/image?width=100")
    assert size_of(shown) == (100, 200)
    refused = house.get(f"/api/v1/jobs/{job}/items/1/image")
    assert (refused.status_code, refused.json["code"]) == (400, "image_corrupt")


class SlowPreview:
    """Tells which pictures are being made, and makes none before `go` is set."""

    def __init__(self):
        self.begun, self.go, self._changed = [], threading.Event(), threading.Condition()

    def __call__(self, data, *, width):
        with self._changed:
            self.begun.append(data)
            self._changed.notify_all()
        self.go.wait(30)
        return Prepared(data=data, mime="image/jpeg", width=1, height=1, source_format="PNG")

    def wait_for(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.begun) >= count, 30)


def started(previews, account, name):
    thread = threading.Thread(target=previews.make, args=(account, lambda: name), kwargs={"width": 64})
    thread.start()
    return thread


def test_an_account_cannot_take_all_children_and_accounts_take_turns():
    slow = SlowPreview()
    previews = Previews(slow, children=2)
    threads = [started(previews, "a", b"a1")]
    slow.wait_for(1)
    threads += [started(previews, "a", b"a2")]
    threads += [started(previews, "b", b"b1")]
    slow.wait_for(2)
    assert sorted(slow.begun) == [b"a1", b"b1"]
    slow.go.set()
    for thread in threads:
        thread.join()
    assert len(slow.begun) == 3


def test_an_account_with_all_the_previews_that_it_can_get_leaves_places_for_another_one():
    slow = SlowPreview()
    previews = Previews(slow, children=2, places=8)
    threads = [started(previews, "a", b"a") for _ in range(6)]
    slow.wait_for(1)
    eventually(lambda: previews._places.free == 2)
    with pytest.raises(ApiError) as full:
        previews.make("a", lambda: b"a", width=64)
    assert full.value.code == "too_many_previews"
    threads.append(started(previews, "b", b"b"))
    slow.wait_for(2)
    assert sorted(slow.begun) == [b"a", b"b"]
    slow.go.set()
    for thread in threads:
        thread.join()


def test_who_waits_too_long_or_with_too_many_others_is_refused():
    slow = SlowPreview()
    previews = Previews(slow, children=1, places=2, wait_seconds=0)
    first = started(previews, "a", b"a1")
    slow.wait_for(1)
    with pytest.raises(ApiError) as late:
        previews.make("b", lambda: b"b1", width=64)
    assert late.value.code == "too_many_previews"
    with pytest.raises(ApiError) as full:
        previews.make("a", lambda: b"a2", width=64)
    assert full.value.code == "too_many_previews"
    slow.go.set()
    first.join()
    assert isinstance(previews.make("b", lambda: b"b2", width=64), Prepared)


def test_children_end_when_no_picture_has_been_asked_for_for_a_while():
    ended = threading.Event()
    previews = Previews(SlowPreview(), ended.set, idle_seconds=0)
    previews._preview.go.set()
    previews.make("a", lambda: b"a", width=64)
    assert ended.wait(30)


def test_a_picture_that_kills_the_decoder_is_refused_and_the_next_one_is_shown(house):
    outcomes = iter([Refused(code=ItemCode.IMAGE_CRASHED_DECODER, detail="It crashed.")])

    def preview(data, *, width):
        return next(outcomes, Prepared(data=data, mime="image/jpeg", width=1, height=1, source_format="PNG"))

    house.app = create_app(replace(house.web, previews=Previews(preview)))
    assert house.ask("POST", PREVIEW, data=PHOTO).json["code"] == "image_crashed_decoder"
    assert house.ask("POST", PREVIEW, data=PHOTO).status_code == 200
