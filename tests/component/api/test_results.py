"""The results of a job in each format."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.job_items import PAGE, Changed
from api.spreadsheet import _line
from pipeline.types import Answer, Finish
from tests.component.api.jobs import JOBS, done, make
from tests.fakes.engine import FakeEngine
from tests.harness import running


@pytest.fixture
def house(tmp_path):
    with running(tmp_path, workers_count=0, IMAGES_PER_CALL="2") as made:
        yield made


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
