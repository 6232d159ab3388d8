"""The names of uploaded files become names of images: safe to store and show, whatever the client sent."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.request.fields import LONGEST_CUSTOM_ID
from pipeline.request.file_names import file_name


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("a.jpg", "a.jpg"),
        ("Beleg ü 日本 👩‍👧.jpg", "Beleg ü 日本 👩‍👧.jpg"),
        ("folder/a.jpg", "folder/a.jpg"),
        ("folder\\deep\\a.jpg", "folder/deep/a.jpg"),
        ("./folder//a.jpg", "folder/a.jpg"),
        ("../../etc/a.jpg", "etc/a.jpg"),
        ("C:\\fakepath\\a.jpg", "a.jpg"),
        ("c:/users/me/a.jpg", "a.jpg"),
        ("\\\\server\\share\\a.jpg", "a.jpg"),
        ("/home/me/a.jpg", "a.jpg"),
        ("file:///home/me/a.jpg", "a.jpg"),
        ("a\x00b\r\nc\x7f\u2028\ud800.jpg", "abc.jpg"),
        ("  a.jpg ", "a.jpg"),
        ("", None),
        ("..", None),
        ("C:\\", None),
        ("\x01", None),
    ],
)
def test_a_file_s_name_is_shown_without_the_folders_of_the_sender_s_machine(sent, shown):
    assert file_name(sent) == shown


def test_a_long_name_keeps_its_end():
    name = file_name("x" * 500 + "-17.jpg")
    assert name is not None
    assert (len(name), name[0], name[-7:]) == (LONGEST_CUSTOM_ID, "…", "-17.jpg")


@given(st.text(max_size=600))
def test_every_name_can_be_stored_and_has_no_control_characters(sent):
    name = file_name(sent)
    if name is not None:
        assert 1 <= len(name) <= LONGEST_CUSTOM_ID
        assert not {unicodedata.category(character) for character in name} & {"Cc", "Cs", "Zl", "Zp"}
        assert not set(name.split("/")) & {"", ".", ".."}
