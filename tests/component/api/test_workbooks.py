"""Results as a workbook: numbers are numbers, and no text becomes a formula."""

from __future__ import annotations

import io
import re
import zipfile
from decimal import Decimal

import pytest

from api.spreadsheet import merged_rows
from api.workbook import workbook
from tests.harness import b64

TEXTS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "{=1}", "https://a.example/", "007", "a\x00b\x0b", "<b>&"]


def sheet_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        assert book.testzip() is None
        return book.read("xl/worksheets/sheet1.xml").decode()


def test_texts_stay_texts_and_no_cell_has_a_formula_or_a_link():
    sheet = sheet_of(b"".join(workbook(["=title"], [[text] for text in TEXTS])))
    assert "<f>" not in sheet
    assert "hyperlink" not in sheet
    assert sheet.count('t="inlineStr"') == len(TEXTS) + 1
    assert "=1+1" in sheet


def test_numbers_are_numbers_if_their_digits_are_kept():
    row = [1, 12.5, Decimal("12.50"), True, None, 12345678901234567, Decimal("0.12345678901234567"), [1, 2]]
    sheet = sheet_of(b"".join(workbook(["n"], [row])))
    assert re.findall(r"<v>([^<]*)</v>", sheet) == ["1", "12.5", "12.5", "1"]
    assert "12345678901234567" in sheet


@pytest.mark.parametrize("granularity", ["perImage", "merged"])
def test_a_job_s_results_are_a_workbook(make_harness, granularity):
    house = make_harness(workers_count=0)
    body = {"inputMethod": "base64", "images": [b64(b"img0"), b64(b"img1")], "prompt": "p", "granularity": granularity}
    job = house.ask("POST", "/api/v1/jobs", json=body).json["id"]
    house.drain()
    answer = house.get(f"/api/v1/jobs/{job}/results?format=xlsx")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{job}.xlsx"'
    assert sheet_of(answer.data).count("<row") == (3 if granularity == "perImage" else 2)


def test_a_merged_array_has_a_row_for_each_element():
    assert list(merged_rows('[{"a": 1}, {"a": 2, "b": {"c": 3}}]', is_json=True)) == [["a", "b.c"], [1, None], [2, 3]]
