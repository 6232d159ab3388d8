"""Of several places the right one is told, with a box around the value itself."""

import copy

import pytest

from pipeline.evidence.ground import ground
from pipeline.evidence.types import Code, Line, Match, Reading
from tests.unit.pipeline.evidence.lines import CHARACTER, HEIGHT, SIZE, line, look


def near(box, left, top, right, bottom, slack=6):
    """Whether a box is the given one in pixels, but for `slack`."""
    return all(abs(one * 1000 - other) <= slack for one, other in zip(box, (left, top, right, bottom), strict=True))


def test_the_box_is_around_the_value_and_not_its_whole_line():
    box = look({"total": 12.5}, "Total: 12,50 EUR").places["/total"].boxes[0]
    assert near(box, 100 + 7 * CHARACTER, 100, 100 + 12 * CHARACTER, 100 + HEIGHT)


def test_a_value_over_two_lines_has_a_box_for_each():
    place = look({"address": "4 Mill Lane, Ashcombe"}, "4 Mill Lane", "Ashcombe").places["/address"]
    assert (place.match, place.text) == (Match.EQUIVALENT, "4 Mill Lane Ashcombe")
    assert [
        near(box, 100, top, 100 + width, top + HEIGHT) for box, top, width in zip(place.boxes, (100, 130), (110, 80), strict=True)
    ]


def test_a_word_that_is_divided_at_the_end_of_a_line_is_found():
    place = look({"text": "Replaceable rubber feet"}, "Replace-", "able rubber feet").places["/text"]
    assert (place.match, len(place.boxes)) == (Match.EQUIVALENT, 2)


def test_a_value_over_two_cells_is_found():
    value = "Ada Augusta Maria King of Lovelace"
    place = look({"name": value}, "Ada Augusta Maria King | of Lovelace", "Born in 1815 in London | x").places["/name"]
    assert (place.text, len(place.boxes)) == (value, 2)


@pytest.mark.parametrize(
    "rows",
    [("Netto | 50,00", "Summe | 50,00"), ("Netto | Summe", "50,00 | 50,00")],
)
def test_of_equal_values_the_one_beside_its_label_is_told(rows):
    evidence = look({"total": 50.0, "net": 50.0}, *rows)
    total, net = evidence.places["/total"].boxes[0], evidence.places["/net"].boxes[0]
    assert (total[1], total[0]) > (net[1], net[0])


def test_a_title_of_the_schema_is_a_label():
    schema = {"type": "object", "properties": {"b": {"title": "Zweite Zahl"}, "a": {"title": "Erste Zahl"}}}
    evidence = look({"b": 5.5, "a": 5.5}, "Erste Zahl | 5,5", "Zweite Zahl | 5,5", schema=schema)
    assert evidence.places["/a"].boxes[0][1] < evidence.places["/b"].boxes[0][1]


def test_of_equal_values_the_one_in_the_row_of_its_siblings_is_told():
    record = {"items": [{"name": "Tea", "price": 3.5}, {"name": "Bun", "price": 4.0}, {"name": "Pie", "price": 3.5}]}
    evidence = look(record, "Tea | 3.50", "Bun | 4.00", "Pie | 3.50")
    rows = [round((evidence.places[f"/items/{at}/price"].boxes[0][1] * 1000 - 100) / 30) for at in range(3)]
    assert rows == [0, 1, 2]


def test_a_heading_that_is_written_as_the_record_has_it_beats_a_footer_that_is_written_otherwise():
    rows = [
        "Lumen & Loft",
        "Lamps for quiet rooms",
        *[f"Lamp {at} of brass" for at in range(30)],
        "Phone 0000 4471 200 | lumen-loft",
    ]
    record = {"sender": "Lumen & Loft", "phone": "0000 4471 200"}
    place = look(record, *rows).places["/sender"]
    assert (place.match, place.text) == (Match.EXACT, "Lumen & Loft")


def test_a_place_beside_the_label_beats_one_that_is_written_as_the_record_has_it():
    place = look({"sender": "Lumen & Loft"}, "We are Lumen & Loft", "Lamps", "Sender: LUMEN & LOFT").places["/sender"]
    assert (place.match, place.text) == (Match.EQUIVALENT, "LUMEN & LOFT")


def test_the_row_of_the_siblings_beats_a_place_that_is_written_as_the_record_has_it():
    record = {"items": [{"name": "Tea", "price": 3.5}, {"name": "Bun", "price": 4.0}]}
    evidence = look(record, "Tea and more", "Cakes", "TEA | 3.50", "Bun | 4.00")
    assert evidence.places["/items/0/name"].text == "TEA"


def test_the_value_of_a_barcode_has_the_box_of_the_code():
    code = Code(text="4006381333931", box=((10, 10), (110, 10), (110, 60), (10, 60)))
    place = look({"ean": "4006381333931"}, "words", codes=(code,)).places["/ean"]
    assert (place.match, place.boxes) == (Match.EXACT, ((0.01, 0.01, 0.11, 0.06),))


