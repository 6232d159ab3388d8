"""The components of the OpenAPI document for jobs, their results and their webhooks."""

from __future__ import annotations

from api.openapi.building import EVENTS, MONEY, NEXT, TIME, Schema, number, or_null, record, ref, several, text
from pipeline.types import ItemCode, JobStatus

JOBS: dict[str, Schema] = {
    "Result": record(
        {
            "results": text("With `jsonMode` a JSON document."),
            "prompt": text("As sent."),
            "imageCount": number("Images processed."),
            "creditUsage": number("Credits charged."),
        },
        {
            "errors": several(ref("ItemError"), "Only where images failed."),
            "evidence": several(ref("ResultEvidence"), "Of each image, in a job with `evidence`."),
            "corrections": several(ref("ItemCorrections"), "Of a job's results, only where people changed or checked some."),
        },
    ),
    "ItemError": record(
        {
            "index": number("Of the image in `images`, from 0."),
            "code": ref("ItemCode"),
            "message": text("What is wrong, and how to mend it."),
        },
        {"customId": text("Where the request had `customIds` or files with names.")},
    ),
    "ItemCode": text("Why one image has no answer.", enum=[code.value for code in ItemCode]),
    "Job": record(
        {
            "id": text("`job_…`"),
            "status": ref("JobStatus"),
            "tier": ref("Tier"),
            "progress": {"type": "number", "minimum": 0, "maximum": 1},
            "counts": record(
                {"total": number(), "succeeded": number(), "failed": number()},
                {"needsReview": number("Those that `reviewWhen` selects, in a job with `evidence`.")},
                what="Images.",
            ),
            "usage": record(
                {
                    "credits": number("Charged so far."),
                    "modelCalls": number(),
                    "inputTokens": number(),
                    "outputTokens": number("Thinking included."),
                    "cacheHits": number("Images that cost no call."),
                    "money": MONEY,
                    "moneyByTier": ref("MoneyByTier"),
                    "modelVersion": or_null(text("Of the latest answer.")),
                }
            ),
            "createdAt": TIME,
            "startedAt": or_null(TIME),
            "finishedAt": or_null(TIME),
            "expiresAt": or_null(TIME),
            "inputsExpireAt": or_null(text("Images that were uploaded are kept until then for a retry.", format="date-time")),
            "error": or_null(ref("JobError")),
            "warnings": several(text(), "For a person."),
            "metadata": {"description": "As sent.", **or_null(ref("Metadata"))},
            "name": or_null(text("As sent.")),
            "batch": or_null(text("As sent.")),
            "links": ref("Links"),
        }
    ),
    "Accepted": {
        "description": "The job, or the start of it if the database is unavailable just after the job was accepted.",
        "anyOf": [ref("Job"), ref("AcceptedJob")],
    },
    "AcceptedJob": record(
        {"id": text("`job_…`"), "status": ref("JobStatus"), "links": ref("Links")},
        what="What the service can show of a job if the database is unavailable just after the job was accepted.",
    ),
    "JobEvent": record(
        {
            "event": text(enum=["job"]),
            "id": text("For `Last-Event-ID`."),
            "data": text("The job.", contentMediaType="application/json", contentSchema=ref("Job")),
        },
        what="One event of the stream.",
    ),
    "MoneyByTier": record({"standard": MONEY}, {"economy": MONEY}, "By the tier in which the calls were served."),
    "JobError": record({"code": text("Stable."), "message": text()}, what="Why the job failed."),
    "JobStatus": text(enum=[status.value for status in JobStatus]),
    "Links": record(
        {name: text() for name in ("self", "events", "items", "results", "deliveries", "cancel", "retry")},
        what="Paths.",
    ),
    "JobList": record({"jobs": several(ref("Job")), "nextCursor": NEXT}),
}

JOBS["WebhookEvent"] = record(
    {
        "type": text(enum=EVENTS),
        "timestamp": TIME,
        "data": record(
            {name: JOBS["Job"]["properties"][name] for name in JOBS["Job"]["required"]},
            {
                "results": text("The results, if the whole body stays under 20 kB. Otherwise read them from `links`."),
                "errors": several(ref("ItemError"), "Only if images failed, and with `results`."),
            },
            "The job.",
        ),
    },
    what="The body of a webhook.",
)
