"""A request from the front door to its answer, through the steps and SQL."""

from __future__ import annotations

import json

import pytest

from pipeline.ports import ModelUnavailable
from pipeline.types import Answer, Finish, ItemCode
from tests.fakes.engine import FakeEngine
from tests.harness import b64


def test_a_base64_image_is_answered_at_once_with_exactly_the_four_keys(harness):
    answer = harness.post({"inputMethod": "base64", "images": [b64(b"img one")], "prompt": "What?"})
    assert answer.status_code == 200
    assert answer.json == {"results": "1=img one", "prompt": "What?", "imageCount": 1, "creditUsage": 11}
    assert list(answer.json) == ["results", "prompt", "imageCount", "creditUsage"]
    assert harness.balance() == (100_000 - 11, 0, 11)


def test_urls_are_fetched_and_answered_in_order(harness):
    answer = harness.post({"inputMethod": "url", "images": harness.urls(3), "prompt": "p"})
    assert answer.json["results"] == "1=img0\n2=img1\n3=img2"
    assert answer.json["creditUsage"] == 13


def test_a_bad_image_among_good_ones_is_an_item_failure(harness):
    images = [b64(b"img a"), b64(b"no picture"), b64(b"img c")]
    answer = harness.post({"inputMethod": "base64", "images": images, "prompt": "p"})
    assert answer.status_code == 200
    assert answer.json["results"] == "1=img a\n3=img c"
    assert (answer.json["imageCount"], answer.json["creditUsage"]) == (2, 12)
    assert answer.json["errors"] == [{"index": 1, "code": "unsupported_format", "message": "This is not an image."}]


def test_a_single_image_that_is_none_is_a_400_and_costs_nothing(harness):
    answer = harness.post({"inputMethod": "base64", "images": [b64(b"no picture")], "prompt": "p"})
    assert answer.status_code == 400
    assert answer.json == {"error": "images[0]: This is not an image."}
    assert answer.headers["X-Error-Code"] == "unsupported_format"
    assert harness.balance() == (100_000, 0, 0)


def test_when_no_url_can_be_fetched_the_request_is_a_400(harness):
    answer = harness.post({"inputMethod": "url", "images": ["https://a.example/", "https://b.example/"], "prompt": "p"})
    assert answer.status_code == 400
    assert answer.json["error"].startswith("None of the 2 images could be processed. images[0]: ")


def test_when_the_model_refuses_every_image_it_is_a_500_in_the_contract_s_words(make_harness):
    def script(_call, _number):
        return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY")

    harness = make_harness(engine=FakeEngine(script=script))
    answer = harness.post({"inputMethod": "url", "images": harness.urls(2), "prompt": "p"})
    assert answer.status_code == 500
    assert answer.json["error"].startswith("Failed to extract image data: ")
    assert answer.headers["X-Error-Code"] == "safety_blocked"
    assert harness.balance() == (100_000, 0, 0)


def test_many_images_are_cut_into_chunks_and_merged_in_order(make_harness):
    harness = make_harness(MERGED_PER_CALL="4")
    answer = harness.post({"inputMethod": "url", "images": harness.urls(10), "prompt": "p"})
    assert [len(call.pictures) for call in harness.engine.calls] in ([4, 4, 2], [4, 2, 4], [2, 4, 4])
    assert answer.json["results"] == (
        "Images 1 to 4\n1=img0\n2=img1\n3=img2\n4=img3\n\n"
        "Images 5 to 8\n5=img4\n6=img5\n7=img6\n8=img7\n\n"
        "Images 9 to 10\n9=img8\n10=img9"
    )


def test_json_mode_gives_one_document_of_all_chunks(make_harness):
    harness = make_harness(MERGED_PER_CALL="2")
    answer = harness.post({"inputMethod": "url", "images": harness.urls(5), "prompt": "p", "jsonMode": True})
    assert [entry["saw"] for entry in json.loads(answer.json["results"])] == [f"img{index}" for index in range(5)]


def test_per_image_gives_one_record_for_each_image(make_harness):
    harness = make_harness(IMAGES_PER_CALL="2")
    body = {"inputMethod": "url", "images": harness.urls(5), "prompt": "p", "granularity": "perImage"}
    records = json.loads(harness.post(body).json["results"])
    assert records == [{"index": index, "result": f"img{index}"} for index in range(5)]


