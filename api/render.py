"""An image of a job as the API shows it, in its lists and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.job_object import evidence_json, time_json
from pipeline.types import ImageState
from storage.job.listing import ItemView

#: State of an image → its name in the API.
ITEM_STATUSES = {
    ImageState.WAITING: "queued",
    ImageState.STAGED: "running",
    ImageState.DONE: "succeeded",
    ImageState.FAILED: "failed",
}


def item_json(item: ItemView) -> dict[str, Any]:
    """One image of a job, as the API shows it."""
    return {
        "index": item.index,
        "customId": item.custom_id,
        "source": item.source,
        "status": ITEM_STATUSES[item.state],
        "code": item.code,
        "message": item.message,
        "attempts": item.attempts,
        "note": item.note,
        "tier": item.tier,
        "result": item.result,
        **(evidence_json(item.evidence) if item.evidence else {}),
        **({"corrections": corrections_json(item.corrections)} if item.corrections else {}),
    }


def corrections_json(corrections: Mapping[str, Any]) -> dict[str, Any]:
    """The member `corrections` of an image: what people changed and checked."""
    return {
        **({"record": corrections["record"]} if "record" in corrections else {}),
        "changes": [{**change, "at": time_json(change["at"])} for change in corrections["changes"]],
        "checked": corrections["checked"],
        "checkedAt": time_json(corrections["checkedAt"]),
        "checkedBy": corrections["checkedBy"],
        "revision": corrections["revision"],
    }


def as_corrected(item: ItemView) -> ItemView:
    """The image with the corrected record, if there is one, as its result."""
    if item.corrections is None or "record" not in item.corrections:
        return item
    return replace(item, result=item.corrections["record"])
