"""Examples of bodies and answers in the OpenAPI document. Tests check each of them against its schema.

The request by URL fetches a picture that the service itself has, if the service serves `examples/`. So what /docs shows can be sent.
"""

from __future__ import annotations

import json
from typing import Any

from config.engines import ENGINES
from pipeline.credits import BASE, PER_IMAGE
from pipeline.decode.sniff import CONVERTED_FORMATS, NATIVE_FORMATS
from pipeline.types import MAX_IMAGE_BYTES, MAX_IMAGES, MAX_OUTPUT_TOKENS, MAX_TOTAL_BYTES

Value = Any  #: a JSON value, or the text of a body that is not JSON

#: Stands in an example for the address of the folder with the pictures.
PICTURES = "{pictures}"
#: The address that is shown if the service does not serve its examples.
NO_PICTURES = "https://www.example.com/pictures"

JOB_ID, DELIVERY_ID = "job_7Yk2pQm4Vt9sZr1B", "evt_3Hn8wXc5Lf2dKj6M"
ADDRESS = f"/api/v1/jobs/{JOB_ID}"
PROMPT = "What is offered, and until when?"
#: A PNG of one black pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
_URLS = [f"{PICTURES}/09-ferry-banner.gif", f"{PICTURES}/01-till-receipt.png"]
_RECORD_SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}

_LINKS = {
    "self": ADDRESS,
    **{name: f"{ADDRESS}/{name}" for name in ("events", "items", "results", "deliveries", "cancel", "retry")},
}
_USAGE: dict[str, Value] = {
    "credits": 11,
    "modelCalls": 1,
    "inputTokens": 1309,
    "outputTokens": 28,
    "cacheHits": 0,
    "money": 0.000462,
    "moneyByTier": {"standard": 0.000462, "economy": 0},
    "modelVersion": None,
}
JOB = {
    "id": JOB_ID,
    "status": "succeeded",
    "tier": "standard",
    "progress": 1,
    "counts": {"total": 1, "succeeded": 1, "failed": 0},
    "usage": _USAGE,
    "createdAt": "2026-11-26T12:00:00.000Z",
    "startedAt": "2026-11-26T12:00:00.040Z",
    "finishedAt": "2026-11-26T12:00:02.310Z",
    "expiresAt": "2026-11-27T12:00:02.310Z",
    "inputsExpireAt": None,
    "error": None,
    "warnings": [],
    "metadata": {"order": 4711},
    "name": "Ferry banner",
    "batch": None,
    "links": _LINKS,
}
_QUEUED = {
    **JOB,
    "status": "queued",
    "progress": 0,
    "counts": {"total": 1, "succeeded": 0, "failed": 0},
    "usage": {
        **_USAGE,
        **dict.fromkeys(("credits", "modelCalls", "inputTokens", "outputTokens", "money"), 0),
        "moneyByTier": {"standard": 0, "economy": 0},
    },
    **dict.fromkeys(("startedAt", "finishedAt", "expiresAt")),
}
RESULT = {"results": "Summer crossings from £19, if booked by 31 May.", "prompt": PROMPT, "imageCount": 1, "creditUsage": 11}
_ITEM = {
    "index": 0,
    "customId": "ferry",
    "source": "https://www.example.com/pictures/09-ferry-banner.gif",
    "status": "succeeded",
    "code": None,
    "message": None,
    "attempts": 1,
    "note": None,
    "tier": "standard",
    "result": {"offer": "Summer crossings from £19", "until": "31 May"},
}
_ENGINE = next(iter(ENGINES))
_DELIVERY = {
    "id": DELIVERY_ID,
    "job": JOB_ID,
    "round": 1,
    "event": "job.succeeded",
    "url": "https://www.example.com/hook",
    "status": "delivered",
    "attempts": [{"at": "2026-11-26T12:00:02.400Z", "status": 200, "error": None, "ms": 38, "response": "thanks"}],
    "createdAt": "2026-11-26T12:00:02.310Z",
    "nextAttemptAt": None,
}

