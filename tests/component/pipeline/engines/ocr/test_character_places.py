"""The server says where each character of a line is."""

from types import SimpleNamespace

import pytest

from pipeline.engines.ocr.reader import _places


def columns(*words, length):
    return SimpleNamespace(word_cols=[list(word) for word in words], line_txt_len=length)


def test_each_character_has_the_place_of_its_column_in_thousandths():
    assert _places("abc", columns((0, 4, 9), length=10)) == (50, 450, 950)


def test_a_space_is_between_its_neighbours():
    assert _places("a b", columns((1,), (7,), length=10)) == (150, 450, 750)


@pytest.mark.parametrize("found", [None, columns(length=10), columns((1, 2), length=10), columns((1, 2, 3), length=0)])
def test_a_line_whose_columns_do_not_fit_its_text_has_no_places(found):
    assert _places("abc", found) == ()


def test_no_place_is_outside_the_line():
    assert _places("ab", columns((0, 12), length=10)) == (50, 1000)
