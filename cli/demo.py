"""`extract-image demo`: runs the main job on real pictures through the real queue, and shows the results."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.local_key import ready_key
from cli.ready import ready_url
from config.chosen_engine import kind_of
from config.settings import Settings, load_settings
from storage.account.secret import secret_key
from storage.database import open_database
from storage.scratch.open import open_scratch

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".heic", ".tiff", ".gif"}
PROMPT = "What kind of document or scene is this, whose is it, and what are its date and its amounts?"
MERGED = 4  #: so many pictures of the examples go into the one JSON document
START_SECONDS = 60
JOB_SECONDS = 600


def run_demo(*, keep: bool) -> int:
    """Starts the service in a temporary folder, sends the examples, prints the results and stops it. Returns the exit code."""
    console = Console()
    pictures = sorted(path for path in EXAMPLES.glob("*") if path.suffix in SUFFIXES)
    if not pictures:
        text = (
            "The demo's pictures are in examples/ of a checkout, and not in the installed package. For pictures of your own, use "
        )
        raise click.ClickException(f"{text}`extract-image run FOLDER`.")
    folder = Path(tempfile.mkdtemp(prefix="extract-image-demo-"))
    try:
        with _picture_server(EXAMPLES) as port, _service(folder, port, console) as (url, key, settings):
            client = _Client(url, key)
            _explain(console, settings)
            urls = [f"http://127.0.0.1:{port}/{path.name}" for path in pictures]
            plain = _run(
                console,
                client,
                "by URL, one text for each image",
                {"inputMethod": "url", "images": urls, "granularity": "perImage"},
            )
            _show_texts(console, pictures, plain)
            texts = [base64.b64encode(path.read_bytes()).decode() for path in pictures[:MERGED]]
            merged = _run(console, client, "by base64, jsonMode", {"inputMethod": "base64", "images": texts, "jsonMode": True})
            _show_document(console, merged)
            return _show_end(console, settings, [plain, merged])
    except DemoFailure as failure:
        console.print(f"[red]{escape(str(failure))}[/red]\nThe service's log is {folder / 'serve.log'}")
        keep = True
        return 1
    finally:
        if keep:
            console.print(f"The demo's data is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


class DemoFailure(Exception):
    """The demo could not finish. The message says why."""


class _Client:
    """A client of the API that uses only the standard library, as a user's script would."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy can't reach this machine
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._send("/api/v1/extract-image", json.dumps(body).encode(), {"Prefer": "respond-async"})

    def get(self, path: str) -> dict[str, Any]:
        return self._send(path, None, {})

    def _send(self, path: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
        request = urllib.request.Request(self._url + path, body, {**self._headers, **headers})  # noqa: S310 - our own address
        try:
            with self._opener.open(request, timeout=60) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            raise DemoFailure(f"{path} answered HTTP {error.code}: {error.read().decode()}") from None


@contextmanager
def _picture_server(folder: Path) -> Iterator[int]:
    """Serves the examples on a loopback port, so that the service fetches them by URL. Yields the port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Logs nothing, so that only the demo's own output is shown."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _service(folder: Path, picture_port: int, console: Console) -> Iterator[tuple[str, str, Settings]]:
    """Runs `extract-image serve` on a free port, with only some of the shell's settings. Yields its URL, a key and its settings."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "ENGINE", "MODEL", "HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE")
    gemini = ("GEMINI_API_KEY", "GEMINI_API_KEY_FILE", "GEMINI_BASE_URL")
    environment = {name: os.environ[name] for name in (*kept, *gemini) if name in os.environ}
    environment |= {"DATA_DIR": str(folder), "PORT": "0", "FETCH_ALLOW": f"127.0.0.1/32:{picture_port}"}
    log = folder / "serve.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "serve"],
            cwd=EXAMPLES.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        with console.status("Starting the service …"):
            url = ready_url(process, seconds=START_SECONDS)
        if not url:
            raise DemoFailure(f"The service did not start.\n{log.read_text(errors='replace')[-2000:]}")
        settings = load_settings(environment)
        database = open_database(settings, "command")
        key = ready_key(database, secret_key(settings))
        database.close()
        yield url, key, settings
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _explain(console: Console, settings: Settings) -> None:
    if kind_of(settings).follows_prompts:
        console.print(f"Engine: [bold]{settings.engine}[/bold] ({settings.model}), asked: “{PROMPT}”")
    else:
        console.print(
            f"Engine: [bold]{settings.engine}[/bold], on this machine. It reads text and barcodes; it does not follow prompts."
        )
        console.print("For answers to a prompt: [bold]GEMINI_API_KEY=… make demo[/bold]\n")


def _run(console: Console, client: _Client, title: str, body: dict[str, Any]) -> dict[str, Any]:
    """Sends a job and follows it with a progress bar. Returns the job with its results."""
    started = time.monotonic()
    job = client.post({**body, "prompt": PROMPT})
    total = job["counts"]["total"]
    bar = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*bar, console=console) as progress:
        task = progress.add_task(f"{total} images {title}", total=total)
        told: set[str] = set()
        while not job["finishedAt"]:
            if time.monotonic() - started > JOB_SECONDS:
                raise DemoFailure(f"The job did not end within {JOB_SECONDS} s.")
            time.sleep(0.2)
            job = client.get(job["links"]["self"])
            progress.update(task, completed=job["counts"]["succeeded"] + job["counts"]["failed"])
            for warning in job["warnings"]:
                if warning not in told and "does not follow" not in warning:
                    progress.console.print(f"[yellow]{escape(warning)}[/yellow]")
                told.add(warning)
    if job["status"] == "failed":
        raise DemoFailure(f"The job failed: {job['error']['message']}")
    return {**job, **client.get(job["links"]["results"]), "title": title, "seconds": time.monotonic() - started}