#: Name of a component → summary → the body of a request.
REQUESTS: dict[str, dict[str, Value]] = {
    "Request": {
        "By URL": {"inputMethod": "url", "images": _URLS[:1], "prompt": PROMPT},
        "As base64": {"inputMethod": "base64", "images": [PIXEL], "prompt": "Which colour is this?", "jsonMode": True},
        "One record for each image": {
            "inputMethod": "url",
            "images": _URLS[1:],
            "prompt": "Read the receipt.",
            "schema": _RECORD_SCHEMA,
            "customIds": ["till-1"],
            "metadata": {"order": 4711},
            "name": "Till receipts of May",
        },
        "With evidence": {
            "inputMethod": "url",
            "images": _URLS[1:],
            "prompt": "Read the receipt.",
            "schema": _RECORD_SCHEMA,
            "evidence": True,
            "reviewWhen": ["unsupported", "failed"],
        },
    },
    "NewKey": {"For a shop": {"name": "shop"}},
    "Correction": {"A value, and checked": {"changes": {"/until": "31 May 2027"}, "checked": True}},
    "Picture": {"A picture": "P3\n1 1\n255\n67 83 216\n"},
    "Form": {"Files": {"images": ["P3\n1 1\n255\n67 83 216\n"], "prompt": PROMPT, "granularity": "perImage"}},
}

#: Name of a component → an answer with it.
ANSWERS: dict[str, Value] = {
    "Result": RESULT,
    "Accepted": _QUEUED,
    "Job": JOB,
    "JobRequest": {
        "inputMethod": "url",
        "prompt": PROMPT,
        "jsonMode": False,
        "granularity": "perImage",
        "schema": None,
        "merge": "auto",
        "imagesPerCall": None,
        "cache": False,
        "evidence": False,
        "reviewWhen": None,
        "model": None,
        "fallbackModels": None,
        "detail": "high",
        "thinking": None,
        "onError": "partial",
        "tier": "standard",
        "deadlineSeconds": 3600,
        "keepInputsSeconds": 0,
        "maxMoney": None,
        "webhookUrl": None,
        "metadata": None,
        "name": None,
        "batch": None,
    },
    "JobList": {"jobs": [JOB], "nextCursor": None},
    "Item": {
        **_ITEM,
        "evidence": {
            "/offer": {
                "match": "exact",
                "text": "Summer crossings from £19",
                "boxes": [[0.055, 0.43, 0.78, 0.61]],
                "confidence": 0.991,
            },
            "/until": {"match": "exact", "text": "31 May", "boxes": [[0.14, 0.68, 0.27, 0.79]], "confidence": 0.987},
        },
        "unsupported": [],
        "evidenceError": None,
        "needsReview": False,
    },
    "ItemList": {"items": [_ITEM], "nextCursor": None},
    "Estimate": {
        "images": 1,
        "modelCalls": 1,
        "inputTokens": 1309,
        "outputTokens": 200,
        "credits": 11,
        "money": 0.000892,
        "moneyByTier": {"standard": 0.000892, "economy": 0.000446},
    },
    "Formats": {
        "supportedFormats": list(NATIVE_FORMATS),
        "convertedFormats": list(CONVERTED_FORMATS),
        "limits": {
            "maxImages": MAX_IMAGES,
            "maxImageBytes": MAX_IMAGE_BYTES,
            "maxTotalBytes": MAX_TOTAL_BYTES,
            "maxOutputTokensPerCall": MAX_OUTPUT_TOKENS,
        },
        "credits": {"base": BASE, "perImage": PER_IMAGE},
    },
    "DeliveryList": {"deliveries": [_DELIVERY]},
    "DeliveryPage": {"deliveries": [_DELIVERY], "nextCursor": None},
    "DeliveryWithBody": {**_DELIVERY, "body": f'{{"type":"job.succeeded","data":{{"id":"{JOB_ID}"}}}}'},
    "Delivery": _DELIVERY,
    "Usage": {
        "balance": {"available": 989, "held": 0, "charged": 11},
        "ledger": [
            {
                "id": 3,
                "kind": "charge",
                "credits": 11,
                "job": JOB_ID,
                "round": 1,
                "requestSource": "n8n",
                "createdAt": "2026-11-26T12:00:02.310Z",
            }
        ],
        "nextCursor": None,
        "days": [
            {
                "date": "2026-11-26",
                "jobs": 1,
                "credits": 11,
                "money": 0.000462,
                "moneyByTier": {"standard": 0.000462, "economy": 0},
            }
        ],
    },
    "Capabilities": {
        "version": "0.1.0",
        "engine": _ENGINE,
        "models": [
            {
                "name": "gemini-3.5-flash-lite",
                "default": True,
                "engine": _ENGINE,
                "price": {"input": 0.3, "output": 2.5, "economy": 0.5},
                "problem": None,
                "can": {
                    "prompt": True,
                    "schema": True,
                    "detail": ["low", "medium", "high", "ultra"],
                    "thinking": ["minimal", "low", "medium", "high"],
                    "tiers": ["standard", "economy"],
                },
            }
        ],
        "limits": {
            "imagesPerRequest": MAX_IMAGES,
            "imageBytes": MAX_IMAGE_BYTES,
            "totalBytes": MAX_TOTAL_BYTES,
            "bodyBytes": 167772160,
            "imagePixels": 50000000,
            "imageSide": 30000,
            "imagesPerCall": 50,
            "outputTokensPerCall": MAX_OUTPUT_TOKENS,
            "promptChars": 100000,
            "customIdChars": 256,
            "metadataBytes": 4096,
            "openJobs": 100,
            "requestsPerWindow": 600,
            "windowSeconds": 60,
            "waitSeconds": 300,
            "resultSeconds": 86400,
        },
        "credits": {"base": BASE, "perImage": PER_IMAGE, "available": 989},
        "keepInputsMaxSeconds": 86400,
        "cache": False,
        "ready": True,
        "problems": [],
        "warnings": [],
    },
    "KeyList": {
        "keys": [
            {
                "id": "0a1B2c3D4e5F",
                "name": "shop",
                "prefix": "xim_0a1B2c3D4e5F",
                "createdAt": "2026-11-26T12:00:00.000Z",
                "lastUsedAt": None,
                "current": False,
            }
        ]
    },
    "MadeKey": {
        "id": "0a1B2c3D4e5F",
        "name": "shop",
        "key": "xim_0a1B2c3D4e5F_…",
        "createdAt": "2026-11-26T12:00:00.000Z",
    },
    "Health": {"status": "ok"},
    "Readiness": {"status": "ready", "checks": {"database": "ok", "redis": "ok", "scratch": "ok", "model": "ok"}},
}

