"""The jobs resource: making, listing, what became of each image, and the results in three formats."""

from __future__ import annotations

import csv
import io
import json
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.job_items import PAGE, Changed
from api.spreadsheet import _line
from pipeline.errors import Transient
from pipeline.outbound.webhook import WebhookResponse
from pipeline.types import Answer, Finish
from storage import schema
from tests.fakes.engine import FakeEngine
from tests.harness import CREDITS, b64, running
from tests.rows import eventually

JOBS = "/api/v1/jobs"
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="2") as made:
        yield made


def body(house, count=3, **fields):
    return {"inputMethod": "url", "images": house.urls(count), "prompt": "p", "granularity": "perImage", **fields}


def make(house, count=3, **fields):
    answer = house.ask("POST", JOBS, json=body(house, count, **fields))
    assert answer.status_code == 202, answer.json
    return answer.json["id"]


def done(house, count=3, **fields):
    job = make(house, count, **fields)
    house.drain()
    return job


def walk(house, path, name, **query):
    """Every entry, page by page; how many pages."""
    entries, cursor, pages = [], "", 0
    while cursor is not None:
        page = house.ask("GET", path, query_string={**query, "cursor": cursor}).json
        entries, cursor, pages = entries + page[name], page["nextCursor"], pages + 1
    return entries, pages


# Making


def test_a_job_is_a_202_whatever_the_caller_prefers(house):
    for headers in ({}, {"Prefer": "wait=60"}, ASYNC):
        answer = house.ask("POST", JOBS, json=body(house), headers=headers)
        assert answer.status_code == 202
        assert answer.headers["Location"] == answer.json["links"]["self"] == f"{JOBS}/{answer.json['id']}"
        assert answer.json["status"] == "queued"


def test_the_job_comes_to_what_the_compatible_endpoint_would_answer(house):
    job = done(house)
    through_job = house.get(f"{JOBS}/{job}/results").json
    sent = house.post(body(house), headers=ASYNC).json["id"]
    house.drain()
    assert through_job == house.get(f"{JOBS}/{sent}/results").json
    assert through_job["creditUsage"] == 13


@pytest.mark.parametrize("path", [JOBS, "/api/v1/extract-image"])
def test_metadata_and_custom_ids_are_echoed(house, path):
    metadata = {"order": 7, "nested": {"a": [None, "ü"]}}
    sent = body(house, metadata=metadata, customIds=["a", "b", "c"], images=[*house.urls(2), "https://pictures.example/none"])
    job = house.ask("POST", path, json=sent, headers=ASYNC).json["id"]
    house.drain()
    assert house.get(f"{JOBS}/{job}").json["metadata"] == metadata
    assert [item["customId"] for item in house.get(f"{JOBS}/{job}/items").json["items"]] == ["a", "b", "c"]
    [error] = house.get(f"{JOBS}/{job}/results").json["errors"]
    assert (error["index"], error["customId"]) == (2, "c")


def test_an_error_of_a_job_without_custom_ids_has_the_three_members(house):
    job = done(house, images=["https://pictures.example/none", *house.urls(1)])
    [error] = house.get(f"{JOBS}/{job}/results").json["errors"]
    assert set(error) == {"index", "code", "message"}


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"customIds": ["a"]}, 400, "invalid_custom_ids"),
        ({"customIds": "abc"}, 400, "invalid_custom_ids"),
        ({"customIds": ["a", "", "c"]}, 400, "invalid_custom_ids"),
        ({"customIds": ["a", "b", "c" * 257]}, 400, "invalid_custom_ids"),
        ({"customIds": ["a", "b", "\x00"]}, 400, "invalid_custom_ids"),
        ({"customIds": ["a", "b", 3]}, 400, "invalid_custom_ids"),
        ({"onError": "stop"}, 400, "invalid_on_error"),
        ({"onError": ["fail"]}, 400, "invalid_on_error"),
        ({"maxCredits": -1}, 400, "invalid_max_credits"),
        ({"maxCredits": True}, 400, "invalid_max_credits"),
        ({"maxCredits": "many"}, 400, "invalid_max_credits"),
        ({"maxCredits": 12}, 402, "max_credits_too_low"),
        ({"maxCredits": "12"}, 402, "max_credits_too_low"),
        ({"metadata": []}, 400, "invalid_metadata"),
        ({"metadata": "x"}, 400, "invalid_metadata"),
        ({"metadata": {"a": "x" * 4096}}, 400, "invalid_metadata"),
        ({"metadata": {"a": json.loads("[" * 20 + "]" * 20)}}, 400, "invalid_metadata"),
    ],
)
@pytest.mark.parametrize("path", [JOBS, "/api/v1/extract-image"])
def test_an_option_that_can_not_be_is_refused_and_costs_nothing(house, path, fields, status, code):
    refused = house.ask("POST", path, json=body(house, **fields))
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (status, code)
    assert house.count_rows("jobs") == 0
    assert house.balance() == (CREDITS, 0, 0)


