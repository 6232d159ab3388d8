"""The tools for agents, called by a real MCP client: in one process with the service, and once over stdio with the real command."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from mcp import Client as McpClient
from mcp import StdioServerParameters
from werkzeug.serving import make_server

from cli.agents.server import build_server
from cli.client import Client
from pipeline.models import Model
from pipeline.types import Answer, Finish, ItemCode
from tests.fakes.engine import FakeEngine
from tests.fakes.picture_files import encoded, photo
from tests.harness import running

PNG = encoded(photo(), "PNG")
TOOLS = {"extract", "estimate", "get_job", "list_failed", "retry", "usage"}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    engine = FakeEngine(script=lambda call, number: SCRIPT[0](call, number) if SCRIPT else None)
    with running(tmp_path_factory.mktemp("service"), engine=engine) as made:
        yield made


SCRIPT: list = []


@contextmanager
def scripted(script):
    SCRIPT.append(script)
    try:
        yield
    finally:
        SCRIPT.clear()


@pytest.fixture
def client(house):
    transport = httpx2.WSGITransport(app=house.app)
    with Client("http://service.example", house.key, patience=0, busy_patience=0, transport=transport) as made:
        yield made


@pytest.fixture
def call(client):
    """Calls a tool in a session of its own. Returns the structured answer, or the error's text."""

    async def session(tool, arguments):
        async with McpClient(build_server(client)) as agent:
            result = await agent.call_tool(tool, arguments)
            return result.content[0].text if result.is_error else result.structured_content

    return lambda tool, **arguments: asyncio.run(session(tool, arguments))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "Beleg ü.png"
    path.write_bytes(PNG)
    return path


def test_the_tools_have_schemas_of_what_they_take_and_give(client):
    async def listed():
        async with McpClient(build_server(client)) as agent:
            return (await agent.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(listed())}
    assert set(tools) == TOOLS
    assert {"prompt", "maxCredits"} == set(tools["extract"].input_schema["required"])
    assert all(tool.description and tool.output_schema for tool in tools.values())
    assert all(tool.input_schema["additionalProperties"] is False for tool in tools.values())
    assert {name for name, tool in tools.items() if tool.annotations.read_only_hint} == TOOLS - {"extract", "retry"}


def test_urls_give_an_answer_for_each_image_and_say_that_nothing_is_left_to_do(house, call):
    answer = call("extract", prompt="p", maxCredits=12, urls=house.urls(2))
    assert (answer["status"], answer["credits"], answer["total"]) == ("succeeded", 12, 2)
    assert [(image["index"], image["result"]) for image in answer["images"]] == [(0, "img0"), (1, "img1")]
    assert "Nothing is left" in answer["nextStep"]


def test_a_merged_answer_is_one_text(house, call):
    answer = call("extract", prompt="p", maxCredits=12, urls=house.urls(2), granularity="merged")
    assert answer["merged"] == "1=img0\n2=img1"


def test_a_schema_gives_a_record_for_each_image(house, call):
    schema = {"type": "object", "properties": {"saw": {"type": "string"}}, "required": ["saw"]}
    answer = call("extract", prompt="p", maxCredits=11, urls=house.urls(1), schema=schema)
    assert answer["images"][0]["result"] == {"saw": "img0"}


def test_with_evidence_each_image_names_the_values_that_do_not_stand_in_it(house, call):
    answer = call("extract", prompt="p", maxCredits=11, urls=house.urls(1), evidence=True)
    image = answer["images"][0]
    assert (image["unsupported"], image["evidenceError"], image["needsReview"]) == ([], None, False)
    assert "not sent" not in call("estimate", prompt="p", urls=house.urls(1), evidence=True)
    plain = call("extract", prompt="p", maxCredits=11, urls=house.urls(1))["images"][0]
    assert (plain["unsupported"], plain["needsReview"]) == (None, None)


