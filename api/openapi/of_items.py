"""The components of the OpenAPI document for a job's images, with their evidence and corrections."""

from __future__ import annotations

from api.openapi.building import NEXT, TIME, Schema, number, or_null, record, ref, several, text
from pipeline.evidence.faults import EvidenceFault
from pipeline.evidence.types import Match

#: The members of an image that only jobs with `evidence` have.
ITEM_EVIDENCE: dict[str, Schema] = {
    "evidence": or_null(ref("Evidence")),
    "unsupported": several(text("A JSON Pointer."), "The values of the record that do not stand in the picture."),
    "evidenceError": or_null(ref("EvidenceError")),
    "needsReview": {"type": "boolean", "description": "Whether `reviewWhen` selects it."},
}

ITEMS: dict[str, Schema] = {
    "ItemList": record({"items": several(ref("Item")), "nextCursor": NEXT}),
    "Item": record(
        {
            "index": number("Of the image in `images`, from 0."),
            "customId": or_null(text("As sent. Without one, the name of the uploaded file.")),
            "source": or_null(text("Its URL, or the name of the uploaded file, until the results expire. Null for base64.")),
            "status": text(enum=["queued", "running", "succeeded", "failed"]),
            "code": or_null(ref("ItemCode")),
            "message": or_null(text("What is wrong, and how to mend it.")),
            "attempts": number("Rounds of the job that it was in."),
            "note": or_null(
                text("Notes, with `; ` between them, each a code, perhaps with `: ` and words: what the model was shown.")
            ),
            "tier": {"description": "In which its call was served. Null if no call answered it.", **or_null(ref("Tier"))},
            "result": {
                "description": "Its own result, where each image has one. It comes while the job runs, once all images are received; "
                "with `onError: fail` it comes when the job has ended with results."
            },
        },
        {**ITEM_EVIDENCE, "corrections": ref("Corrections")},
    ),
    "ResultEvidence": record(
        {"index": number("Of the image in `images`, from 0."), "customId": or_null(text("As sent.")), **ITEM_EVIDENCE},
        what="The evidence of one image.",
    ),
    "Evidence": {
        "type": "object",
        "additionalProperties": ref("EvidencePlace"),
        "description": "By the JSON Pointer of each value of the record: where it stands in the picture.",
    },
    "EvidencePlace": record(
        {
            "match": text(
                "How the value stands there: letter for letter, written otherwise, as similar text, not at all; `notVerbatim`: it "
                "need not be a text of the picture.",
                enum=[match.value for match in Match],
            ),
            "text": text("As the OCR read it. Empty if it was not found."),
            "boxes": several(
                several({"type": "number", "minimum": 0, "maximum": 1}, minItems=4, maxItems=4),
                "Left, top, right, bottom, from 0 to 1 of the upright picture. One for each line of the value.",
            ),
            "confidence": or_null({"type": "number", "minimum": 0, "maximum": 1, "description": "The OCR's, not the model's."}),
        },
        {"reason": text("Why `none` does not mean that it is missing.", enum=[EvidenceFault.SCRIPT_NOT_READ.value])},
    ),
    "EvidenceError": record(
        {"code": text("Stable.", enum=[code.value for code in EvidenceFault]), "message": text()},
        what="Why the evidence says little or nothing.",
    ),
    "Corrections": record(
        {
            "changes": several(ref("Change"), "The oldest first, at most the last 200."),
            "checked": {"type": "boolean"},
            "checkedAt": or_null(TIME),
            "checkedBy": or_null(text("The name and the id of the key.")),
            "revision": number("How often it was changed."),
        },
        {"record": {"description": "The corrected record. It is missing if it is as the model gave it."}},
        "What people changed and checked.",
    ),
    "Change": record(
        {
            "pointer": text("A JSON Pointer into the record."),
            "from": {"description": "Null where there was nothing."},
            "to": {"description": "Null where there is nothing now."},
            "at": TIME,
            "by": text("The name and the id of the key."),
        }
    ),
    "Correction": record(
        {},
        {
            "record": {"description": "The whole corrected record."},
            "changes": {
                "type": "object",
                "additionalProperties": {},
                "description": "JSON Pointer → value. They are set in the corrected record.",
            },
            "checked": {"type": "boolean"},
            "revision": number("That of the `corrections` that are changed, 0 if there are none. Any, if it is left out."),
        },
    ),
}

ITEMS["ItemCorrections"] = {
    **ITEMS["Corrections"],
    "properties": {
        "index": number("Of the image in `images`, from 0."),
        "customId": or_null(text()),
        **ITEMS["Corrections"]["properties"],
    },
    "required": ["index", "customId", *ITEMS["Corrections"]["required"]],
}
