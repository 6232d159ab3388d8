"""Measures how much of a quota of 60 calls a minute 4 busy worker processes use, and how many 429 answers they get.

The fake model counts the calls of the last 60 s. It answers calls over the quota with a 429 that says when there is room. The
bench leaves out the first minute, because the schedule settles in it.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

from bench.report import at_least, at_most, print_report, spread
from storage.redis.embedded import EmbeddedRedis
from testbed import Behaviour, FakeGemini, Production, SeenCall, numbered_picture, rate_limited

QUOTA, PROCESSES, LATENCY = 60, 4, 1.0


class Quota:
    """A script for FakeGemini that accepts a limited number of calls in any 60 s."""

    def __init__(self, a_minute: int) -> None:
        self.taken: list[float] = []
        self.refused: list[float] = []
        self._a_minute = a_minute
        self._lately: deque[float] = deque()
        self._lock = threading.Lock()

    def __call__(self, _call: SeenCall) -> Behaviour | None:
        with self._lock:
            now = time.monotonic()
            while self._lately and self._lately[0] <= now - 60:
                self._lately.popleft()
            if len(self._lately) >= self._a_minute:
                self.refused.append(now)
                return rate_limited(f"{self._lately[0] + 60 - now:.3f}s")
            self._lately.append(now)
            self.taken.append(now)
            return None


def run(minutes: int, folder: Path) -> tuple[list[float], list[float]]:
    """The answered calls and the 429 answers of each minute except the first."""
    quota = Quota(QUOTA)
    with FakeGemini(latency=LATENCY) as fake, EmbeddedRedis(folder) as redis:
        fake.script = quota
        settings = {
            "REDIS_URL": redis.url,
            "GEMINI_API_KEY": fake.key,
            "GEMINI_BASE_URL": fake.base_url,
            "MODEL_RPM": str(QUOTA),
            "MERGED_PER_CALL": "1",
            "SECRET_KEY": "s" * 40,
        }
        service = Production(folder, settings)
        try:
            service.run("migrate")
            key = service.new_key()
            for name in ("web-1", "supervisor", *(f"worker-{number}" for number in range(PROCESSES))):
                service.start(name)
            client = service.client("web-1", key)
            images = [base64.b64encode(numbered_picture(number)).decode() for number in range((minutes + 2) * QUOTA)]
            body = {"inputMethod": "base64", "images": images, "prompt": "Which number?"}
            assert client.extract(body, {"Prefer": "respond-async"})[0] == 202
            assert fake.wait_for(lambda: bool(quota.taken), 120)
            begun = quota.taken[0]
            time.sleep(max(begun + (minutes + 1) * 60 - time.monotonic(), 0))
        finally:
            service.end()
    ends = [begun + 60 * (minute + 1) for minute in range(minutes)]
    answered = [float(sum(end <= at < end + 60 for at in quota.taken)) for end in ends]
    refused = [float(sum(end <= at < end + 60 for at in quota.refused)) for end in ends]
    return answered, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=5, help="after the first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        answered, refused = run(options.minutes, Path(folder))
    print_report(
        f"A quota of {QUOTA} calls a minute, {PROCESSES} worker processes, model {LATENCY} s; each of {options.minutes} minutes",
        [
            ("calls answered", spread(answered, "a minute", 0), at_least(0.95 * QUOTA)),
            ("of the quota", spread([count / QUOTA for count in answered], "x"), at_least(0.95)),
            ("429s", spread(refused, "a minute", 0), at_most(1)),
        ],
    )


if __name__ == "__main__":
    main()