def test_the_confidence_is_that_of_the_least_sure_line():
    reading = Reading(size=SIZE, lines=(line("4 Mill Lane", y=100, confidence=0.95), line("Ashcombe", y=130, confidence=0.7)))
    assert ground("4 Mill Lane Ashcombe", reading).places[""].confidence == 0.7


def test_values_that_are_exchanged_between_two_labels_are_not_supported():
    rows = ("Netto | 50,00", "MwSt | 9,50", "Summe | 59,50")
    assert look({"net": 50.0, "tax": 9.5, "total": 59.5}, *rows).unsupported == ()
    evidence = look({"net": 9.5, "tax": 50.0, "total": 59.5}, *rows)
    assert evidence.unsupported == ("/net", "/tax")
    assert evidence.places["/net"].text == "9,50"


def test_values_that_are_exchanged_between_two_columns_are_not_supported():
    rows = ("Artikel | Menge | Preis", "Tea | 12 | 3.50", "Bun | 40 | 4.00", "Pie | 25 | 7.20")
    record = {
        "items": [{"item": n, "quantity": q, "price": p} for n, q, p in (("Tea", 12, 3.5), ("Bun", 40, 4.0), ("Pie", 25, 7.2))]
    }
    assert look(record, *rows).unsupported == ()
    record["items"][1]["quantity"], record["items"][1]["price"] = 4.0, 40
    assert look(record, *rows).unsupported == ("/items/1/quantity", "/items/1/price")


def test_a_short_number_in_another_row_is_no_evidence():
    rows = ("2 | Tea | 3.50", "5 | Bun | 4.00", "Tisch 9")
    record = {"items": [{"count": 2, "name": "Tea", "price": 3.5}, {"count": 9, "name": "Bun", "price": 4.0}]}
    assert look(record, *rows).unsupported == ("/items/1/count",)


def test_booleans_null_and_words_of_an_enum_are_not_verbatim_and_no_fault():
    schema = {"type": "object", "properties": {"kind": {"enum": ["private_person", "company"]}}}
    evidence = look({"paid": True, "note": None, "kind": "private_person", "tags": [], "empty": ""}, "words", schema=schema)
    assert {place.match for place in evidence.places.values()} == {Match.NOT_VERBATIM}
    assert evidence.unsupported == ()


def test_a_word_of_an_enum_that_stands_in_the_picture_is_found():
    schema = {"type": "object", "properties": {"state": {"enum": ["PAID", "OPEN"]}}}
    assert look({"state": "PAID"}, "Status: PAID", schema=schema).places["/state"].match is Match.EXACT


def test_a_summary_is_not_verbatim():
    assert look({"summary": "A till receipt of a food hall"}, "MARLOW & FINCH").places["/summary"].match is Match.NOT_VERBATIM


def test_a_value_in_a_script_that_the_ocr_does_not_read_is_told_as_such_and_never_as_unsupported():
    for value in ("Москва", "Αθήνα", "القاهرة", "ירושלים", "서울"):
        evidence = look({"city": value, "total": 12.5}, "MOCKBA", "12,50")
        assert evidence.script_not_read
        assert evidence.unsupported == ()
        assert evidence.places["/total"].match is Match.EQUIVALENT


def test_of_a_picture_that_is_doubtful_as_a_whole_nothing_is_unsupported():
    evidence = look({"name": "Ivanov", "total": 12.5}, "NBAHOB", doubtful=True)
    assert evidence.script_not_read
    assert evidence.unsupported == ()


def test_an_invention_beside_values_of_an_unread_script_is_still_unsupported():
    assert look({"city": "Москва", "total": 99.0}, "MOCKBA", "12,50").unsupported == ("/total",)


def test_a_page_on_its_side_is_read_as_well():
    turned = tuple(
        Line(text=each.text, box=tuple((1000 - y, x) for x, y in each.box), confidence=each.confidence, places=each.places)
        for each in (line("Netto 50,00", 100, 100), line("Summe 50,00", 100, 130))
    )
    places = ground({"total": 50.0, "net": 50.0}, Reading(size=SIZE, lines=turned)).places
    assert places["/total"].boxes[0][0] < places["/net"].boxes[0][0]


def test_the_record_is_never_changed():
    record = {"items": [{"name": "Tea", "price": 3.5}], "date": "2026-03-14"}
    before = copy.deepcopy(record)
    look(record, "Tea | 3.50", "14.03.2026")
    assert record == before


def test_pointers_escape_tildes_and_slashes():
    assert list(look({"a/b": {"~c": "x y"}}, "x y").places) == ["/a~1b/~0c"]


def test_a_page_with_very_many_lines_has_fewer_values_looked_for():
    """A record and a page of a hostile caller would take minutes otherwise."""
    record = [{"a": "word", "b": "other"}] * 500
    assert len(look(record, *["word"] * 2000).places) == 125
    assert len(look(record, "word").places) == 1000
