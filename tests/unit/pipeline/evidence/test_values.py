"""A value is found however a page writes it, and another value is not."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evidence.types import Match
from tests.unit.pipeline.evidence.lines import place_of

EQUIVALENT = [
    (1234.56, "1.234,56"),
    (1234.56, "1,234.56"),
    (1234.56, "1'234.56"),
    (1234.56, "1 234,56 €"),
    (Decimal("1234.50"), "EUR 1.234,50"),
    (12.5, "12,50€"),
    (-0.4, "-0,40"),
    (-12.5, "(12.50)"),
    (-12.5, "12,50-"),
    (7, "007"),
    (0.19, "19 %"),
    (1234567, "1,234,567"),
    (3, "three"),
    (12, "zwölf Stück"),
    ("1234.56 EUR", "€ 1.234,56"),
    ("500 ml", "500ml"),
    ("2026-03-14", "14.03.2026"),
    ("2026-03-14", "14/03/26"),
    ("2026-03-14", "14. März 2026"),
    ("2026-03-14", "14 de marzo de 2026"),
    ("2026-03-14", "14mars2026"),
    ("2026-03-14", "Mar 14, 2026"),
    ("2026-03-14", "March 14th, 2026"),
    ("2026-03-14", "14 MRT 2026"),
    ("2026-03-14", "14 marca 2026"),
    ("2026-03-14", "2026年3月14日"),
    ("2026-03-14", "20260314"),
    ("2026-03", "März 2026"),
    ("2026-03", "03/2026"),
    ("March 14, 2026", "14.03.2026"),
    ("2026-03-14T17:42:00", "14.03.2026 17:42"),
    ("2026-03-14", "Data:14/03/202617:42"),
    ("17:42:00", "Data:14/03/202617:42"),
    ("17:42", "5:42 pm"),
    ("17:42:00", "17.42 Uhr"),
    ("17:05", "17h05"),
    ("11:16", "Hora:11:16 h"),
    (236, "Efectivo236,00"),
    ("+493012345678", "+49 (0) 30 / 1234 5678"),
    ("+493012345678", "0049 30 12345678"),
    ("+493012345678", "030 12 34 56 78"),
    ("030 12345678", "+49 30 12345678"),
    ("DE89370400440532013000", "DE89 3704 0044 0532 0130 00"),
    ("DE89 3704 0044 0532 0130 00", "IBAN:DE89370400440532013000"),
    ("Jörg Käfermann", "JORG KAFERMANN"),
    ("Straße", "STRASSE"),
    ("office", "o\ufb03ce"),
    ("ABC 123", "ＡＢＣ　１２３"),
    ("Harbour Light Books", "Harbour LightBooks"),
    ("Weißbier 0.5l", "Weißbier 0,5l"),
    ("2023-07-22", "Date: Jul 22, 202308:45"),
    ("2023-08-06", "Datum: 6. August 202316:43"),
    ("16:43:00", "Datum: 6. August 202316:43"),
    ("2023-07-22", "Jul 222023"),
    ("EUR", "€ 12,00"),
    ("Élodie", "E\u0301lodie"),
]


@pytest.mark.parametrize(("value", "text"), EQUIVALENT)
def test_the_same_value_written_otherwise_is_equivalent(value, text):
    assert place_of(value, "Some words", text, "More words").match is Match.EQUIVALENT


@pytest.mark.parametrize(
    ("value", "text"), [("14.03.2026", "14.03.2026"), (12.5, "12.5"), (7, "7"), ("Ada Byron", "Ms Ada Byron")]
)
def test_a_value_that_stands_letter_for_letter_is_exact(value, text):
    assert place_of(value, text).match is Match.EXACT


OTHER = [
    (1234.56, "1.234,57"),
    (1234.56, "123.456"),
    (12.5, "125"),
    (15, "1.5"),
    (12, "2012"),
    (12, "AB-12-34"),
    (42, "17:42"),
    (3, "14.03.2026"),
    (0.4, "-0.40"),
    (-0.4, "0.40"),
    (20418, "RE20418"),
    (0.0, "1 000,00"),
    (12, "12 050,00"),
    (50, "12 050,00"),
    ("12.50 USD", "12,50 €"),
    ("500 ml", "500 g"),
    ("2026-03-14", "14.04.2026"),
    ("2026-03-14", "15.03.2026"),
    ("2026-03-14", "14.03.2025"),
    ("2026-03-04", "03.04.2026"),
    ("2026-03-14", "14. Mai 2026"),
    ("2023-07-20", "30 juli 2023"),
    ("2316-08-20", "6. August 202316:43"),
    ("17:42", "17:43"),
    ("05:42", "5:42 pm"),
    ("+493012345678", "+49 30 12345679"),
    ("+493012345678", "+43 30 12345678"),
    ("DE89370400440532013000", "DE89 3704 0044 0532 0130 01"),
    ("833", "CU-0287-833"),
    ("Annika Brandt", "Somebody Else"),
]


@pytest.mark.parametrize(("value", "text"), OTHER)
def test_another_value_is_not_found(value, text):
    assert place_of(value, "Words", text).match is Match.NONE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10.5, "1O,5O"),
        (1084.77, "1.084;77"),
        ("Annika Brandt", "Annlka Brandt"),
        ("Mornington", "Momington"),
        ("RE-20418", "RE-2O4l8"),
        ("Weißbier 0,5l", "Weißbier 05l"),
        ("Priscilla Whitcombe", "Priscila Whitcombe"),
    ],
)
def test_what_the_ocr_may_have_misread_is_fuzzy(value, text):
    assert place_of(value, "Words", text).match is Match.FUZZY


@pytest.mark.parametrize(("value", "text"), [("Annika Brandt", "Annika Brandl"), ("Meyer", "Meier"), ("Ada", "Ida")])
def test_a_name_with_another_letter_is_neither_exact_nor_equivalent(value, text):
    assert place_of(value, text).match in (Match.FUZZY, Match.NONE)


def test_dates_of_a_page_are_read_in_the_order_that_one_of_them_shows():
    assert place_of("2026-04-03", "03/04/2026").match is Match.EQUIVALENT
    assert place_of("2026-03-04", "03/04/2026").match is Match.EQUIVALENT
    assert place_of("2026-03-04", "03/04/2026", "28/02/2026").match is Match.NONE
    assert place_of("2026-04-03", "03/04/2026", "02/28/2026").match is Match.NONE


# --- properties ---

AMOUNTS = st.decimals(min_value=Decimal("0.01"), max_value=Decimal("9999999.99"), places=2)
LOCALES = st.sampled_from([(",", "."), (".", ","), ("'", "."), (" ", ","), ("", "."), ("", ","), ("\u202f", ",")])
FRAMES = st.sampled_from(["{}", "{} €", "€{}", "EUR {}", "$ {}", "Total: {}", "{} kg", "Summe {} inkl."])


def written(value: Decimal, signs: tuple[str, str]) -> str:
    whole, part = f"{value:,.2f}".split(".")
    return whole.replace(",", signs[0]) + signs[1] + part


@settings(max_examples=40)
@given(AMOUNTS, LOCALES, FRAMES)
def test_a_number_in_any_country_is_found(value, signs, frame):
    assert place_of(value, frame.format(written(value, signs))).match in (Match.EXACT, Match.EQUIVALENT)
    assert place_of(float(value), frame.format(written(value, signs))).match in (Match.EXACT, Match.EQUIVALENT)


@settings(max_examples=40)
@given(AMOUNTS, LOCALES, FRAMES, st.data())
def test_a_number_with_a_changed_digit_is_not_found(value, signs, frame, data):
    text = f"{value:.2f}"
    at = data.draw(st.sampled_from([at for at, letter in enumerate(text) if letter.isdigit()]))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != text[at]]))
    changed = Decimal(text[:at] + other + text[at + 1 :])
    # "1 100,00" may be 1100, or 100 beside a 1: the latter is worth a look.
    is_part = written(value, signs).endswith(f" {written(changed, signs)}")
    assert place_of(changed, frame.format(written(value, signs))).match is (Match.FUZZY if is_part else Match.NONE)


def test_a_part_of_a_run_of_digits_is_worth_a_look():
    assert place_of(100, "1 100,00").match is Match.FUZZY
    assert place_of(1100, "1 100,00").match is Match.EQUIVALENT


@settings(max_examples=40)
@given(st.dates(min_value=date(1950, 1, 1), max_value=date(2049, 12, 31)), st.integers(1, 400))
def test_a_date_is_found_in_each_order_and_a_moved_one_is_not(day, moved):
    other = day + timedelta(days=moved)
    for form in ("%d.%m.%Y", "%Y-%m-%d", "%d.%m.%y", "%d %B %Y", "%B %d, %Y"):
        assert place_of(day.isoformat(), day.strftime(form)).match in (Match.EXACT, Match.EQUIVALENT)
        assert place_of(other.isoformat(), day.strftime(form)).match is Match.NONE


@settings(max_examples=40)
@given(st.text(max_size=40), st.lists(st.text(max_size=30), max_size=4))
def test_no_text_makes_the_search_fail(value, rows):
    place_of(value, *rows)


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    )
)
def test_each_leaf_of_any_record_has_its_place(record):
    from pipeline.evidence.leaves import leaves
    from tests.unit.pipeline.evidence.lines import look

    evidence = look(record, "12 words and 3.50")
    assert list(evidence.places) == [leaf.pointer for leaf in leaves(record)]
