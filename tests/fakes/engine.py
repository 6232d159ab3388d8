"""A model in memory. The pictures' bytes and a script decide its answers."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable

from pipeline.ports import EngineLimits
from pipeline.types import Answer, Call, Finish, Form

Script = Callable[[Call, int], Answer | Exception | None]


class FakeEngine:
    """Answers each call in the form that it asks for. `script(call, number)` may give another answer or an exception instead."""

    name = "fake"
    model = "fake-1"
    warnings: tuple[str, ...] = ()

    def __init__(self, *, pictures: int = 50, raw_bytes: int = 14_000_000, script: Script | None = None) -> None:
        self.limits = EngineLimits(pictures=pictures, raw_bytes=raw_bytes)
        self.calls: list[Call] = []
        self.learnt: dict[str, int] = {}  #: by model: the most pictures that it was told of
        self._script = script or (lambda _call, _number: None)
        self._lock = threading.Lock()

    def ask(self, call: Call) -> Answer:
        with self._lock:
            self.calls.append(call)
            number = len(self.calls)
        special = self._script(call, number)
        if isinstance(special, Exception):
            raise special
        return special or Answer(
            finish=Finish.COMPLETE,
            text=answer_text(call),
            input_tokens=10,
            output_tokens=2,
            model_version=f"{call.model or self.model}.0",
        )

    def most_pictures(self, model: str) -> int:
        return min(self.learnt.get(model, self.limits.pictures), self.limits.pictures)

    def learn_pictures(self, model: str, most: int) -> None:
        self.learnt[model] = most

    def close(self) -> None:
        """Does nothing, because the fake holds no resources."""


def answer_text(call: Call) -> str:
    """The answer of an obedient model: each picture's bytes under its label.

    For a call without pictures, it repeats what the prompt says of pictures.
    """
    if not call.pictures:
        return _retold(call)
    if call.form is Form.RECORDS:
        said = [
            {"index": p.number, "result": {"saw": p.data.decode()} if call.json_mode else p.data.decode()} for p in call.pictures
        ]
        return json.dumps(said)
    if call.form is Form.JSON:
        return json.dumps([{"label": p.number, "saw": p.data.decode()} for p in call.pictures])
    return "\n".join(f"{p.number}={p.data.decode()}" for p in call.pictures)


def _retold(call: Call) -> str:
    if call.form is Form.JSON:
        return json.dumps([entry for line in call.prompt.splitlines() if line.startswith("[") for entry in json.loads(line)])
    return "\n".join(line for line in call.prompt.splitlines() if re.fullmatch(r"\d+=.*", line))