def test_max_credits_that_are_just_enough_are_taken(house):
    assert (
        house.ask("POST", JOBS, json=body(house, maxCredits=13, customIds=None, metadata=None, onError=None)).status_code == 202
    )


def test_all_or_nothing_fails_with_one_bad_image_costs_nothing_and_shows_no_result(house):
    job = done(house, onError="fail", images=[*house.urls(2), "https://pictures.example/none"])
    shown = house.get(f"{JOBS}/{job}").json
    assert (shown["status"], shown["error"]["code"], shown["usage"]["credits"]) == ("failed", "fetch_failed", 0)
    assert house.balance() == (CREDITS, 0, 0)
    assert house.get(f"{JOBS}/{job}/results").json["results"] == ""
    items = house.get(f"{JOBS}/{job}/items").json["items"]
    assert [item["status"] for item in items] == ["succeeded", "succeeded", "failed"]
    assert [item["result"] for item in items] == [None] * 3
    lines = house.get(f"{JOBS}/{job}/results?format=jsonl").text
    assert "img0" not in lines


def test_all_or_nothing_on_the_compatible_endpoint_is_the_error_of_the_bad_image(make_harness):
    house = make_harness()
    refused = house.post(body(house, onError="fail", images=[*house.urls(2), "https://pictures.example/none"]))
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (400, "fetch_failed")
    assert "images[2]" in refused.json["error"]


def test_all_or_nothing_costs_as_ever_where_all_was_had(house):
    done(house, onError="fail")
    assert house.balance() == (CREDITS - 13, 0, 13)


# Lists


def test_jobs_are_listed_newest_first_page_by_page(house):
    made = [make(house, 1) for _ in range(5)]
    listed, pages = walk(house, JOBS, "jobs", limit=2)
    assert sorted(job["id"] for job in listed) == sorted(made)
    assert [job["createdAt"] for job in listed] == sorted((job["createdAt"] for job in listed), reverse=True)
    assert pages == 3
    assert listed[0] == house.get(f"{JOBS}/{listed[0]['id']}").json


def test_jobs_of_the_same_millisecond_are_each_listed_once(house):
    made = {make(house, 1) for _ in range(7)}
    house._set(schema.jobs_table, created_at=1_700_000_000_000)
    listed, _ = walk(house, JOBS, "jobs", limit=2)
    assert len(listed) == 7
    assert {job["id"] for job in listed} == made


def test_jobs_are_listed_by_status(house):
    ended = done(house, 1)
    waiting = make(house, 1)
    assert [job["id"] for job in house.get(f"{JOBS}?status=succeeded").json["jobs"]] == [ended]
    assert [job["id"] for job in house.get(f"{JOBS}?status=queued").json["jobs"]] == [waiting]
    assert house.get(f"{JOBS}?status=failed").json == {"jobs": [], "nextCursor": None}


