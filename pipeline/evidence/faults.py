"""Why the evidence of an image may say little or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class EvidenceFault(StrEnum):
    """Why the evidence of an image says little or nothing. The codes are public (docs/reference)."""

    SCRIPT_NOT_READ = "script_not_read"  #: the picture shows a script that the OCR can't read, or a value is written in one
    OCR_FAILED = "ocr_failed"  #: the OCR could not read the picture
    ENDED_EARLY = "ended_early"  #: the job ended before the OCR had read the picture


MESSAGES: Mapping[EvidenceFault, str] = {
    EvidenceFault.SCRIPT_NOT_READ: "The OCR does not read a script of this picture, so a value that was not found may stand there.",
    EvidenceFault.OCR_FAILED: "The OCR could not read this picture.",
    EvidenceFault.ENDED_EARLY: "The job ended before the OCR had read this picture.",
}
