"""Makes the bodies of requests, and reads the answers."""

from __future__ import annotations

import base64
import io
import json
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tests.fakes.gemini import numbered_picture
from tests.torture.entry import OPENAI_MODEL
from tests.torture.planned_jobs import Job

TEXT = re.compile(r"^Image (\d+) shows (\d+)\.$", re.MULTILINE)
NUMBER = re.compile(r"\d+")
FORM_FIELDS: dict[str, dict[str, Any]] = {"text": {}, "json": {"jsonMode": True}, "records": {"granularity": "perImage"}}
OCR_MODEL = "rapidocr-ppocrv6"
MODELS = {"openai": OPENAI_MODEL, "ocr": OCR_MODEL}

Row = dict[str, Any]
Body = tuple[bytes, str]  #: the bytes and their content type


def picture(job: Job, number: int) -> bytes:
    return _printed(number) if job.engine == "ocr" else numbered_picture(number)


def _printed(number: int) -> bytes:
    """A picture of the number as text, for the OCR engine."""
    image = Image.new("RGB", (320, 80), "white")
    ImageDraw.Draw(image).text((20, 15), str(number), fill="black", font=ImageFont.load_default(44))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def body_of(job: Job, phase: str, try_: int, *, datas: list[bytes], page: Callable[[int, bytes], str], hook: str) -> Body:
    """The body of a request. `page(number, data)`: puts a picture on the web and gives its URL."""
    fields: dict[str, Any] = {
        "prompt": f"What is it? ({phase})",  # the answers of one phase must not serve the other
        "metadata": {"phase": phase, "name": job.name, "try": try_},
        **FORM_FIELDS[job.form],
    }
    if job.webhook:
        fields["webhookUrl"] = hook
    if job.engine in MODELS:
        fields["model"] = MODELS[job.engine]
    if job.synthesize:
        fields["merge"] = "synthesize"
    if job.cache:
        fields["cache"] = True
    if job.sent == "files":
        return _form(fields, datas, job)
    if job.sent == "url":
        images = [page(number, data) for number, data in zip(job.numbers, datas, strict=True)]
    else:
        images = [base64.b64encode(data).decode() for data in datas]
    method = "url" if job.sent == "url" else "base64"
    return json.dumps({"inputMethod": method, "images": images, **fields}).encode(), "application/json"


def _form(fields: Mapping[str, Any], datas: list[bytes], job: Job) -> Body:
    mark = uuid.uuid5(uuid.NAMESPACE_URL, job.name).hex
    parts = []
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        parts.append(f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode())
    for number, data in zip(job.numbers, datas, strict=True):
        head = f'--{mark}\r\nContent-Disposition: form-data; name="images"; filename="{number}.png"\r\nContent-Type: image/png\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def read(job: Job, answer: Row) -> Row:
    """Reads the compatible body: the picture number in each image's record, and the code and the message of each failed image."""
    text = answer["results"] or ""
    if job.form == "text":
        found = [[int(label) - 1, int(number)] for label, number in TEXT.findall(text)]
    elif not text:
        found = []
    elif job.form == "json":
        found = [[picture["label"] - 1, picture["number"]] for picture in json.loads(text)["pictures"]]
    else:
        found = [[record["index"], _number(record["result"])] for record in json.loads(text)]
    failed = answer.get("errors", [])
    return {
        "results": found,
        "errors": [[error["index"], error["code"]] for error in failed],
        "messages": [[error["index"], error["message"]] for error in failed],
    }


def _number(said: str) -> int | str:
    found = NUMBER.search(said)
    return int(found[0]) if found else said