def test_only_the_account_s_own_jobs_are_listed(house):
    make(house, 1)
    _, other = house.new_key()
    assert house.ask("GET", JOBS, key=other).json == {"jobs": [], "nextCursor": None}
    assert house.ask("GET", JOBS, key="none").status_code == 401


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_limit"),
        ("limit=1001", "invalid_limit"),
        ("limit=-1", "invalid_limit"),
        ("limit=²", "invalid_limit"),
        ("limit=" + "9" * 5000, "invalid_limit"),
        ("status=done", "invalid_status"),
        ("cursor=x", "invalid_cursor"),
        ("cursor=%00", "invalid_cursor"),
        ("cursor=ü", "invalid_cursor"),
        ("cursor=" + "W" * 5000, "invalid_cursor"),
        ("cursor=WyJhIl0", "invalid_cursor"),  # ["a"]
        ("cursor=Wy0xXQ", "invalid_cursor"),  # [-1]
        ("cursor=W3RydWVd", "invalid_cursor"),  # [true]
        ("cursor=WzFd%0A", "invalid_cursor"),
        ("cursor=WzFlOTldCg", "invalid_cursor"),
        ("cursor=WzEsIlx1ZDgwMCJd", "invalid_cursor"),  # [1,"\ud800"]
    ],
)
def test_a_query_that_makes_no_sense_is_refused(house, query, code):
    job = make(house, 1)
    for path in (JOBS, f"{JOBS}/{job}/items"):
        refused = house.get(f"{path}?{query}")
        assert (refused.status_code, refused.json["code"]) == (400, code)


def test_items_say_what_became_of_each_image_page_by_page(house):
    images = [*house.urls(4), "https://pictures.example/none"]
    job = house.ask("POST", JOBS, json=body(house, images=images)).json["id"]
    before, _ = walk(house, f"{JOBS}/{job}/items", "items", limit=2)
    assert [item["status"] for item in before] == ["queued"] * 5
    house.drain()
    after, pages = walk(house, f"{JOBS}/{job}/items", "items", limit=2)
    assert pages == 3
    assert after[1] == {
        "index": 1,
        "customId": None,
        "source": images[1],
        "status": "succeeded",
        "code": None,
        "message": None,
        "attempts": 1,
        "note": None,
        "result": "img1",
    }
    assert (after[4]["status"], after[4]["code"], after[4]["result"]) == ("failed", "fetch_failed", None)
    assert house.get(f"{JOBS}/{job}/items?status=failed").json == {"items": [after[4]], "nextCursor": None}


@pytest.fixture
def half_done(tmp_path):
    """A service whose model answers the first call, about two images, and keeps the second one waiting until the test ends."""
    asked, go_on = threading.Event(), threading.Event()

    def script(_call, number):
        if number > 1:
            asked.set()
            go_on.wait()

    with running(
        tmp_path, workers_count=1, engine=FakeEngine(script=script), IMAGES_PER_CALL="2", MODEL_CONCURRENCY="1"
    ) as house:
        try:
            yield house, asked
        finally:
            go_on.set()


def results_so_far(house, job):
    return [item["result"] for item in house.get(f"{JOBS}/{job}/items").json["items"]]


def test_items_of_a_running_job_have_their_results_as_they_come(half_done):
    house, asked = half_done
    job = make(house, 4)
    asked.wait()
    assert results_so_far(house, job) == ["img0", "img1", None, None]


def test_results_of_a_running_job_that_may_still_cost_nothing_are_not_shown(half_done):
    house, asked = half_done
    job = make(house, 4, onError="fail")
    asked.wait()
    assert results_so_far(house, job) == [None] * 4
    assert [item["status"] for item in house.get(f"{JOBS}/{job}/items").json["items"][:2]] == ["succeeded"] * 2


def test_results_are_not_shown_while_images_are_not_received_because_all_together_may_be_too_large(half_done):
    house, asked = half_done
    job = make(house, 4)
    asked.wait()
    with house.database.write() as connection:
        images = schema.images_table
        connection.execute(images.update().where(images.c.index == 3).values(state="waiting"))
    assert results_so_far(house, job) == [None] * 4


def test_items_of_an_expired_job_have_no_source_and_no_result(house):
    job = done(house, 1)
    house.make_expired()
    for _ in range(2):
        [item] = house.get(f"{JOBS}/{job}/items").json["items"]
        assert (item["status"], item["source"], item["result"]) == ("succeeded", None, None)
        house.supervisor.purge()


# Results