def _show_texts(console: Console, pictures: list[Path], job: dict[str, Any]) -> None:
    results = {record["index"]: record["result"] for record in json.loads(job["results"])}
    failures = {failure["index"]: failure for failure in job.get("errors", [])}
    table = Table("picture", "what it says", title="What each picture says", title_justify="left", show_lines=True)
    for index, path in enumerate(pictures):
        if index in failures:
            table.add_row(path.name, f"[red]{escape(failures[index]['message'])}[/red]")
        else:
            table.add_row(path.name, escape(_shortened(str(results[index]), 220)))
    console.print(table)


def _show_document(console: Console, job: dict[str, Any]) -> None:
    """Prints the first record of the parsed answer, one line per member."""
    document = json.loads(job["results"])
    first = document[0] if isinstance(document, list) and document else document
    members = first.items() if isinstance(first, dict) else [("", first)]
    console.print("\nThe jsonMode answer is one JSON document. It begins:\n")
    for name, value in members:
        written = _shortened(json.dumps(value, ensure_ascii=False), 240)
        console.print(f"  [bold]{escape(name)}[/bold]  {escape(written)}", highlight=False)
    if isinstance(document, list) and len(document) > 1:
        console.print(f"  … and {len(document) - 1} more like it")
    console.print()


def _show_end(console: Console, settings: Settings, jobs: list[dict[str, Any]]) -> int:
    table = Table("job", "status", "images", "credits", "model calls", "seconds")
    for job in jobs:
        table.add_row(
            job["title"],
            job["status"],
            f"{job['imageCount']} of {job['counts']['total']}",
            str(job["creditUsage"]),
            str(job["usage"]["modelCalls"]),
            f"{job['seconds']:.1f}",
        )
    console.print(table)
    left = _scratch_left(settings)
    console.print("Scratch is [green]empty[/green]." if not left else f"[red]Scratch still has {left} objects.[/red]")
    return 1 if left or any(job["status"] != "succeeded" for job in jobs) else 0


def _scratch_left(settings: Settings) -> int:
    """The number of objects in scratch. Waits up to 10 s for the cleanup that follows each job."""
    scratch = open_scratch(settings)
    deadline = time.monotonic() + 10
    while (left := sum(1 for _ in scratch.list(""))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _shortened(text: str, most: int) -> str:
    text = re.sub(r"\s*\n\s*", " / ", text.strip())
    text = re.sub(r"\s{2,}", "  ", text)
    return text if len(text) <= most else text[: most - 1] + "…"