def test_a_job_that_is_not_done_in_time_is_a_202_that_can_be_followed(make_harness):
    harness = make_harness(workers_count=0)
    body = {"inputMethod": "url", "images": harness.urls(2), "prompt": "p"}
    accepted = harness.post(body, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    assert accepted.headers["Preference-Applied"] == "respond-async"
    assert accepted.json["status"] == "queued"
    assert harness.balance() == (100_000 - 12, 12, 0)
    harness.drain()
    job = harness.get(accepted.headers["Location"] + "?wait=5").json
    assert (job["status"], job["progress"]) == ("succeeded", 1.0)
    assert job["counts"] == {"total": 2, "succeeded": 2, "failed": 0}
    assert job["usage"]["credits"] == 12
    results = harness.get(job["links"]["results"]).json
    assert results == {"results": "1=img0\n2=img1", "prompt": "p", "imageCount": 2, "creditUsage": 12}


def test_the_total_over_100_mb_shows_only_in_the_downloads_and_is_a_400(make_harness):
    harness = make_harness(MERGED_PER_CALL="3")
    picture = b"img" + bytes(18 * 1024 * 1024)
    images = [harness.page(f"https://pictures.example/{index}", picture) for index in range(6)]
    answer = harness.post({"inputMethod": "url", "images": images, "prompt": "p"})
    assert answer.status_code == 400
    assert answer.headers["X-Error-Code"] == "total_too_large"
    assert harness.balance() == (100_000, 0, 0)


def test_a_model_that_is_away_costs_no_try_and_the_job_goes_on_when_it_is_back(make_harness):
    def script(_call, number):
        return ModelUnavailable("429", retry_after=0.0, notice="The key is wrong.") if number <= 5 else None

    harness = make_harness(engine=FakeEngine(script=script), workers_count=0)
    accepted = harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p"}, headers={"Prefer": "respond-async"})
    harness.drain()
    job = harness.get(accepted.headers["Location"]).json
    assert job["status"] == "succeeded"
    assert "The key is wrong." in job["warnings"]


def test_a_step_that_keeps_failing_by_itself_fails_its_images_and_the_job_ends(make_harness):
    harness = make_harness(engine=FakeEngine(script=lambda _c, _n: RuntimeError("a bug")), workers_count=0)
    accepted = harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p"}, headers={"Prefer": "respond-async"})
    for _ in range(3):
        harness.skip_waits()
        harness.drain()
    job = harness.get(accepted.headers["Location"]).json
    assert job["status"] == "failed"
    assert job["error"]["code"] == "internal_error"
    assert "a bug" not in json.dumps(job)


def test_lost_messages_are_rung_again_by_the_supervisor(make_harness):
    harness = make_harness(workers_count=0)
    harness.signals.lose_rings = True
    accepted = harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p"}, headers={"Prefer": "respond-async"})
    harness.signals.lose_rings = False
    harness.drain()
    assert harness.get(accepted.headers["Location"]).json["status"] == "queued"  # the ring is still in hand
    harness.age_rings()
    harness.drain()
    assert harness.get(accepted.headers["Location"]).json["status"] == "succeeded"


def test_a_job_past_its_deadline_ends_with_what_it_has(make_harness):
    harness = make_harness(workers_count=0)
    accepted = harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p"}, headers={"Prefer": "respond-async"})
    harness.make_overdue()
    harness.supervisor.end_overdue()
    job = harness.get(accepted.headers["Location"]).json
    assert (job["status"], job["error"]["code"]) == ("failed", "deadline_exceeded")
    assert harness.balance() == (100_000, 0, 0)


def test_results_expire_and_what_they_cost_stays_known(make_harness):
    harness = make_harness(RESULT_TTL="1", workers_count=0)
    accepted = harness.post({"inputMethod": "url", "images": harness.urls(1), "prompt": "p"}, headers={"Prefer": "respond-async"})
    harness.drain()
    harness.make_expired()
    harness.supervisor.purge()
    job = harness.get(accepted.headers["Location"]).json
    assert job["usage"]["credits"] == 11
    assert harness.get(job["links"]["results"]).status_code == 410


@pytest.mark.parametrize("table", ["images", "chunks", "steps"])
def test_a_refused_request_leaves_no_row(harness, table):
    _, poor = harness.new_key(credits=11)
    answer = harness.post({"inputMethod": "url", "images": harness.urls(2), "prompt": "p"}, key=poor)
    assert answer.status_code == 402
    assert harness.count_rows(table) == 0


def test_a_single_chunk_over_100_mb_fails_the_job_too(harness):
    picture = b"img" + bytes(15 * 1024 * 1024)
    images = [harness.page(f"https://pictures.example/{index}", picture) for index in range(9)]
    answer = harness.post({"inputMethod": "url", "images": images, "prompt": "p"})
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "total_too_large")


def test_what_is_no_image_counts_towards_the_100_mb_too(make_harness):
    harness = make_harness(MERGED_PER_CALL="3")
    images = [harness.page(f"https://others.example/{index}", bytes(18 * 1024 * 1024)) for index in range(6)]
    answer = harness.post({"inputMethod": "url", "images": [*images, *harness.urls(1)], "prompt": "p"})
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "total_too_large")


def test_what_a_thread_has_staged_is_not_fetched_back_for_the_model(make_harness):
    harness = make_harness(workers_count=0)
    opened: list[str] = []
    real = harness.scratch.open

    def watched(key: str):
        opened.append(key)
        return real(key)

    harness.scratch.open = watched
    job = harness.post({"inputMethod": "url", "images": harness.urls(3), "prompt": "p"}, headers={"Prefer": "respond-async"}).json
    harness.drain()
    assert harness.get(job["links"]["self"]).json["status"] == "succeeded"
    assert opened == []