def test_jsonl_is_one_item_a_line_in_image_order(house):
    job = done(house, 250)
    answer = house.get(f"{JOBS}/{job}/results?format=jsonl")
    assert answer.mimetype == "application/jsonl"
    lines = answer.text.splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(250))
    assert json.loads(lines[249])["result"] == "img249"
    assert answer.text.endswith("\n")


@pytest.mark.parametrize("wanted", ["jsonl", "csv"])
def test_records_are_read_and_sent_a_page_at_a_time(house, wanted):
    job = done(house, 250)
    pieces = list(house.get(f"{JOBS}/{job}/results?format={wanted}").iter_encoded())
    assert max(piece.count(b"img") for piece in pieces) <= PAGE
    assert len(pieces) >= 250 / PAGE


@given(cells=st.lists(st.text(), min_size=1))
def test_any_cells_are_read_back_by_the_standard_library_as_they_were_but_for_what_would_be_a_formula(cells):
    [row] = csv.reader(io.StringIO("\ufeff" + _line(["a", *cells]), newline=""))
    assert len(row) == len(cells) + 1
    for sent, read in zip(cells, row[1:], strict=True):
        assert read.removeprefix("'") == sent.replace("\x00", "").removeprefix("'")
        assert not read.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def records(*values):
    """An engine that gives these records, one for each picture in turn."""
    left = iter(values)

    def script(call, _number):
        said = [{"index": picture.number, "result": next(left)} for picture in call.pictures]
        return Answer(finish=Finish.COMPLETE, text=json.dumps(said))

    return FakeEngine(script=script)


def table(house, job):
    answer = house.get(f"{JOBS}/{job}/results?format=csv")
    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.data.startswith(b"\xef\xbb\xbf")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{job}.csv"'
    return list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"), newline="")))


