"""The processes start before what they need is there, and go on when it comes: nothing is started again."""

from __future__ import annotations

import base64
import http.client
import json
from contextlib import ExitStack, closing
from urllib.parse import parse_qs, urlsplit

import pytest

from testbed import Production, eventually, valkey
from tests.fakes.gemini import FakeGemini, numbered_picture
from tests.torture.servers import Proxies

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("production")]

NAMES = ("web-1", "worker-1", "supervisor")
PARTS = ("postgres", "redis", "s3")


@pytest.fixture
def fake():
    with FakeGemini() as server:
        yield server


@pytest.fixture
def proxied(tmp_path, postgres_server, s3, fake):
    """A cluster that has not started, with nothing in its database, and the proxies before its parts, which refuse."""
    with ExitStack() as stack:
        database = stack.enter_context(postgres_server.database())
        redis = stack.enter_context(valkey(tmp_path / "valkey"))
        [folder] = parse_qs(urlsplit(database).query)["host"]
        targets: dict[str, int | str] = {
            "postgres": f"{folder}/.s.PGSQL.5432",
            "redis": urlsplit(redis).port or 0,
            "s3": int(s3.endpoint.rpartition(":")[2]),
        }
        proxies = Proxies(targets, tmp_path / "proxy.log")
        stack.callback(proxies.close)
        for name in PARTS:
            proxies.become(name, "refuse")
        settings = {
            "ENV": "production",
            "ALLOW_ROOT": "1",
            "SECRET_KEY": "0123456789abcdef0123456789abcdef",
            "DATABASE_URL": f"postgresql+psycopg://postgres@127.0.0.1:{proxies.ports['postgres']}{urlsplit(database).path}",
            "REDIS_URL": redis.replace(f":{targets['redis']}/", f":{proxies.ports['redis']}/"),
            **s3.environment(tmp_path.name),
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{proxies.ports['s3']}",
            "ENGINE": "gemini",
            "GEMINI_API_KEY": fake.key,
            "GEMINI_BASE_URL": fake.base_url,
        }
        cluster = Production(tmp_path / "cluster", settings)
        stack.callback(cluster.end)
        yield cluster, proxies


def checks(cluster: Production) -> dict[str, str]:
    """What /readyz says of each of these parts; nothing while the front door does not answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", cluster.ports["web-1"], timeout=10)) as connection:
        try:
            connection.request("GET", "/readyz")
            said = json.loads(connection.getresponse().read())["checks"]
            return {name: said[name] for name in ("database", "redis", "scratch")}
        except (OSError, http.client.HTTPException):
            return {}


@pytest.mark.parametrize("order", [PARTS, tuple(reversed(PARTS))], ids=" ".join)
def test_whatever_starts_first_the_service_is_ready_when_the_last_part_is(proxied, order):
    cluster, proxies = proxied
    for name in NAMES:
        cluster.start(name)
    eventually(lambda: checks(cluster) == {"database": "away", "redis": "away", "scratch": "away"}, 60)
    for part in order:
        proxies.become(part, "pass")
    eventually(lambda: checks(cluster) == {"database": "away", "redis": "ok", "scratch": "ok"}, 60)  # it has no tables yet
    cluster.run("migrate")
    eventually(lambda: set(checks(cluster).values()) == {"ok"}, 60)
    client = cluster.client("web-1", cluster.new_key())
    body = {"inputMethod": "base64", "images": [base64.b64encode(numbered_picture(5)).decode()], "prompt": "p"}
    assert client.extract(body)[2]["results"] == "Image 1 shows 5."
    assert [cluster.processes[name].poll() for name in NAMES] == [None] * len(NAMES)
    eventually(lambda: cluster.scratch() == [])


def test_each_part_that_goes_away_and_comes_back_is_named_and_nothing_is_started_again(proxied):
    """One cluster loses its parts one after the other, because no process may be started again anyway."""
    cluster, proxies = proxied
    for name in PARTS:
        proxies.become(name, "pass")
    cluster.run("migrate")
    for name in NAMES:
        cluster.start(name)
    client = cluster.client("web-1", cluster.new_key())
    for number, (part, named) in enumerate({"postgres": "database", "redis": "redis", "s3": "scratch"}.items()):
        eventually(lambda: set(checks(cluster).values()) == {"ok"}, 60)
        proxies.become(part, "refuse")
        eventually(lambda named=named: [name for name, state in checks(cluster).items() if state == "away"] == [named], 60)
        proxies.become(part, "pass")
        eventually(lambda: set(checks(cluster).values()) == {"ok"}, 60)
        body = {"inputMethod": "base64", "images": [base64.b64encode(numbered_picture(number)).decode()], "prompt": "p"}
        assert client.extract(body)[2]["results"] == f"Image 1 shows {number}.", part
        assert [cluster.processes[name].poll() for name in NAMES] == [None] * len(NAMES), part
    eventually(lambda: cluster.scratch() == [])