def test_images_in_the_call_are_uploaded_under_their_names(call):
    inline = [{"name": "a.png", "data": base64.b64encode(b"img a").decode()}]
    answer = call("extract", prompt="p", maxCredits=11, inline=inline)
    assert [(image["name"], image["result"]) for image in answer["images"]] == [("a.png", "img a")]


def test_failed_images_of_an_upload_are_listed_and_retried(call):
    inline = [{"name": f"{name}.png", "data": base64.b64encode(f"img {name}".encode()).decode()} for name in "ab"]

    def refuse_b(call, _number):
        if any(picture.data == b"img b" for picture in call.pictures):
            return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY")
        return None

    with scripted(refuse_b):
        answer = call("extract", prompt="p", maxCredits=12, inline=inline)
    assert (answer["status"], answer["failed"]) == ("partial", 1)
    assert answer["nextStep"].startswith("1 image failed, and says why. If the cause has passed")
    assert "retry" in answer["nextStep"]
    [failed] = call("list_failed", jobId=answer["jobId"])["images"]
    assert (failed["name"], failed["code"]) == ("b.png", "safety_blocked")
    assert call("retry", jobId=answer["jobId"])["status"] == "succeeded"
    assert "inputs_gone" not in call("retry", jobId=answer["jobId"])
    assert call("get_job", jobId=answer["jobId"])["succeeded"] == 2


def test_a_job_with_many_images_is_read_in_parts(house, call):
    answer = call("extract", prompt="p", maxCredits=70, urls=house.urls(60))
    assert len(answer["images"]) == 50
    assert "firstIndex 50" in answer["nextStep"]
    rest = call("get_job", jobId=answer["jobId"], firstIndex=50)
    assert [image["index"] for image in rest["images"]] == list(range(50, 60))


def test_a_call_that_does_not_wait_says_how_to_go_on(house, call):
    waiting = threading.Event()
    with scripted(lambda _call, _number: waiting.wait(30) and None):
        answer = call("extract", prompt="p", maxCredits=11, urls=house.urls(1), waitSeconds=0)
        assert answer["status"] in {"queued", "running"}
        assert f"get_job with jobId {answer['jobId']}" in answer["nextStep"]
        waiting.set()
        assert call("get_job", jobId=answer["jobId"])["status"] == "succeeded"


def test_an_estimate_and_the_usage_cost_nothing(house, call):
    before = call("usage")
    reckoned = call("estimate", prompt="p", urls=house.urls(3))
    assert (reckoned["images"], reckoned["credits"]) == (3, 13)
    assert call("usage") == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"maxCredits": 5, "urls": ["https://a.example/"]}, "Next: Call extract again with a higher maxCredits"),
        ({"maxCredits": 11}, "exactly one of urls, paths and inline"),
        ({"maxCredits": 11, "urls": ["https://a.example/"], "paths": ["/a.png"]}, "exactly one of urls, paths and inline"),
        ({"maxCredits": 11, "paths": ["/no/such.png"]}, "can't be read: No such file"),
        ({"maxCredits": 11, "paths": ["/"]}, "is a folder"),
        ({"maxCredits": 11, "paths": ["/dev/zero"]}, "not a regular file"),
        ({"maxCredits": 11, "paths": [__file__]}, "not an image"),
        ({"maxCredits": 11, "paths": ["a\x00b"]}, "can't be read"),
        ({"maxCredits": 11, "inline": [{"name": "a", "data": "?"}]}, "not valid base64"),
        ({"maxCredits": 11, "urls": ["https://a.example/"], "model": "none"}, "model must be one of"),
        ({"urls": ["https://a.example/"]}, "maxCredits"),
    ],
    ids=range(11),
)
def test_an_error_says_what_to_do_next(call, arguments, said):
    assert said in call("extract", prompt="p", **arguments)


