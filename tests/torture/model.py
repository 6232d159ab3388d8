"""Makes the fake model misbehave while a fault lasts, and gives the records of its calls."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from tests.fakes.gemini import Behaviour, FakeGemini, SeenCall
from tests.fakes.gemini_behaviours import GARBAGE, OUT_OF_TOKENS, doubled_records, failing, missing_records, rate_limited
from tests.fakes.openai import FakeOpenAI

HANG_SECONDS = 40.0  #: longer than the time-out of a call, which is half of STEP_SECONDS (run.py)
#: These modes spoil a call. The service retries such a call only a few times before its images fail. So each picture gets at most
#: one of them in a run.
SIMPLE = {"429", "503"}  #: the modes of the other fake
ONCE = {"500", "garbage", "missing", "doubled", "truncated"}


class Model:
    """Controls the fakes of Gemini and of an OpenAI-compatible server with a script."""

    def __init__(self, fake: FakeGemini, other: FakeOpenAI) -> None:
        self.fake = fake
        self.other = other
        self.hits: Counter[str] = Counter()  #: mode → calls that it met
        self.mode = ""
        self._spoilt: set[int] = set()
        self._hung: set[int] = set()  # `order` of the calls that hung
        self._others: dict[int, str] = {}  # `order` of a call of the other fake → its mode
        self._lock = threading.Lock()
        fake.script = self._script
        other.script = self._script_of_other

    def _script_of_other(self, call: SeenCall) -> Behaviour | None:
        mode = self.mode
        if mode not in SIMPLE:
            return None
        self.hits[mode] += 1
        self._others[call.order] = "hung" if mode == "hang" else f"http {mode}"
        return Behaviour(delay=HANG_SECONDS) if mode == "hang" else failing(int(mode))

    def _script(self, call: SeenCall) -> Behaviour | None:
        behaviour = self._spoiled(call)
        if behaviour:
            self.hits[self.mode] += 1
        return behaviour

    def _spoiled(self, call: SeenCall) -> Behaviour | None:
        mode = self.mode
        if mode == "429":
            return rate_limited("2s")
        if mode == "503":
            return failing(503)
        if mode == "hang":
            self._hung.add(call.order)
            return Behaviour(delay=HANG_SECONDS)
        if mode not in ONCE:
            return None
        numbers = {number for number in call.numbers if number is not None}
        with self._lock:
            if numbers & (self._spoilt | self.fake.blocked) or (mode == "truncated" and len(numbers) < 2):
                return None  # if the answer for a single picture is too long, that picture fails; so such calls are spared
            self._spoilt |= numbers
        labels = [label for label in call.labels if label is not None]
        if mode == "500":
            return failing(500)
        if mode == "truncated":
            return OUT_OF_TOKENS
        if mode == "garbage" or call.form != "records":
            return GARBAGE
        return (missing_records if mode == "missing" else doubled_records)(*labels[::3])

    def calls(self, since: float = 0.0) -> list[dict[str, Any]]:
        """The calls from this time on, by time.monotonic(), as rows."""
        rows = [
            {"at": call.at, "numbers": list(call.numbers), "outcome": "hung" if call.order in self._hung else str(call.outcome)}
            for call in self.fake.calls
        ]
        rows += [
            {"at": call.at, "numbers": list(call.numbers), "outcome": self._others.get(call.order, "complete")}
            for call in self.other.calls
        ]
        return [row for row in rows if row["at"] >= since]
