"""Requests as people send them by mistake. docs/reference/mistakes.md has the answer to each.

`python -m tests.component.api.mistakes` prints the rows of that page, to be read before they are put there.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from tests.harness import Harness, b64, running

MAIN = "/api/v1/extract-image"
JOBS = "/api/v1/jobs"
PICTURE = b64(b"img of a receipt, long enough to be known as base64")
BODY = {"inputMethod": "base64", "images": [PICTURE], "prompt": "What is the total?"}
URL = {"inputMethod": "url", "images": ["https://pictures.example/1"], "prompt": "What is the total?"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """A request that is wrong in one way."""

    method: str = "POST"
    path: str = JOBS
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None  #: sent as JSON if it is no bytes
    form: dict[str, Any] | None = None  #: sent as multipart/form-data
    key: bool = True  #: the request has a valid key
    expired: bool = False  #: the path's job is one whose results have expired


def body(**fields: Any) -> Mistake:
    """A request by base64 with these fields. A field that is None is left out."""
    return Mistake(body={name: value for name, value in {**BODY, **fields}.items() if value is not None})


def by_url(*images: Any, **fields: Any) -> Mistake:
    return Mistake(body={**URL, "images": list(images), **fields})


def schema(value: Any) -> Mistake:
    return body(schema=value)


def raw(text: str | bytes, media_type: str = "application/json") -> Mistake:
    return Mistake(body=text.encode() if isinstance(text, str) else text, headers={"Content-Type": media_type})


def unauthorized(**headers: str) -> Mistake:
    return Mistake(body=BODY, key=False, headers={name.replace("_", "-"): value for name, value in headers.items()})


def to(path: str, method: str = "POST") -> Mistake:
    return Mistake(method=method, path=path, body=BODY if method == "POST" else None)


def file(name: str, content: bytes = b"img") -> dict[str, Any]:
    return {name: (BytesIO(content), "receipt.jpg")}


MISTAKES: dict[str, Mistake] = {
    # Images
    "base64 sent as URL": by_url(PICTURE),
    "the base64 of a PNG sent as URL": by_url("iVBORw0KGgoAAAAN"),
    "a URL sent as base64": body(images=["https://pictures.example/1"]),
    "a file name sent as URL": by_url("receipt.jpg"),
    "a local path sent as URL": by_url("/home/anna/receipt.jpg"),
    "a Windows path sent as URL": by_url("C:\\Users\\anna\\receipt.jpg"),
    "a file: URL": by_url("file:///home/anna/receipt.jpg"),
    "a file name sent as base64": body(images=["receipt.jpg"]),
    "a URL without its scheme": by_url("www.pictures.example/1.jpg"),
    "an s3: URL": by_url("s3://bucket/receipt"),
    "a private address as image URL": by_url("http://192.168.0.7/receipt.jpg"),
    "an image URL with a port": by_url("http://pictures.example:8080/receipt.jpg"),
    "URL-safe base64": body(images=["-_-_"]),
    "base64 without its padding": body(images=["aW0"]),
    "only empty strings as images": body(images=["", ""]),
    "images as one string": body(images=PICTURE),
    "images as objects": by_url({"url": "https://pictures.example/1"}),
    "images as OpenAI writes them": by_url({"type": "image_url", "image_url": {"url": "https://pictures.example/1"}}),
    "null among the images": body(images=[PICTURE, None]),
    "no images": body(images=[]),
    # Fields
    "image_urls": Mistake(body={"inputMethod": "url", "image_urls": ["https://pictures.example/1"], "prompt": "p"}),
    "imageUrls": Mistake(body={"inputMethod": "url", "imageUrls": ["https://pictures.example/1"], "prompt": "p"}),
    "input_method": body(inputMethod=None, input_method="base64"),
    "inputmethod": body(inputMethod=None, inputmethod="base64"),
    "question instead of prompt": body(prompt=None, question="What is the total?"),
    'inputMethod "file"': body(inputMethod="file"),
    "perImage: true": body(perImage=True),
    "json_mode": body(json_mode=True),
    "webhook": body(webhook="https://receiver.example/hook"),
    "webhook_url": body(webhook_url="https://receiver.example/hook"),
    "max_credits and a made-up field": body(max_credits=5, colour="red"),
    "requestSource in the body": body(requestSource="API"),
    "jsonMode as a number": body(jsonMode=1),
    "granularity in lower case": body(granularity="perimage"),
    "a webhook to localhost": body(webhookUrl="http://localhost/hook"),
    "a webhook to a local port": body(webhookUrl="http://localhost:3000/hook"),
    "a webhook to a private address": body(webhookUrl="http://10.0.0.5/hook"),
    # Schemas
    "an empty schema": schema({}),
    "a schema of names and types": schema({"shop": "string"}),
    "properties of names and types": schema({"type": "object", "properties": {"total": "float"}}),
    '"type": "float"': schema({"type": "object", "properties": {"total": {"type": "float"}}}),
    '"type": "STRING"': schema({"type": "object", "properties": {"shop": {"type": "STRING"}}}),
    "required: true in a property": schema({"type": "object", "properties": {"shop": {"type": "string", "required": True}}}),
    "a schema of an unknown dialect": schema({"$schema": "http://json-schema.org/draft-03/schema#", "type": "object"}),
    "an array of items in today's dialect": schema({"type": "array", "items": [{"type": "string"}]}),
    "a pattern that cannot be read": schema({"type": "string", "pattern": "("}),
    "a pattern with look-ahead": schema({"properties": {"total": {"type": "string", "pattern": "^(?!0)[0-9]+$"}}}),
    # Bodies
    "a form instead of JSON": raw("inputMethod=url&images=https%3A%2F%2Fa.example&prompt=p", "application/x-www-form-urlencoded"),
    "an image as body": raw(b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"),
    "an octet stream as body": raw(b"\x89PNG\r\n\x1a\n", "application/octet-stream"),
    "an empty body": raw(b" "),
    "a comma at the end": raw('{"inputMethod": "url",\n "prompt": "p",\n}'),
    "single quotes": raw("{'inputMethod': 'url'}"),
    "names without quotes": raw('{inputMethod: "url"}'),
    "Python's True": raw('{"jsonMode": True}'),
    "a body that is cut off": raw('{"inputMethod": "url", "images": ["https://pict'),
    "an array as body": raw("[]"),
    "a form with the Content-Type of JSON": raw(b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\np\r\n--x--'),
    "a form without files": Mistake(form={"prompt": "p"}),
    "files under another name": Mistake(form={"prompt": "p", **file("photo")}),
    "a file's path without @": Mistake(form={"prompt": "p", "images": "receipt.jpg"}),
    # Keys
    "no key": unauthorized(),
    "a key without Bearer": unauthorized(Authorization="xim_abc"),
    "Basic instead of Bearer": unauthorized(Authorization="Basic eDp5"),
    "the key as X-API-Key": unauthorized(X_API_Key="xim_abc"),
    "the key in the query": Mistake(path=f"{JOBS}?key=xim_abc", body=BODY, key=False),
    "a key without Bearer at the compatible endpoint": Mistake(
        path=MAIN, body=BODY, key=False, headers={"Authorization": "xim_abc"}
    ),
    # Addresses
    "/v2": to("/v2/extract-image"),
    "/api/extract-image": to("/api/extract-image"),
    "/api/v1/extract_image": to("/api/v1/extract_image"),
    "/api/v1/job": to("/api/v1/job", "GET"),
    "/v1/chat/completions": to("/v1/chat/completions"),
    "/api/v1/ocr": to("/api/v1/ocr"),
    "a letter missing in an address": to("/api/v1/jobs/abc/result", "GET"),
    "an address that is like none": to("/login", "GET"),
    "GET instead of POST": to("/api/v1/extract-image/estimate", "GET"),
    "PUT instead of POST": to("/api/v1/extract-image", "PUT"),
    "retry of an expired job": Mistake(path="/retry", expired=True),
    "results of an expired job": Mistake(method="GET", path="/results", expired=True),
}


def prepared(house: Harness) -> str:
    """The id of a job that has expired."""
    job: str = house.ask("POST", JOBS, json=BODY).json["id"]  # type: ignore[index]
    house.drain()
    house.make_expired()
    return job


def answer_to(house: Harness, mistake: Mistake, expired: str) -> tuple[int, str]:
    """The status of the answer and its text. For a job that was accepted: 202 and its warnings, or its error."""
    options: dict[str, Any] = {"headers": {"Content-Type": "application/json", **mistake.headers}}
    if mistake.form is not None:
        forms = {
            name: (BytesIO(part[0].getvalue()), part[1]) if isinstance(part, tuple) else part
            for name, part in mistake.form.items()
        }
        options = {"data": forms, "content_type": "multipart/form-data"}
    elif mistake.body is not None:
        options["data"] = mistake.body if isinstance(mistake.body, bytes) else json.dumps(mistake.body)
    path = f"{JOBS}/{expired}{mistake.path}" if mistake.expired else mistake.path
    send = house.ask if mistake.key else lambda method, to_, **rest: house.client.open(to_, method=method, **rest)
    answer = send(mistake.method, path, **options)
    sent: dict[str, Any] = answer.json
    if answer.status_code != 202:
        return answer.status_code, sent["error"]
    house.drain()
    job: dict[str, Any] = house.get(f"{JOBS}/{sent['id']}").json  # type: ignore[assignment]
    return 202, job["error"]["message"] if job["error"] else " ".join(job["warnings"])


def row(name: str, status: int, text: str) -> str:
    """A row of the page."""
    shown = text.replace("|", "\\|").replace("\n", " ")
    return f"| {name} | {status} | `{shown}` |"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), workers_count=0) as service:
        gone = prepared(service)
        for title, each in MISTAKES.items():
            sys.stdout.write(f"{row(title, *answer_to(service, each, gone))}\n")
