"""msgspec builds what it knows of a type at the first decode. Another thread may then read it half built, and the process dies."""

import ast
import subprocess
import sys

import pytest

from testbed import ROOT

FIRST_DECODES = """
import socket, sys, threading
from pipeline.engines.gemini_wire import read_response
from pipeline.engines.ocr.wire import Barcode, OcrLine, OcrReply, OcrRequest, receive, send
from storage.job.questions import question_of

ANSWER = b'{"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 1}}'
corner = [[0, 0], [1, 0], [1, 1], [0, 1]]
reading = OcrReply(
    kind="reading",
    lines=(OcrLine(text="x", box=corner, confidence=0.5),),
    barcodes=(Barcode(format="QRCode", text="x", box=corner),),
)
sys.setswitchinterval(1e-6)
together = threading.Barrier(8)

def first():
    here, there = socket.socketpair()
    send(here, reading)
    send(here, OcrRequest(kind="status"))
    together.wait()
    read_response(ANSWER)
    together.wait()
    receive(there, OcrReply)
    receive(there, OcrRequest)
    together.wait()
    question_of("what", {"detail": "high", "thinking": "low", "form": "text"})

threads = [threading.Thread(target=first) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("alive")
"""


@pytest.mark.parametrize("process", range(3))
def test_threads_that_decode_their_first_answers_at_once_do_not_kill_the_process(process: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_DECODES], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), f"process {process}: {done.stderr}"


def _decoders_made_at_import(tree: ast.Module) -> set[str]:
    """The names of the types for which a module makes a decoder outside of its functions."""
    outside = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    calls = [call for node in outside for call in ast.walk(node) if isinstance(call, ast.Call)]
    return {ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func).endswith("Decoder") and call.args}


@pytest.mark.parametrize("folder", ["api", "cli", "config", "pipeline", "storage", "workers"])
def test_a_type_is_decoded_by_what_was_built_at_import(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        built = _decoders_made_at_import(tree)
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if name in {"msgspec.json.decode", "msgspec.msgpack.decode"}:
                kinds = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == "type"]
                assert not kinds, f"{path}:{call.lineno} decodes {kinds[0]} without a decoder made at import"
            if name == "msgspec.convert":
                assert ast.unparse(call.args[1]) in built, (
                    f"{path}:{call.lineno} converts a type that has no decoder made at import"
                )
