"""What environment `serve` gives to its children."""

import os
import socket
import sys

import pytest

from cli import serve
from config.settings import SECRETS

ENVIRONMENT = {name: f"secret {name}" for name in SECRETS} | {f"{name}_FILE": "/secret" for name in SECRETS} | {"PORT": "1"}
SHOW = "import os; open(os.environ['SHOWN'], 'w').write(' '.join(os.environ))"


@pytest.mark.parametrize(
    ("role", "without"),
    [
        ("web", {"GEMINI_API_KEY", "OPENAI_API_KEY"}),
        ("worker", {"METRICS_TOKEN"}),
        ("supervisor", {"GEMINI_API_KEY", "OPENAI_API_KEY", "SECRET_KEY", "METRICS_TOKEN"}),
    ],
)
def test_a_child_is_given_no_secret_that_it_does_not_need(role, without, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "COMMAND", (sys.executable, "-c", SHOW))
    with socket.socket() as listener:
        child = serve.child_of(role, {**ENVIRONMENT, "SHOWN": str(tmp_path / "shown")}, listener, "")
        child.start()
        assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 0
    shown = set((tmp_path / "shown").read_text().split())
    assert {*SECRETS, "PORT"} - shown == without
    assert {f"{name}_FILE" for name in SECRETS} - shown == {f"{name}_FILE" for name in without}
