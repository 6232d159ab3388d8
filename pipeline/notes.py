"""What an image's item says beside its answer: the codes of `note`, and the sentence a job's warnings have of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

#: Between the notes of one image.
SEPARATOR = "; "


class NoteCode(StrEnum):
    """What a note begins with: stable, public (docs/reference)."""

    REENCODED = "reencoded"  #: the model does not take the image as it came, and was shown it as JPEG
    SEVERAL_PAGES = "several_pages"  #: further pages or frames were not read
    ROWS_MISSING = "rows_missing"  #: the file ends early: its last rows are not there, or only coarsely
    BLANK = "blank"  #: every pixel has the same colour
    SCRIPT_NOT_READ = "script_not_read"  #: the OCR has no letters for what it seems to show


#: What a job's warnings say once, however many of its images have the note.
WARNINGS: Mapping[NoteCode, str] = {
    NoteCode.SEVERAL_PAGES: "Some images have several pages or frames, of which only the first was read: see the items' notes.",
    NoteCode.ROWS_MISSING: "Some images end early, and their last rows are missing: see the items' notes.",
    NoteCode.BLANK: "Some images are blank: every pixel has the same colour. See the items' notes.",
    NoteCode.SCRIPT_NOT_READ: (
        "Some images seem to show a script that the ocr engine has no letters for (it reads Latin letters, Chinese and Japanese, "
        "but no Cyrillic, Greek, Arabic or Hebrew): what it read there may be look-alikes. See the items' notes."
    ),
}


def note(code: NoteCode, detail: str) -> str:
    """One note: the code, a colon, and what it means for this image (ASCII, without SEPARATOR)."""
    return f"{code.value}: {detail}"


def joined(notes: Iterable[str]) -> str:
    """The notes of one image as one text; empty if there are none."""
    return SEPARATOR.join(filter(None, notes))


def warnings_of(notes: Iterable[str]) -> list[str]:
    """The sentences for a job whose images have these notes (each the notes of one image, joined), each once."""
    codes = {part.partition(":")[0] for each in notes for part in each.split(SEPARATOR)}
    return [WARNINGS[code] for code in WARNINGS if code.value in codes]
