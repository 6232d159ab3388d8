"""The notes of an image's item: their codes, and the sentence in a job's warnings for each code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

#: Stands between the notes of one image.
SEPARATOR = "; "


class NoteCode(StrEnum):
    """The code that a note begins with. The codes are public (docs/reference) and do not change."""

    REENCODED = "reencoded"  #: the model refused the image as received, so it got the image as JPEG
    SEVERAL_PAGES = "several_pages"  #: only the first page or frame was read
    ROWS_MISSING = "rows_missing"  #: the file ends early: its last rows are missing or have little detail
    BLANK = "blank"  #: every pixel has the same colour
    SCRIPT_NOT_READ = "script_not_read"  #: the image seems to show a script that the OCR cannot read


#: The sentence in a job's warnings for each code. A job has it once, even if several of its images have the note.
WARNINGS: Mapping[NoteCode, str] = {
    NoteCode.SEVERAL_PAGES: "Some images have several pages or frames, of which only the first was read: see the items' notes.",
    NoteCode.ROWS_MISSING: "Some images end early, and their last rows are missing: see the items' notes.",
    NoteCode.BLANK: "Some images are blank: every pixel has the same colour. See the items' notes.",
    NoteCode.SCRIPT_NOT_READ: (
        "Some images seem to show a script that the ocr engine has no letters for (it reads Latin letters, Chinese and Japanese, "
        "but no Cyrillic, Greek, Arabic, Hebrew, Korean, Thai or Indic script): what it read there may be look-alikes or missing. "
        "See the items' notes."
    ),
}


def note(code: NoteCode, detail: str) -> str:
    """One note: the code, a colon, and `detail`, which must be ASCII without SEPARATOR."""
    return f"{code.value}: {detail}"


def joined(notes: Iterable[str]) -> str:
    """The notes of one image as one text; empty if there are none."""
    return SEPARATOR.join(filter(None, notes))


def warnings_of(notes: Iterable[str]) -> list[str]:
    """The warnings of a job, each once. `notes`: for each image its joined notes."""
    codes = {part.partition(":")[0] for each in notes for part in each.split(SEPARATOR)}
    return [WARNINGS[code] for code in WARNINGS if code.value in codes]
