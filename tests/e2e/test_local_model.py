"""`extract-image serve` with a model of one's own: an OpenAI-compatible server on this machine."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from testbed import Service, serving
from tests.fakes.gemini import numbered_picture
from tests.fakes.openai import FakeOpenAI

pytestmark = pytest.mark.xdist_group("serve")

SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}


def settings(fake: FakeOpenAI, **others: str) -> dict[str, str]:
    return {
        "ENGINE": "openai",
        "OPENAI_BASE_URL": fake.base_url,
        "OPENAI_API_KEY": fake.key,
        "MODEL": fake.models[0],
        **others,
    }


def body(*kinds: str, **fields: object) -> dict[str, object]:
    images = [base64.b64encode(numbered_picture(n, format=kind)).decode() for n, kind in enumerate(kinds, start=1)]
    return {"inputMethod": "base64", "images": images, "prompt": "Which number?", **fields}


def test_records_of_pictures_of_every_kind_come_from_the_local_model(tmp_path: Path) -> None:
    models = "vision:7b in=1 out=2"
    with FakeOpenAI(without={"json_schema"}) as fake, serving(tmp_path, **settings(fake, MODELS=models)) as service:
        kinds = ("PNG", "JPEG", "HEIC", "WEBP", "TIFF")
        status, _, answer = service.extract(body(*kinds, granularity="perImage", schema=SCHEMA))
        assert status == 200, answer
        records = json.loads(answer["results"])
        assert [record["result"]["number"] for record in records] == [1, 2, 3, 4, 5]
        assert set(fake.calls[0].mimes) == {"image/png", "image/jpeg"}
        assert fake.faults == fake.refused == []
        service.wait_for(lambda: not service.scratch())


def is_away(service: Service) -> bool:
    _, _, ready = service.send("GET", "/readyz")
    return bool(ready["checks"]["model"] == "away")


def test_a_wrong_key_stops_the_calls_and_is_said_in_readyz_and_on_the_job_which_ends_at_its_deadline(tmp_path: Path) -> None:
    wrong = {"OPENAI_API_KEY": "sk-a-wrong-key-of-mine", "MERGED_PER_CALL": "1"}
    with FakeOpenAI() as fake, serving(tmp_path, **settings(fake, **wrong)) as service:
        status, headers, _ = service.extract(body("PNG", "PNG", deadlineSeconds=10), {"Prefer": "respond-async"})
        assert status == 202
        service.wait_for(lambda: is_away(service))
        _, _, ready = service.send("GET", "/readyz")
        assert "HTTP 401" in ready["details"]["model"]
        job = service.follow(headers["location"])
        assert (job["status"], job["error"]["code"]) == ("failed", "deadline_exceeded")
        assert [("HTTP 401" in warning, "sk-" in warning) for warning in job["warnings"]] == [(True, False)]
        assert service.balance()["held"] == service.balance()["charged"] == 0
        assert "sk-a-wrong-key" not in service.log()
        service.wait_for(lambda: service.scratch() == [])
