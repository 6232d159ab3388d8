"""Notes of images, and the sentences that a job's warnings have of them."""

from __future__ import annotations

from pipeline.notes import SEPARATOR, WARNINGS, NoteCode, joined, note, warnings_of


def test_notes_stand_in_one_text_in_their_order():
    pages, blank = note(NoteCode.SEVERAL_PAGES, "3 pages, the first was read"), note(NoteCode.BLANK, "every pixel")
    assert joined([pages, "", blank]) == "several_pages: 3 pages, the first was read; blank: every pixel"
    assert joined([]) == ""


def test_each_code_is_said_once_however_many_images_have_it():
    notes = ["several_pages: 3 pages", "several_pages: 2 frames; blank: x", "reencoded"]
    assert warnings_of(notes) == [WARNINGS[NoteCode.SEVERAL_PAGES], WARNINGS[NoteCode.BLANK]]
    assert warnings_of([]) == []


def test_every_code_but_the_one_that_changes_no_answer_has_a_warning():
    assert set(NoteCode) - set(WARNINGS) == {NoteCode.REENCODED}
    assert not any(SEPARATOR in code for code in NoteCode)
