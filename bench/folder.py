"""Measures `extract-image run` on a folder of pictures of 1 MB. The client is killed once in the middle, and the same command goes on."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench.one_image import parts
from bench.report import print_report
from testbed import FakeGemini, Service, numbered_picture

PICTURE_BYTES = 1_000_000
IMAGES_PER_JOB = 100


def make_folder(folder: Path, images: int) -> None:
    folder.mkdir()
    for number in range(images):
        (folder / f"{number:05}.jpg").write_bytes(numbered_picture(number, format="JPEG", pad_to=PICTURE_BYTES))


def started(service: Service, folder: Path) -> subprocess.Popen[str]:
    """Starts the command in the folder. It writes an event as JSON on each line of standard error."""
    command = [sys.executable, "-P", "-m", "cli.main", "run", "p", "--csv", "o.csv", "--images-per-job", str(IMAGES_PER_JOB)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "EXTRACT_IMAGE_URL": service.url,
        "EXTRACT_IMAGE_KEY": service.key,
        "XDG_STATE_HOME": str(folder / "xdg"),
    }
    return subprocess.Popen([*command, "--yes", "--json"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], done: int) -> dict[str, object]:
    """Reads events until `done` images are read, or the command has ended. Returns the last event."""
    event: dict[str, object] = {}
    for line in process.stderr or ():
        event = json.loads(line)
        if int(str(event.get("done", 0))) >= done:
            break
    return event


def lines(path: Path) -> int:
    """The rows of a CSV file without its header. 0 if there is no file."""
    return max(path.read_text(encoding="utf-8-sig").count("\n") - 1, 0) if path.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--parts", choices=("embedded", "production"), default="embedded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, FakeGemini() as fake:
        folder = Path(name)
        make_folder(folder / "p", options.images)
        with parts(options.parts, folder / "service", fake) as service:
            begun = time.monotonic()
            with started(service, folder) as first:
                read_until(first, options.images // 2)
                first.kill()
            killed, before = time.monotonic() - begun, lines(folder / "o.csv.part")
            with started(service, folder) as second:
                last = read_until(second, options.images + 1)
            whole = time.monotonic() - begun
            _, _, usage = service.send("GET", "/api/v1/usage")
    twice = sum(times > 1 for times in fake.sent.values())
    print_report(
        f"{options.images} pictures of 1 MB with run, {options.parts} parts, {IMAGES_PER_JOB} a job, killed in the middle",
        [
            ("seconds until the kill", f"{killed:.0f} s", ""),
            ("rows in the part file at the kill", f"{before}", ""),
            ("seconds in all", f"{whole:.0f} s", ""),
            ("rows at the end", f"{last.get('rows')} ({last.get('failed')} failed)", f"{options.images}"),
            (
                "credits charged",
                f"{usage['balance']['charged']}",
                f"{options.images + 10 * -(-options.images // IMAGES_PER_JOB)}",
            ),
            ("pictures that the model saw", f"{len(fake.sent)}", f"{options.images}"),
            ("pictures that it saw twice", f"{twice} {Counter(fake.sent).most_common(1) if twice else ''}".strip(), "0"),
        ],
    )


if __name__ == "__main__":
    main()
