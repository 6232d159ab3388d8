"""Uses the client that `openapi-generator` generates for Python. Prints what it saw as JSON.

This generator takes only the first of several bodies of an operation, so its clients send no forms.
"""

from __future__ import annotations

import json
import sys

from extract_image_client import (
    ApiClient,
    ApiException,
    Configuration,
    ExtractApi,
    Granularity,
    Job,
    JobsApi,
    Request,
)

url, key, picture = sys.argv[1:]
client = ApiClient(Configuration(host=url, access_token=key))
jobs, extract = JobsApi(client), ExtractApi(client)
schema = {"type": "object", "properties": {"seen": {"type": "string"}}, "required": ["seen"]}


def finished(body: Request) -> Job:
    accepted = jobs.post_jobs(body, request_source="generated").actual_instance
    assert isinstance(accepted, Job), accepted
    job = accepted
    while job.finished_at is None:
        job = jobs.get_job(accepted.id, wait=30)
    return job


def code_of(error: ApiException) -> str:
    return str(json.loads(error.body or "{}")["code"])


request = Request(inputMethod="base64", images=[picture], prompt="Which number?", jsonMode=True)
plain = finished(Request(inputMethod="base64", images=[picture], prompt="Which number?"))
result = jobs.get_job_results(plain.id)

several = Request(inputMethod="base64", images=[picture, "bm8gaW1hZ2U="], prompt="Which number?", schema=schema)
records = finished(several)
items = jobs.get_job_items(records.id).items

per_image = Request(inputMethod="base64", images=[picture], prompt="Which number?", granularity=Granularity.PERIMAGE)
each = finished(per_image)
waited = extract.post_extract_image(Request(inputMethod="base64", images=[picture], prompt="Which number?"))
estimate = extract.post_extract_image_estimate(several)
try:
    jobs.get_job("job_none")
    raise SystemExit("a job that does not exist was found")
except ApiException as error:
    unknown = code_of(error)
try:
    JobsApi(ApiClient(Configuration(host=url, access_token="none"))).post_jobs(request)
    raise SystemExit("an unknown key was taken")
except ApiException as error:
    refused = [error.status, code_of(error)]

print(
    json.dumps(
        {
            "plain": [plain.status, result.results, result.credit_usage],
            "records": [records.status, *([item.status, item.code, item.result] for item in items)],
            "each": each.status,
            "waited": waited.results,
            "estimate": estimate.credits,
            "unknown": unknown,
            "refused": refused,
        }
    )
)
