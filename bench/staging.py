"""Measures staging of 3000 URLs of 33 KB on loopback: fetch, check, decode, store in packed objects. Compares with img2dataset.

The web server runs in its own process and answers after 50 ms. Our side does the same as a worker's stage steps, without SQL. It
uses chunks of 50 images, as many threads as a worker has, and all checks. img2dataset fetches the same URLs in two modes. With
raw output it checks nothing; with its defaults it decodes and resizes. Only the time of its shards counts, not its start. It
needs other versions of numpy and OpenCV, so the bench makes a virtual environment for it once, with pip.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

import psutil

from bench.report import Row, at_least, at_most, print_report, spread
from bench.web import IMAGES, LATENCY, SIZE, web
from pipeline import stage as staging
from pipeline.decode.once import SharedDecodes
from pipeline.decode.pool import DecoderPool
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.once import SharedFetches
from pipeline.outbound.addresses import parse_allow
from pipeline.plan import ChunkPlan, cut
from pipeline.types import MAX_TOTAL_BYTES
from storage.scratch.files import FileScratch
from testbed import ROOT, command_of
from workers.app import collect_less
from workers.stage import IN_MEMORY

CHUNK, THREADS = 50, 40
RIVAL = ROOT / "var" / "bench-img2dataset"
RIVAL_OPTIONS = {
    "raw": {"disable_all_reencoding": True, "resize_mode": "no"},
    "defaults": {},
}
RIVAL_SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from img2dataset import download
if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    download(input_format="txt", processes_count=2, enable_wandb=False, **options)
"""


def cpu() -> float:
    """CPU seconds of this process and its children, including decoders that were replaced. The web server is left out."""
    me = psutil.Process()
    ours = [me, *(process for child in me.children() if "bench.web" not in command_of(child) for process in family(child))]
    times = [process.cpu_times() for process in ours]
    return sum(spent.user + spent.system + spent.children_user + spent.children_system for spent in times)


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def ours(port: int, folder: Path) -> Callable[[], tuple[float, float]]:
    """Builds and warms up the parts once. Returns a function that stages all images and gives its seconds and CPU seconds."""
    fetch = Fetcher(parse_allow(f"127.0.0.1/32:{port}"))
    shared, decodes, runs = SharedFetches(), SharedDecodes(), count()
    decode = DecoderPool()
    decoding = ThreadPoolExecutor(2 * (os.cpu_count() or 1))
    threads = ThreadPoolExecutor(THREADS)
    scratch = FileScratch(folder)

    collect_less()

    def chunk(plan: ChunkPlan, job: str) -> int:
        urls = {index: f"http://127.0.0.1:{port}/{index}.jpg" for index in range(plan.first, plan.first + plan.count)}
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as out:
            received = shared.fetch_once(fetch, urls, scope=job, elsewhere=(), total=MAX_TOTAL_BYTES, timeout=100.0)
            staged = staging.stage(received, decode=decode, out=out, executor=decoding, shared=decodes, job=job)
            scratch.put(f"{job}/c{plan.no}", out)
        assert staged.failures == []
        return len(staged.staged)

    def run() -> tuple[float, float]:
        job = f"job{next(runs)}"  # each run is a new job, so nothing is cached for it
        before, started = cpu(), time.perf_counter()
        assert sum(threads.map(partial(chunk, job=job), cut(IMAGES, CHUNK))) == IMAGES
        return time.perf_counter() - started, cpu() - before

    assert chunk(ChunkPlan(no=0, first=0, count=CHUNK), job="warm") == CHUNK
    return run


def rival(port: int, options: dict[str, object], output: str) -> float:
    """Seconds of img2dataset, from the start of its first shard to the end of its last shard."""
    with tempfile.TemporaryDirectory() as folder:
        urls = Path(folder) / "urls.txt"
        urls.write_text("".join(f"http://127.0.0.1:{port}/{number}.jpg\n" for number in range(IMAGES)))
        script = Path(folder) / "rival.py"
        script.write_text(RIVAL_SCRIPT)
        out = Path(folder) / "out"
        shards = {"number_sample_per_shard": IMAGES // 4, "thread_count": 128}
        arguments = {"url_list": str(urls), "output_folder": str(out), "output_format": output, **shards, **options}
        subprocess.run([RIVAL / "bin" / "python", script, json.dumps(arguments)], check=True, capture_output=True, timeout=300)
        stats = [json.loads(path.read_text()) for path in out.glob("*_stats.json")]
        assert sum(shard["successes"] for shard in stats) == IMAGES
        return max(shard["end_time"] for shard in stats) - min(shard["start_time"] for shard in stats)


def prepare_rival() -> None:
    if not (RIVAL / "bin" / "img2dataset").exists():
        subprocess.run([sys.executable, "-m", "venv", RIVAL], check=True)
        subprocess.run([RIVAL / "bin" / "pip", "install", "--quiet", "img2dataset==1.47.0", "setuptools"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="without img2dataset")
    options = parser.parse_args()
    if not options.alone:
        prepare_rival()
    rates: list[float] = []
    costs: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in ("raw, webdataset", "raw, files", "defaults, files")}
    with tempfile.TemporaryDirectory() as folder, web("photos") as port:
        run = ours(port, Path(folder))
        for _ in range(options.runs):
            seconds, burnt = run()
            rates.append(IMAGES / seconds)
            costs.append(burnt / IMAGES * 1000)
            for name, measured in theirs.items() if not options.alone else ():
                mode, _, output = name.partition(", ")
                measured.append(IMAGES / rival(port, RIVAL_OPTIONS[mode], output))
    rows: list[Row] = [("staging", spread(rates, "images/s", 0), ""), ("CPU a 1000 images", spread(costs, "s"), at_most(1.0))]
    for name, measured in theirs.items() if not options.alone else ():
        ratios = [mine / other for mine, other in zip(rates, measured, strict=True)]
        rows += [
            (f"img2dataset, {name}", spread(measured, "images/s", 0), ""),
            ("ours / that, run by run", spread(ratios, "x"), at_least(6 if name.startswith("defaults") else 1.5)),
        ]
    print_report(f"{IMAGES} URLs of {SIZE / 1000:.0f} KB, latency {LATENCY * 1000:.0f} ms, {options.runs} runs", rows)


if __name__ == "__main__":
    main()
