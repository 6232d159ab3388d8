"""Measures what the API process spends on a body of 133 MB with 3000 base64 images until it answers 202."""

from __future__ import annotations

import argparse
import base64
import json
import tempfile
import time
from pathlib import Path

import psutil

from bench.report import at_most, print_report, spread
from testbed import FakeGemini, Service, command_of, numbered_picture, serving

IMAGES = 3000


def front_door(service: Service) -> psutil.Process:
    """The gunicorn worker. It reads the body; its parent process only monitors it."""
    family = psutil.Process(service.process.pid).children(recursive=True)
    web = [(process, command) for process in family if "web" in (command := command_of(process))]
    return next(process for process, command in web if any(process.ppid() == other.pid and command == its for other, its in web))


def memory(process: psutil.Process, field: str) -> int:
    """The bytes of one memory field in /proc/<pid>/status."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    images = [base64.b64encode(numbered_picture(n, format="JPEG", pad_to=33_200)).decode() for n in range(IMAGES)]
    body = json.dumps({"inputMethod": "base64", "images": images, "prompt": "p"}).encode()
    taken, cpu, peaks = [], [], []
    with FakeGemini() as fake, tempfile.TemporaryDirectory() as folder:
        for number in range(runs):
            settings = {"GEMINI_API_KEY": fake.key, "GEMINI_BASE_URL": fake.base_url}
            with serving(Path(folder) / str(number), **settings) as service:
                assert service.extract({"inputMethod": "base64", "images": images[:1], "prompt": "p"})[0] == 200
                process = front_door(service)
                before, at_rest = process.cpu_times(), memory(process, "VmRSS")
                started = time.perf_counter()
                status, headers, _ = service.extract(body, {"Prefer": "respond-async"})
                taken.append(time.perf_counter() - started)
                after = process.cpu_times()
                cpu.append(after.user + after.system - before.user - before.system)
                peaks.append((memory(process, "VmHWM") - at_rest) / len(body))
                assert status == 202
                service.follow(headers["location"])
    print_report(
        f"A body of {len(body) / 1e6:.0f} MB with {IMAGES} base64 images, {runs} runs",
        [
            ("POST to 202", spread(taken, "s"), ""),
            ("the front door's CPU until then", spread(cpu, "s"), at_most(0.5)),
            ("its memory over what it holds at rest, mapped file included", spread(peaks, "x the body"), at_most(1.3)),
        ],
    )


if __name__ == "__main__":
    main()