#: Status and name of a component → an answer that differs from the usual one.
OF_STATUS: dict[tuple[int, str], Value] = {
    (503, "Readiness"): {
        "status": "not ready",
        "checks": {"database": "ok", "redis": "away", "scratch": "ok", "model": "ok"},
    },
    (202, "Job"): _QUEUED,
    (202, "Delivery"): {**_DELIVERY, "status": "pending", "nextAttemptAt": "2026-11-26T12:05:00.000Z"},
}

#: Media type → an answer that is not one JSON document.
OF_MEDIA: dict[str, str] = {
    "application/jsonl": json.dumps(_ITEM, ensure_ascii=False) + "\n",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "the bytes of a workbook",
    "image/jpeg": "the bytes of a JPEG",
    "application/octet-stream": "the bytes of a JPEG",
    "text/csv": "index,customId,source,status,code,message,offer,until\r\n"
    "0,ferry,https://www.example.com/pictures/09-ferry-banner.gif,succeeded,,,Summer crossings from £19,31 May\r\n",
    "text/event-stream": f"retry: 2000\n\nevent: job\nid: 5d41402abc4b2a76b9719d91\ndata: {json.dumps(JOB)}\n\n",
    "text/plain": '# TYPE extract_image_open_jobs gauge\nextract_image_open_jobs{status="running"} 1\n',
}


def with_pictures(value: Value, pictures: str) -> Value:
    """The example with the address of the pictures in place of PICTURES."""
    if isinstance(value, str):
        return value.replace(PICTURES, pictures)
    if isinstance(value, list):
        return [with_pictures(inner, pictures) for inner in value]
    if isinstance(value, dict):
        return {name: with_pictures(inner, pictures) for name, inner in value.items()}
    return value
