"""What is kept and shown of the evidence for one image's record. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline.evidence.faults import MESSAGES, EvidenceFault
from pipeline.evidence.ground import ground
from pipeline.evidence.types import Evidence, Match, Reading
from pipeline.types import Review, storable

#: A value that the OCR read with less confidence should be looked at. Correct lines have over 0.9.
LOW_CONFIDENCE = 0.8
LONGEST_MESSAGE = 300  #: characters

#: Made at import, because msgspec crashes the process if two threads make the first decoder of a type at the same time.
_READINGS = msgspec.json.Decoder(Reading)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What the OCR says about the record of an image."""

    places: (
        dict[str, Any] | None
    )  #: JSON Pointer of each value to where it stands, as the API shows it; None: it was not looked for
    unsupported: Sequence[str] = ()  #: pointers of the values that do not stand in the picture
    code: EvidenceFault | None = None
    message: str = ""  #: with `code`
    reviews: frozenset[Review] = frozenset()  #: why a person should look at the image

    def stored(self) -> dict[str, Any]:
        """The value of `images.evidence`."""
        fault = {"code": self.code.value, "message": self.message} if self.code else None
        return {"places": self.places, "unsupported": list(self.unsupported), "fault": fault}


def look(record: Any, reading: Reading, schema: Any = None) -> Finding:
    """Looks for each value of a record in what the OCR read. `schema`: the record's JSON Schema if there is one."""
    evidence = ground(record, reading, schema)
    reviews = {Review.UNSUPPORTED} if evidence.unsupported else set[Review]()
    if evidence.script_not_read or any(_is_doubtful(place.match, place.confidence) for place in evidence.places.values()):
        reviews.add(Review.LOW_CONFIDENCE)
    code = EvidenceFault.SCRIPT_NOT_READ if evidence.script_not_read else None
    return Finding(
        places=_shown(evidence),
        unsupported=evidence.unsupported,
        code=code,
        message=MESSAGES[code] if code else "",
        reviews=frozenset(reviews),
    )


def not_read(reason: str = "") -> Finding:
    """The finding for an image that the OCR failed on. `reason`: the OCR's own words, which a picture may have written."""
    message = storable(" ".join(filter(None, (MESSAGES[EvidenceFault.OCR_FAILED], reason))))[:LONGEST_MESSAGE]
    return Finding(places=None, code=EvidenceFault.OCR_FAILED, message=message, reviews=frozenset({Review.FAILED}))


def packed(reading: Reading) -> bytes:
    """The reading as bytes, which `unpacked` takes."""
    return msgspec.json.encode(reading)


def unpacked(data: bytes) -> Reading | None:
    """The reading. None if the bytes are none of this version."""
    try:
        return _READINGS.decode(data)
    except msgspec.MsgspecError:
        return None


def _is_doubtful(match: Match, confidence: float | None) -> bool:
    return match is Match.FUZZY or (confidence is not None and match is not Match.NONE and confidence < LOW_CONFIDENCE)


def _shown(evidence: Evidence) -> dict[str, Any]:
    unsupported = set(evidence.unsupported)
    places: dict[str, Any] = {}
    for pointer, place in evidence.places.items():
        shown: dict[str, Any] = {
            "match": place.match.value,
            "text": storable(place.text),
            "boxes": [list(box) for box in place.boxes],
            "confidence": place.confidence,
        }
        if place.match is Match.NONE and pointer not in unsupported:
            shown["reason"] = EvidenceFault.SCRIPT_NOT_READ.value
        places[pointer] = shown
    return places
