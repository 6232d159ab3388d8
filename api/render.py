"""An image of a job as the API shows it, in its lists and tables."""

from __future__ import annotations

from typing import Any

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
        "result": item.result,
    }
