"""Uses the client that `openapi-python-client` generates. Prints what it saw as JSON."""

from __future__ import annotations

import base64
import io
import json
import sys

import httpx
from extract_image_client import AuthenticatedClient
from extract_image_client.api.extract import post_extract_image, post_extract_image_estimate
from extract_image_client.api.jobs import get_job, get_job_items, get_job_results, post_jobs
from extract_image_client.models import (
    Error,
    Estimate,
    Form,
    Granularity,
    ItemList,
    Job,
    RecordSchema,
    Request,
    RequestInputMethod,
    Result,
)
from extract_image_client.types import File

url, key, picture = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True, timeout=httpx.Timeout(60))
schema = RecordSchema.from_dict({"type": "object", "properties": {"seen": {"type": "string"}}, "required": ["seen"]})


def request(*, schema: RecordSchema | None = None, images: list[str] | None = None) -> Request:
    body = Request(input_method=RequestInputMethod.BASE64, images=images or [picture], prompt="Which number?")
    if schema is not None:
        body.schema = schema
    return body


def finished(accepted: object) -> Job:
    assert isinstance(accepted, Job), accepted
    job: object = accepted
    while isinstance(job, Job) and job.finished_at is None:
        job = get_job.sync(accepted.id, client=client, wait=30)
    assert isinstance(job, Job), job
    return job


plain = finished(post_jobs.sync(client=client, body=request(), request_source="generated"))
result = get_job_results.sync(plain.id, client=client)
assert isinstance(result, Result), result

records = finished(post_jobs.sync(client=client, body=request(schema=schema, images=[picture, "bm8gaW1hZ2U="])))
items = get_job_items.sync(records.id, client=client)
assert isinstance(items, ItemList), items

file = File(payload=io.BytesIO(base64.b64decode(picture)), file_name="seven.png", mime_type="image/png")
form = Form(images=[file], prompt="Which number?", granularity=Granularity.PERIMAGE, custom_ids=["seven"], schema=schema)
uploaded = finished(post_jobs.sync(client=client, body=form))

per_image = request()
per_image.granularity = Granularity.PERIMAGE
each = finished(post_jobs.sync(client=client, body=per_image))
waited = post_extract_image.sync(client=client, body=request())
assert isinstance(waited, Result), waited
estimate = post_extract_image_estimate.sync(client=client, body=request(schema=schema, images=[picture, picture]))
assert isinstance(estimate, Estimate), estimate
unknown = get_job.sync("job_none", client=client)
assert isinstance(unknown, Error), unknown
stranger = AuthenticatedClient(base_url=url, token="none")
refused = post_jobs.sync_detailed(client=stranger, body=request())

print(
    json.dumps(
        {
            "plain": [plain.status, result.results, result.credit_usage],
            "records": [records.status, *([item.status, item.code, item.result] for item in items.items)],
            "each": each.status,
            "uploaded": uploaded.status,
            "waited": waited.results,
            "estimate": estimate.credits_,
            "unknown": unknown.code,
            "refused": [refused.status_code, refused.headers["X-Error-Code"]],
        }
    )
)
