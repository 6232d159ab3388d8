"""What stands in the table, in each format."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.spreadsheet import _line
from cli.run.table import as_object, cells, columns_of, more_columns
from cli.run.types import Row
from cli.run.workbook import write_workbook
from cli.run.write import CsvSink, JsonlSink, csv_line, replaced

SCHEMA = {
    "type": "object",
    "properties": {
        "shop": {"type": "string"},
        "total": {"type": "object", "properties": {"amount": {"type": "number"}, "currency": {"type": "string"}}},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "status": {"type": "string"},
    },
    "$defs": {"line": {"type": "object", "properties": {"name": {"type": "string"}, "price": {"type": "number"}}}},
}
RECORD = {
    "shop": "=1+1",
    "total": {"amount": 5, "currency": "€"},
    "lines": [{"name": "tea", "price": 2}, {"name": "ü", "price": 3}],
    "status": "paid",
}


def done(result, name="a.png"):
    return Row(name, "done", "", "", result)


def written(sink, rows, explode=""):
    out = io.StringIO()
    made = sink(out, columns_of(SCHEMA, explode), explode)
    for row in rows:
        made.write(row)
    return out.getvalue()


def test_nested_fields_have_dotted_titles_and_arrays_are_json():
    header, row = csv.reader(io.StringIO(written(CsvSink, [done(RECORD)])))
    assert header == ["file", "shop", "total.amount", "total.currency", "lines", "result.status", "status", "error"]
    assert row == ["a.png", "'=1+1", "5", "€", json.dumps(RECORD["lines"], ensure_ascii=False), "paid", "succeeded", ""]


def test_each_element_of_an_exploded_array_has_a_row():
    header, *rows = csv.reader(io.StringIO(written(CsvSink, [done(RECORD), done({"lines": []}, "b.png")], "lines")))
    assert header[4:6] == ["lines.name", "lines.price"]
    assert [row[:1] + row[4:6] for row in rows] == [["a.png", "tea", "2"], ["a.png", "ü", "3"], ["b.png", "", ""]]


@pytest.mark.parametrize("explode", ["shop", "none", "total"])
def test_only_an_array_of_the_schema_can_be_exploded(explode):
    with pytest.raises(ValueError, match="Its arrays are: lines"):
        columns_of(SCHEMA, explode)


def test_a_failed_image_has_its_reason_and_no_values():
    [line] = cells(Row("a.png", "failed", "image_corrupt", "damaged", None), columns_of(SCHEMA))
    assert line == ["a.png", None, None, None, None, None, "failed", "damaged"]


def test_without_a_schema_the_answer_is_one_column():
    [line] = cells(done("all the text"), columns_of(None))
    assert line == ["a.png", "all the text", "succeeded", ""]


def test_fields_that_only_the_records_have_get_columns_too():
    columns = columns_of(SCHEMA)
    more = more_columns(columns, [done({**RECORD, "tip": 1, "total": {"amount": 5, "vat": 1}})])
    assert [column.title for column in more] == ["total.vat", "tip"]


def test_a_run_with_evidence_names_the_fields_that_do_not_stand_in_the_picture():
    found = {"evidence": {"/shop": {"match": "none"}}, "unsupported": ["/shop", "/lines/0/price"], "evidenceError": None}
    unread = {"evidence": None, "unsupported": [], "evidenceError": "ocr_failed"}
    record = {**RECORD, "unsupported": "mine"}
    rows = [done(record)._replace(evidence=found), done(RECORD, "b.png")._replace(evidence=unread), done(RECORD, "c.png")]
    columns = columns_of(SCHEMA, evidence=True)
    columns += more_columns(columns, rows)
    assert [columns[0].title, columns[-1].title] == ["unsupported", "result.unsupported"]
    assert [line[1] for row in rows for line in cells(row, columns)] == ["shop; lines/0/price", "(ocr_failed)", None]
    [shown] = as_object(rows[0], columns)
    assert {name: shown[name] for name in found} == found
    assert shown["result.unsupported"] == "mine"


def test_jsonl_keeps_types_and_nesting():
    record = json.loads(written(JsonlSink, [done(RECORD)]))
    assert record["total"] == {"amount": 5, "currency": "€"}
    assert (record["result.status"], record["status"], record["error"]) == ("paid", "succeeded", None)


@given(st.lists(st.one_of(st.none(), st.integers(), st.text(), st.sampled_from(["=1", "-1", " @x", "\tx", 'a"b'])), min_size=1))
def test_cells_are_guarded_as_in_the_service_s_own_csv(values):
    assert csv_line(values) == _line(values)


def test_a_workbook_keeps_zeros_long_numbers_and_types(tmp_path):
    schema = {"type": "object", "properties": {name: {} for name in "abcdef"} | {"day": {"type": "string", "format": "date"}}}
    columns = columns_of(schema)
    lines = [
        ["ü.png", "007", "12345678901234567890", 12345678901234567890, 1.5, True, "=1+1", "2026-02-03", "succeeded", ""],
        ["b.png", None, "x" * 40_000, None, None, None, "https://a.example", "yesterday", "failed", "broken \x01"],
    ]
    assert write_workbook(tmp_path / "out.xlsx", lines, columns) == 2
    with zipfile.ZipFile(tmp_path / "out.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    texts = re.findall(r"<t[^>]*>([^<]*)</t>", sheet)
    assert texts[:5] == ["file", "a", "b", "c", "d"]
    assert {"007", "12345678901234567890", "=1+1", "yesterday", "https://a.example"} <= set(texts)
    assert max(map(len, texts)) == 32_767
    assert "<v>1.5</v>" in sheet
    assert re.search(r'<c r="H2" s="\d+"><v>46056</v>', sheet), "a date is a date"
    assert 't="b"' in sheet
    assert "<f>" not in sheet
    assert 'ySplit="1"' in sheet
    assert "<cols>" in sheet


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("old")

    def fail():
        with replaced(out, 0o644) as new:
            new.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert out.read_text() == "old"
    with replaced(out, 0o644) as new:
        new.write_text("whole")
    assert out.read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
