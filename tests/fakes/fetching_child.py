"""A process that fetches URLs one after the other and measures how much its memory grows.

    python -m tests.fakes.fetching_child <a good URL> <URL> ...

It prints a JSON object. `grown` is the difference in bytes between its peak resident memory and its resident memory after two
fetches of the good URL. `outcomes` has the code of each URL's failure, or `fetched`. Linux only.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from pipeline.fetch.fetcher import Fetcher
from pipeline.outbound.addresses import parse_allow
from pipeline.types import MB, Failure


def memory(field: str) -> int:
    """The bytes of one memory field in /proc/self/status."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def main(good: str, *urls: str) -> None:
    fetcher = Fetcher(parse_allow("127.0.0.1/32:*"), deadline=5.0, resolve=lambda *_: ["127.0.0.1"])
    outcomes = []
    for number, url in enumerate([good, good, *urls]):
        if number == 2:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current value
            before = memory("VmRSS")
        [outcome] = fetcher([(0, url)], total=100 * MB, timeout=10.0)
        outcomes.append(outcome.code.value if isinstance(outcome, Failure) else "fetched")
        del outcome
    print(json.dumps({"grown": memory("VmHWM") - before, "outcomes": outcomes[2:]}))  # noqa: T201 - its answer


if __name__ == "__main__":
    main(*sys.argv[1:])
