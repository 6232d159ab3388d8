"""What a run finds out before it sends anything."""

from __future__ import annotations

import io
import json

import httpx2
import pytest

from cli.client import Client
from cli.run.check import check
from cli.run.ending import show_estimate
from cli.run.options import Options
from cli.run.price import price
from cli.run.progress import Reporter
from tests.harness import running


@pytest.fixture
def client(tmp_path):
    with (
        running(tmp_path, workers_count=0) as house,
        Client("http://service.example", house.key, transport=httpx2.WSGITransport(app=house.app)) as made,
    ):
        yield made


def test_a_limit_of_money_that_a_model_without_a_price_cannot_keep_is_named_with_the_ways_out(client, capsys):
    options = Options(paths=("p",), outputs={}, max_money=2.5)
    out = io.StringIO()
    reporter = Reporter(as_json=True, out=out)
    checked = check(client, options, reporter)
    [warning] = [json.loads(line) for line in out.getvalue().splitlines()]
    for words in ("--max-money does not limit this run", "MODELS", "--max-credits"):
        assert words in warning["text"]
    show_estimate(price(client, options, checked, [(False, "a.png", 5)]), checked.warnings, reporter)
    assert json.loads(capsys.readouterr().out)["warnings"] == [warning["text"]]


def test_without_a_limit_of_money_nothing_is_said_about_prices(client):
    assert check(client, Options(paths=("p",), outputs={}), Reporter(quiet=True)).warnings == ()
