"""Makes the fake model misbehave while a fault lasts, and gives the records of its calls."""

from __future__ import annotations

import threading
from typing import Any

from tests.fakes.gemini import Behaviour, FakeGemini, SeenCall
from tests.fakes.gemini_behaviours import GARBAGE, OUT_OF_TOKENS, doubled_records, failing, missing_records, rate_limited

HANG_SECONDS = 40.0  #: longer than the time-out of a call, which is half of STEP_SECONDS (run.py)
#: These modes spoil a call. The service retries such a call only a few times before its images fail. So each picture gets at most
#: one of them in a run.
ONCE = {"500", "garbage", "missing", "doubled", "truncated"}


class Model:
    """Controls a FakeGemini with a script."""

    def __init__(self, fake: FakeGemini) -> None:
        self.fake = fake
        self.mode = ""
        self._spoilt: set[int] = set()
        self._hung: set[int] = set()  # `order` of the calls that hung
        self._lock = threading.Lock()
        fake.script = self._script

    def _script(self, call: SeenCall) -> Behaviour | None:
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

    def calls(self, since: int = 0) -> list[dict[str, Any]]:
        """The calls from index `since` on, as rows."""
        return [
            {"at": call.at, "numbers": list(call.numbers), "outcome": "hung" if call.order in self._hung else call.outcome}
            for call in self.fake.calls[since:]
        ]