def test_a_job_of_the_tier_economy_is_named_to_the_user_and_not_waited_for(house, call):
    house.models["fake-3"] = Model(name="fake-3", price_in=1.0, price_out=10.0, flex=0.5)
    reckoned = call("estimate", prompt="p", urls=house.urls(1), tier="economy", model="fake-3")
    assert (
        reckoned["moneyByTier"]["economy"]
        == reckoned["money"]
        == pytest.approx(reckoned["moneyByTier"]["standard"] / 2, rel=0.01)
    )
    answer = call(
        "extract",
        prompt="p",
        maxCredits=11,
        urls=house.urls(1),
        tier="economy",
        deadlineSeconds=7200,
        model="fake-3",
        waitSeconds=0,
    )
    assert "may take until its deadline. Tell the user the jobId" in answer["nextStep"]
    asked = house.get(f"/api/v1/jobs/{answer['jobId']}/request").json
    assert (asked["tier"], asked["deadlineSeconds"]) == ("economy", 7200)
    assert call("get_job", jobId=answer["jobId"])["status"] == "succeeded"


@pytest.mark.parametrize(
    "asked",
    [{"tier": "economy"}, {"deadlineSeconds": 43_201}, {"deadlineSeconds": 9}, {"tier": "economy", "deadlineSeconds": 86_401}],
)
def test_a_tier_or_a_time_that_the_service_refuses_is_refused_with_the_same_words(house, call, asked):
    body = {"inputMethod": "url", "images": house.urls(1), "prompt": "p", "granularity": "perImage", **asked}
    refused = house.post(body)
    assert refused.status_code == 400
    code = refused.headers["X-Error-Code"]
    assert code == ("invalid_deadline_seconds" if "deadlineSeconds" in asked else "invalid_tier")
    for tool, limit in (("extract", {"maxCredits": 11}), ("estimate", {})):
        assert f"{refused.json['error']} ({code}) Next:" in call(tool, prompt="p", urls=house.urls(1), **limit, **asked)


def test_an_unknown_argument_is_named_with_the_known_ones_and_nothing_is_done(house, call):
    before = call("usage")
    said = call("extract", prompt="p", maxCredits=12, urls=house.urls(1), max_money=0.01, languge="de")
    assert "extract has no argument max_money (is it maxMoney?), languge, so nothing was done" in said
    assert "Its arguments are: prompt, maxCredits, urls, paths, inline, schema" in said
    assert "get_job has no argument job_id (is it jobId?)" in call("get_job", job_id="job_1")
    assert "nam" in call("extract", prompt="p", maxCredits=11, inline=[{"name": "a", "data": "aGk=", "nam": "b"}])
    assert call("usage") == before


def test_a_file_is_too_large_before_it_is_sent(call, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(PNG)
    os.truncate(large, 21 << 20)
    assert "20 MB each" in call("extract", prompt="p", maxCredits=11, paths=[str(large)])


def test_a_wrong_job_and_a_wrong_key_are_explained(house, call):
    assert "the one that extract returned" in call("get_job", jobId="job_none")

    async def session():
        with Client("http://service.example", "wrong", transport=httpx2.WSGITransport(app=house.app)) as stranger:
            async with McpClient(build_server(stranger)) as agent:
                return (await agent.call_tool("usage", {})).content[0].text

    assert "EXTRACT_IMAGE_KEY" in asyncio.run(session())


def test_the_command_serves_over_stdio_and_reads_files(house, picture):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        web = make_server("127.0.0.1", 0, house.app, threaded=True, fd=listening.fileno())
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        command = StdioServerParameters(
            command=str(Path(sys.executable).parent / "extract-image"),
            args=["mcp"],
            env={"EXTRACT_IMAGE_URL": url, "EXTRACT_IMAGE_KEY": house.key, "PATH": os.environ["PATH"]},
        )

        async def session():
            async with McpClient(command) as agent:
                return await agent.call_tool("extract", {"prompt": "p", "maxCredits": 11, "paths": [str(picture)]})

        try:
            answer = asyncio.run(session())
        finally:
            web.shutdown()
            web.server_close()
    [image] = answer.structured_content["images"]
    assert image["name"] == "Beleg ü.png"