def test_csv_has_a_column_for_each_member_of_the_records(make_harness):
    engine = records(
        {"shop": 'Müller, "Söhne"\nMünchen', "total": -12.5, "lines": [{"n": 1}], "paid": True},
        {"shop": "Ünï", "status": "open", "total": None},
        {"new": "x"},
    )
    house = make_harness(engine=engine, workers_count=0)
    job = done(house, 3, jsonMode=True, customIds=["=a", "b", "c"])
    rows = table(house, job)
    assert list(rows[0]) == [
        "index", "customId", "source", "status", "code", "message", "shop", "total", "lines", "paid", "result.status", "new",
    ]  # fmt: skip
    assert rows[0]["shop"] == 'Müller, "Söhne"\nMünchen'
    assert (rows[0]["total"], rows[0]["lines"], rows[0]["paid"], rows[0]["new"]) == ("-12.5", '[{"n":1}]', "true", "")
    assert (rows[1]["total"], rows[1]["result.status"], rows[1]["status"]) == ("", "open", "succeeded")
    assert [row["customId"] for row in rows] == ["'=a", "b", "c"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_cell_begins_a_formula(make_harness, start):
    house = make_harness(engine=records({f"{start}key": f"{start}1+1"}), workers_count=0)
    answer = house.get(f"{JOBS}/{done(house, 1, jsonMode=True)}/results?format=csv")
    header, row = csv.reader(io.StringIO(answer.data.decode("utf-8-sig"), newline=""))
    assert header[-1] == f"'{start}key"
    assert row[-1] == f"'{start}1+1"


def test_csv_of_texts_has_them_in_one_column(house):
    assert [row["result"] for row in table(house, done(house, 3))] == ["img0", "img1", "img2"]


def test_records_with_thousands_of_members_keep_a_thousand_columns_and_the_rest_together(make_harness):
    house = make_harness(engine=records({f"k{n}": n for n in range(1500)}), workers_count=0)
    [row] = table(house, done(house, 1, jsonMode=True))
    assert row["k999"] == "999"
    assert json.loads(row["more"]) == {f"k{n}": n for n in range(1000, 1500)}


def test_merged_answers_have_no_lines(house):
    job = done(house, granularity="merged")
    refused = house.get(f"{JOBS}/{job}/results?format=jsonl")
    assert (refused.status_code, refused.json["code"]) == (409, "no_records")


def merged(document: str) -> FakeEngine:
    """An engine that answers with this text."""
    return FakeEngine(script=lambda _call, _number: Answer(finish=Finish.COMPLETE, text=document))


@pytest.mark.parametrize(
    ("document", "rows"),
    [
        (
            '{"shop":"Tea","total":12.50,"at":{"city":"Kyoto","zip":"604"}}',
            [["shop", "total", "at.city", "at.zip"], ["Tea", "12.50", "Kyoto", "604"]],
        ),
        ('[{"a":1},{"b":[2,3]},"c"]', [["a", "b", "result"], ["1", "", ""], ["", "[2,3]", ""], ["", "", "c"]]),
        ("[]", [["result"]]),
        ("7.10", [["result"], ["7.10"]]),
        ('{"=a":"=b","e":{}}', [["'=a", "e"], ["'=b", "{}"]]),
    ],
)
def test_csv_of_a_merged_document_has_a_row_for_it_or_for_each_of_its_elements(make_harness, document, rows):
    house = make_harness(engine=merged(document), workers_count=0)
    answer = house.get(f"{JOBS}/{done(house, granularity='merged', jsonMode=True)}/results?format=csv")
    assert answer.data.startswith(b"\xef\xbb\xbf")
    assert list(csv.reader(io.StringIO(answer.data.decode("utf-8-sig"), newline=""))) == rows


def test_csv_of_a_merged_text_is_one_column(make_harness):
    house = make_harness(engine=merged('{"no": "table"}'), workers_count=0)
    assert table(house, done(house, granularity="merged")) == [{"result": '{"no": "table"}'}]


def test_csv_of_a_merged_document_with_thousands_of_members_keeps_a_thousand_columns(make_harness):
    house = make_harness(engine=merged(json.dumps({f"k{n}": n for n in range(1500)})), workers_count=0)
    [row] = table(house, done(house, granularity="merged", jsonMode=True))
    assert row["k999"] == "999"
    assert json.loads(row["more"]) == {f"k{n}": n for n in range(1000, 1500)}


def test_numbers_keep_their_digits_in_every_form_of_the_results(make_harness):
    said = '[{"index":1,"result":{"total":12.50,"tax":0.40,"count":3}}]'
    house = make_harness(engine=merged(said), workers_count=0)
    job = done(house, 1, jsonMode=True)
    record = '{"total":12.50,"tax":0.40,"count":3}'
    assert house.get(f"{JOBS}/{job}/results").json["results"] == f'[{{"index":0,"result":{record}}}]'
    assert f'"result":{record}' in house.get(f"{JOBS}/{job}/results?format=jsonl").text
    assert f'"result":{record}' in house.get(f"{JOBS}/{job}/items").text
    assert [row["total"] for row in table(house, job)] == ["12.50"]


def test_the_results_in_a_webhook_keep_the_digits_of_numbers(make_harness):
    house = make_harness(engine=merged('{"total":12.50}'), workers_count=0)
    done(house, granularity="merged", jsonMode=True, webhookUrl="https://receiver.example/hook")
    [(_, _, sent)] = house.deliver.calls
    assert json.loads(sent)["data"]["results"] == '{"total":12.50}'


@pytest.mark.parametrize("wanted", ["json", "jsonl", "csv"])
def test_results_are_there_from_the_end_to_their_expiry(house, wanted):
    job = make(house)
    refused = house.get(f"{JOBS}/{job}/results?format={wanted}")
    assert (refused.status_code, refused.json["code"]) == (409, "not_finished")
    house.drain()
    assert house.get(f"{JOBS}/{job}/results?format={wanted}").status_code == 200
    house.make_expired()
    gone = house.get(f"{JOBS}/{job}/results?format={wanted}")
    assert (gone.status_code, gone.json["code"]) == (410, "results_expired")


def test_another_format_is_refused(house):
    refused = house.get(f"{JOBS}/{done(house)}/results?format=xml")
    assert (refused.status_code, refused.json["code"]) == (400, "invalid_format")


def test_a_stream_breaks_off_where_the_job_changes_under_it(house):
    job = done(house, 250)
    pieces = house.get(f"{JOBS}/{job}/results?format=jsonl").iter_encoded()
    next(pieces)
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204
    with pytest.raises(Changed):
        list(pieces)


# Deleting


def test_a_deleted_job_is_gone_and_what_it_cost_is_known(house):
    job = done(house)
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204
    for method, path in [
        ("GET", ""),
        ("GET", "/items"),
        ("GET", "/results"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
    ]:
        assert house.ask(method, f"{JOBS}/{job}{path}").status_code == 404
    assert house.get(JOBS).json["jobs"] == []
    assert [house.count_rows(name) for name in ("jobs", "images", "chunks", "steps")] == [0, 0, 0, 0]
    assert house.ledger(job) == [("reserve", 13), ("charge", 13), ("release", 0)]
    assert house.balance() == (CREDITS - 13, 0, 13)


def test_a_live_job_is_cancelled_before_it_is_deleted(house):
    job = house.post({"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p"}, headers=ASYNC).json["id"]
    assert house.scratch.objects
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204
    assert house.scratch.objects == {}
    assert house.ledger(job) == [("reserve", 11), ("charge", 0), ("release", 11)]
    house.drain()
    assert house.engine.calls == []


def test_the_stored_bodies_of_its_webhooks_go_with_it_and_none_is_sent_any_more(house):
    house.deliver.script = lambda _number: WebhookResponse(status=500)
    job = done(house, webhookUrl="https://receiver.example/hook")
    assert len(house.deliver.calls) == 1
    house.ask("DELETE", f"{JOBS}/{job}")
    house.skip_waits()
    house.drain()
    assert len(house.deliver.calls) == 1
    with house.database.read() as connection:
        row = connection.execute(schema.deliveries_table.select()).one()
    assert (row.job, row.body, row.state, len(row.attempts)) == (job, None, "dead", 1)


def test_its_idempotency_key_is_free_again(house):
    key = {"Idempotency-Key": "k"}
    first = house.ask("POST", JOBS, json=body(house), headers=key).json["id"]
    house.ask("DELETE", f"{JOBS}/{first}")
    second = house.ask("POST", JOBS, json=body(house), headers=key)
    assert second.status_code == 202
    assert second.json["id"] != first


def test_scratch_that_is_away_leaves_the_job_to_be_deleted_again(house):
    job = house.post({"inputMethod": "base64", "images": [b64(b"img0")], "prompt": "p"}, headers=ASYNC).json["id"]
    whole = house.scratch.delete
    house.scratch.delete = lambda _keys: (_ for _ in ()).throw(Transient("away"))
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 503
    house.scratch.delete = whole
    assert house.get(f"{JOBS}/{job}").json["status"] == "cancelled"
    assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204


def test_somebody_else_s_job_can_not_be_deleted_or_retried(house):
    job = done(house)
    _, other = house.new_key()
    assert house.ask("DELETE", f"{JOBS}/{job}", key=other).status_code == 404
    assert house.ask("POST", f"{JOBS}/{job}/retry", key=other).status_code == 404
    assert house.get(f"{JOBS}/{job}").status_code == 200


def test_a_step_at_work_on_a_deleted_job_changes_nothing(tmp_path):
    asked, answer = threading.Event(), threading.Event()

    def slow(*_):
        asked.set()
        answer.wait()

    with running(tmp_path, workers_count=1, engine=FakeEngine(script=slow)) as house:
        job = make(house, 1)
        asked.wait()
        assert house.ask("DELETE", f"{JOBS}/{job}").status_code == 204
        answer.set()
        eventually(lambda: not house.scratch.objects)
        assert house.count_rows("images") == 0
        assert house.balance() == (CREDITS, 0, 0)


def test_no_id_in_an_address_reaches_the_database_with_a_nul(house):
    rules = [rule for rule in house.app.url_map.iter_rules() if rule.arguments]
    assert rules
    for rule in rules:
        method = next(iter(rule.methods - {"HEAD", "OPTIONS"}))
        found, values = house.app.url_map.bind("x").match(re.sub(r"<\w+>", "a\0b", rule.rule), method, return_rule=True)
        assert (found.rule, set(values.values())) == (rule.rule, {"a\ufffdb"})
