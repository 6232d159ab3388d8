"""The ground step: each record is looked for in what the OCR reads in its picture, and is never changed by it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from pipeline.errors import Permanent
from pipeline.ports import ModelFault, ModelUnavailable
from pipeline.scratch_key import owner_of, reading_key
from storage import schema
from storage.job import closing
from storage.queue.steps import LostLease
from tests.fakes.text_reader import FakeTextReader
from tests.harness import Harness, b64, running
from tests.rows import claimed, set_steps, step_ids, step_row, stolen, worked_on
from workers import ground
from workers.alone import Died
from workers.ocr_places import BUSY_SECONDS, MOST_BUSY_SECONDS, OcrPlaces
from workers.run import run_lease, run_step

JOB = {"prompt": "p", "granularity": "perImage", "jsonMode": True, "evidence": True, "reviewWhen": ["unsupported", "failed"]}


@pytest.fixture
def house(tmp_path: Path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="2") as house:
        yield house


def sent(house: Harness, *images: bytes, **fields: object) -> str:
    body = {**JOB, "inputMethod": "base64", "images": list(map(b64, images or (b"img0", b"img1"))), **fields}
    answer = house.post(body, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return str(answer.json["id"])


def items(house: Harness, job: str, query: str = "") -> list[dict]:
    return house.get(f"/api/v1/jobs/{job}/items{query}").json["items"]


def job_of(house: Harness, job: str) -> dict:
    return house.get(f"/api/v1/jobs/{job}").json


def open_steps(house: Harness, job: str) -> list[int]:
    columns = schema.steps_table.c
    with house.database.read() as connection:
        query = select(columns.id).where(columns.job == job, columns.state == "ready", columns.kind != "ground")
        return list(connection.execute(query.order_by(columns.id)).scalars())


def grounds(house: Harness, job: str) -> list[int]:
    """Works until only ground steps are left. Returns their ids."""
    while ready := open_steps(house, job):
        commit = worked_on(house.work, claimed(house.database, ready[0]))
        with house.database.write() as connection:
            commit(connection)
    return step_ids(house.database, job, "ground")


def test_each_value_of_a_record_has_its_place_and_the_record_is_as_without(house):
    job, without = sent(house), sent(house, evidence=False, reviewWhen=None)
    house.drain()
    found, plain = items(house, job), items(house, without)
    assert [item["result"] for item in found] == [item["result"] for item in plain] == [{"saw": "img0"}, {"saw": "img1"}]
    place = found[1]["evidence"]["/saw"]
    assert (place["match"], place["text"], place["confidence"]) == ("exact", "img1", 0.99)
    [[left, top, right, bottom]] = place["boxes"]
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 0.2
    assert [(item["unsupported"], item["evidenceError"], item["needsReview"]) for item in found] == [([], None, False)] * 2
    assert not {"evidence", "unsupported", "evidenceError", "needsReview"} & {*plain[0]}
    assert "needsReview" not in job_of(house, without)["counts"]


def test_a_value_that_does_not_stand_in_the_picture_is_unsupported_and_needs_a_review(house):
    job = sent(house, b"img0", b"img1")
    steps_ = grounds(house, job)
    with house.database.write() as connection:
        connection.execute(
            update(schema.images_table)
            .where(schema.images_table.c.job == job, schema.images_table.c.index == 1)
            .values(result={"saw": "img1", "total": 98.76})
        )
    assert len(steps_) == 1
    house.drain()
    one = items(house, job)[1]
    assert (one["unsupported"], one["evidence"]["/total"]["match"], one["needsReview"]) == (["/total"], "none", True)
    assert job_of(house, job)["counts"]["needsReview"] == 1
    assert [item["index"] for item in items(house, job, "?needsReview=true")] == [1]
    assert [item["index"] for item in items(house, job, "?needsReview=false")] == [0]
    table = house.get(f"/api/v1/jobs/{job}/results?format=csv").get_data().decode("utf-8-sig").splitlines()
    assert table[0] == "index,customId,source,status,code,message,unsupported,saw,total"
    assert table[2].endswith(",total,img1,98.76")


def test_a_picture_that_a_job_has_twice_is_read_once(house):
    sent(house, b"img0", b"img1", b"img0", b"img0")
    house.drain()
    assert sorted(house.text_reader.pictures) == [b"img0", b"img1"]
    sent(house, b"img0")
    house.drain()
    assert len(house.text_reader.pictures) == 3, "what was read is kept no longer than its job"


def readings_asked_for(house: Harness) -> list[str]:
    """The keys of readings that scratch is asked for from now on."""
    asked: list[str] = []
    opened = house.scratch.open

    def opening(key: str):
        if "/ocr-" in key:
            asked.append(key)
        return opened(key)

    house.scratch.open = opening
    return asked


def test_scratch_is_asked_for_a_reading_only_where_a_job_has_the_picture_twice(house):
    asked = readings_asked_for(house)
    sent(house, b"img0", b"img1", b"img2")
    house.drain()
    assert asked == []
    job = sent(house, b"img0", b"img1", b"img0")
    house.drain()
    assert asked == [reading_key(job, hashlib.sha256(b"img0").hexdigest())]


def test_a_reading_of_a_worker_that_died_before_its_commit_is_not_made_again(house):
    job = sent(house, b"img0", b"img1")
    [step] = grounds(house, job)
    worked_on(house.work, claimed(house.database, step))
    set_steps(house.database, step, lease_until=0)
    house.supervisor.reclaim()
    house.drain()
    assert job_of(house, job)["status"] == "succeeded"
    assert house.text_reader.pictures == [b"img0", b"img1"]


def test_a_picture_of_two_open_jobs_of_an_account_is_read_once(house):
    first = sent(house, b"img0", b"img1", b"img2")
    run_step(house.work, grounds(house, first)[0])
    second = sent(house, b"img0", b"img3", b"img0")
    begun, later = grounds(house, second)
    run_step(house.work, begun)
    assert house.text_reader.pictures == [b"img0", b"img1", b"img3"]
    assert items(house, second)[0]["evidence"] == items(house, first)[0]["evidence"]
    house.ask("POST", f"/api/v1/jobs/{first}/cancel")
    for step in step_ids(house.database, first, "cleanup"):
        run_step(house.work, step)
    assert [key for key in house.scratch.objects if owner_of(key) == first] == []
    run_step(house.work, later)
    assert house.text_reader.pictures == [b"img0", b"img1", b"img3"], "the second job has the reading among its own objects"
    assert job_of(house, second)["status"] == "succeeded"
    house.drain()


def test_what_the_ocr_read_for_one_account_is_never_used_for_another(house):
    first = sent(house, b"img0", b"img1", b"img2")
    run_step(house.work, grounds(house, first)[0])
    asked = readings_asked_for(house)
    _, key = house.new_key()
    body = {**JOB, "inputMethod": "base64", "images": [b64(b"img0")]}
    other = house.post(body, key=key, headers={"Prefer": "respond-async"}).json["id"]
    [step] = grounds(house, other)
    run_step(house.work, step)
    assert house.text_reader.pictures == [b"img0", b"img1", b"img0"]
    assert asked == []
    house.drain()


def test_a_job_without_evidence_has_no_ground_step_and_asks_no_ocr(house):
    job = sent(house, evidence=False, reviewWhen=None)
    house.drain()
    assert step_ids(house.database, job, "ground") == []
    assert house.text_reader.pictures == []


def test_the_chunks_of_a_job_are_grounded_beside_the_model_calls_of_later_chunks(house):
    job = sent(house, b"img0", b"img1", b"img2")
    first = step_ids(house.database, job)[0]
    for _ in range(2):  # stage and extract of the first chunk
        commit = worked_on(house.work, claimed(house.database, first))
        with house.database.write() as connection:
            [first] = commit(connection)
    assert step_row(house.database, first).kind == "ground"
    assert step_ids(house.database, job, "extract")[1:] == [], "the second chunk waits to be staged"
    commit = worked_on(house.work, claimed(house.database, first))
    with house.database.write() as connection:
        assert commit(connection) == []
    house.drain()
    assert job_of(house, job)["status"] == "succeeded"


def test_the_progress_of_a_job_counts_what_the_ocr_has_yet_to_read(house, monkeypatch):
    monkeypatch.setattr(ground, "TURN_SECONDS", -1.0)
    job = sent(house, b"img0", b"img1")
    assert job_of(house, job)["progress"] == 0
    commit = worked_on(house.work, claimed(house.database, step_ids(house.database, job)[0]))
    with house.database.write() as connection:
        commit(connection)
    assert job_of(house, job)["progress"] == pytest.approx(1 / 3, abs=0.001)
    [step] = grounds(house, job)
    shown = [job_of(house, job)["progress"]]
    for _ in range(2):
        run_step(house.work, step)
        shown.append(job_of(house, job)["progress"])
    assert shown == pytest.approx([2 / 3, 5 / 6, 1.0], abs=0.001)


def test_a_picture_that_the_ocr_fails_on_keeps_its_record_and_says_why(house):
    def script(data: bytes, _: int) -> Exception | None:
        return ModelFault("The OCR engine died twice while it read the picture.") if data == b"img1" else None

    house.work = replace(house.work, text_reader=FakeTextReader(script))
    job = sent(house)
    house.drain()
    good, bad = items(house, job)
    assert good["evidence"]["/saw"]["match"] == "exact"
    assert bad["result"] == {"saw": "img1"}
    assert (bad["evidence"], bad["unsupported"], bad["needsReview"]) == (None, [], True)
    assert bad["evidenceError"]["code"] == "ocr_failed"
    assert "died twice" in bad["evidenceError"]["message"]
    assert job_of(house, job)["status"] == "succeeded"


@pytest.mark.parametrize(
    "error",
    [Permanent("no OCR here"), ModelUnavailable("The OCR engine does not start", retry_after=60.0), RuntimeError("a fault")],
    ids=["never", "does not start", "a fault of ours"],
)
def test_where_the_ocr_never_works_the_records_stand_and_the_job_succeeds(house, error):
    house.work = replace(house.work, text_reader=FakeTextReader(lambda _data, _number: error))
    job = sent(house)
    for _ in range(4):
        house.drain()
        house.skip_waits()
    shown = job_of(house, job)
    assert (shown["status"], shown["counts"]["succeeded"], shown["counts"]["needsReview"]) == ("succeeded", 2, 2)
    assert [item["evidenceError"]["code"] for item in items(house, job)] == ["ocr_failed"] * 2
    [step] = step_ids(house.database, job, "ground")
    assert (step_row(house.database, step).state, step_row(house.database, step).tries) == ("dead", 2)
    assert shown["usage"]["credits"] == 12


def test_a_busy_ocr_hands_the_step_back_and_counts_nothing(house):
    def script(_data: bytes, number: int) -> Exception | None:
        return ModelUnavailable("The OCR engine is busy with other pictures.", retry_after=5.0) if number < 9 else None

    house.work = replace(house.work, text_reader=FakeTextReader(script))
    job = sent(house)
    for _ in range(9):
        house.drain()
        house.skip_waits()
    [step] = step_ids(house.database, job, "ground")
    assert (step_row(house.database, step).state, step_row(house.database, step).tries) == ("done", 0)
    assert job_of(house, job)["status"] == "succeeded"


def test_a_job_that_is_cancelled_or_late_ends_at_once_and_says_what_was_not_read(house):
    for end in ("cancel", "deadline"):
        job = sent(house)
        [step] = grounds(house, job)
        lease = claimed(house.database, step)
        commit = worked_on(house.work, lease)
        if end == "cancel":
            assert house.ask("POST", f"/api/v1/jobs/{job}/cancel").status_code == 200
        else:
            with house.database.write() as connection:
                closing.close_overdue(connection, job)
        with pytest.raises(LostLease), house.database.write() as connection:
            commit(connection)
        shown = items(house, job)
        assert [item["result"] for item in shown] == [{"saw": "img0"}, {"saw": "img1"}]
        assert [item["evidence"] for item in shown] == [None, None]
        assert [item["evidenceError"]["code"] for item in shown] == ["ended_early"] * 2
        assert job_of(house, job)["counts"]["needsReview"] == 2
        assert len(items(house, job, "?needsReview=true")) == 2
        house.skip_waits()
        house.drain()


def test_a_worker_that_was_overtaken_writes_nothing(house):
    job = sent(house)
    [step] = grounds(house, job)
    slow = claimed(house.database, step)
    late = worked_on(house.work, slow)
    run_lease(house.work, stolen(house.database, slow))
    before = items(house, job)
    assert before[0]["evidence"]["/saw"]["match"] == "exact"
    with suppress(LostLease), house.database.write() as connection:
        late(connection)
    assert items(house, job) == before


def test_a_step_that_makes_place_for_others_goes_on_where_it_was(house, monkeypatch):
    monkeypatch.setattr(ground, "TURN_SECONDS", -1.0)
    job = sent(house, b"img0", b"img1")
    [step] = grounds(house, job)
    for left in (1, 0):
        run_step(house.work, step)
        assert sum(item["evidence"] is None for item in items(house, job)) == left
    house.drain()
    assert house.text_reader.pictures == [b"img0", b"img1"]


def test_the_threads_that_wait_for_the_ocr_are_few(house):
    house.work = replace(house.work, ocr_places=OcrPlaces(0))
    job = sent(house)
    [step] = grounds(house, job)
    run_step(house.work, step)
    assert (step_row(house.database, step).state, step_row(house.database, step).tries) == ("ready", 0)
    assert house.text_reader.pictures == []
    house.work = replace(house.work, ocr_places=OcrPlaces(2))
    house.skip_waits()
    house.drain()
    assert job_of(house, job)["status"] == "succeeded"


def test_an_account_leaves_a_place_to_others():
    places = OcrPlaces(2)
    assert [places.take("a"), places.take("a"), places.take("b"), places.take("c")] == [True, False, True, False]
    places.give_back("a")
    assert places.take("c")


def test_the_more_steps_of_an_account_find_no_place_the_later_they_come_again():
    places = OcrPlaces(2)
    assert places.take("a")
    waits = []
    for _ in range(60):
        assert not places.take("a")
        waits.append(places.wait("a"))
    assert waits == sorted(waits)
    assert (waits[0], waits[-1], places.wait("b")) == (BUSY_SECONDS, MOST_BUSY_SECONDS, BUSY_SECONDS)
    places.give_back("a")
    assert places.take("a")
    assert places.wait("a") == BUSY_SECONDS


def test_a_step_that_kills_every_process_is_given_up_and_its_records_stand(house):
    class Alone:
        def run(self, _lease: object, *, seconds: float) -> None:
            raise Died(f"killed within {seconds:.0f} s")

    job = sent(house)
    [step] = grounds(house, job)
    house.work = replace(house.work, alone=Alone())
    set_steps(house.database, step, expiries=2)
    for _ in range(4):
        house.drain()
        house.skip_waits()
    assert step_row(house.database, step).state == "dead"
    assert job_of(house, job)["status"] == "succeeded"
    assert [item["evidenceError"]["code"] for item in items(house, job)] == ["ocr_failed"] * 2


def test_the_records_of_a_chunk_that_was_given_up_are_grounded(house):
    """Of a chunk whose extract step is given up, the images that were answered keep their records."""
    answered = []

    def script(call, _number):
        if any(picture.data == b"img1" for picture in call.pictures):
            raise RuntimeError("a fault of ours")
        answered.append(call)

    house.engine._script = script
    job = sent(house, b"img0", b"img1", imagesPerCall=1)
    for _ in range(4):
        house.drain()
        house.skip_waits()
    shown = items(house, job)
    assert [item["status"] for item in shown] == ["succeeded", "failed"]
    assert shown[0]["evidence"]["/saw"]["match"] == "exact"
    assert (shown[1]["evidence"], shown[1]["evidenceError"], shown[1]["needsReview"]) == (None, None, True)


def test_a_retry_finds_the_evidence_of_what_it_answers_and_keeps_that_of_before(house):
    tries = []

    def script(call, _number):
        if any(picture.data == b"img1" for picture in call.pictures) and len(tries) < 3:
            tries.append(call)
            raise RuntimeError("a fault of ours")

    house.engine._script = script
    job = sent(house, b"img0", b"img1", b"img2", imagesPerCall=1, keepInputsSeconds=600)
    for _ in range(4):
        house.drain()
        house.skip_waits()
    before = items(house, job)
    assert [item["evidence"] is not None for item in before] == [True, False, True]
    assert house.ask("POST", f"/api/v1/jobs/{job}/retry").status_code == 202
    house.drain()
    after = items(house, job)
    assert [item["evidence"]["/saw"]["text"] for item in after] == ["img0", "img1", "img2"]
    assert [after[0], after[2]] == [before[0], before[2]]
    house.expire_inputs()


def test_evidence_goes_when_the_results_expire(house):
    job = sent(house)
    house.drain()
    with house.database.read() as connection:
        kept = connection.scalar(select(schema.jobs_table.c.stored_bytes).where(schema.jobs_table.c.id == job))
    house.make_expired()
    house.supervisor.purge()
    with house.database.read() as connection:
        rows = connection.execute(select(schema.images_table.c.evidence).where(schema.images_table.c.job == job)).scalars()
        assert list(rows) == [None, None]
        assert connection.scalar(select(schema.jobs_table.c.stored_bytes).where(schema.jobs_table.c.id == job)) < kept
    assert [item["evidence"] for item in items(house, job)] == [None, None]
    assert job_of(house, job)["counts"]["needsReview"] == 0
