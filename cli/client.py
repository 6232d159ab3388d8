"""A client of the HTTP API: typed and synchronous. It imports nothing else of this project.

A request that is safe to repeat is sent again after a lost connection or a refusal that passes (429, 502, 503, 504). Create jobs
with an idempotency key, and creating them is safe too. Other refusals raise ApiError, and so does `account_full` after 150 s, because
it does not pass by itself. Files are streamed from disk.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx2

from cli.form import File, FileChanged, Form
from cli.objects import Counts, Estimate, Evidence, Formats, Item, Job, Spent, read_estimate, read_formats, read_item, read_job

__all__ = [
    "ApiError",
    "Client",
    "ClientError",
    "Counts",
    "Estimate",
    "Evidence",
    "File",
    "FileChanged",
    "Formats",
    "Item",
    "Job",
    "Page",
    "Spent",
    "Unreachable",
    "verify_webhook",
]

API = "/api/v1"
PASSING = frozenset({429, 502, 503, 504})  #: statuses that say "try again": nothing was accepted
#: Codes of a 429 that passes only when somebody makes room, or when results expire. It is tried again for a while, and then raised.
FULL = frozenset({"account_full"})
FULL_PATIENCE = 150.0  #: seconds; the service names 60 s between two tries
LONGEST_BACKOFF = 30.0  #: seconds between two tries, if the service names no time
POLL_SECONDS = 20  #: how long the service may hold a long poll
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

T = TypeVar("T")
Page = tuple[list[T], str | None]  #: a part of a list, and the cursor of the page after it
OnWait = Callable[[str, float], None]  #: is called before each wait with its reason and its seconds


class ClientError(Exception):
    """The request did not succeed. The message says why."""


class Unreachable(ClientError):
    """The service did not answer, or answered that it can't work now, until the patience was used up."""


class ApiError(ClientError):
    """The service refused the request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status  #: of HTTP
        self.code = code  #: stable, such as `insufficient_credits`
        self.message = message  #: what is wrong and how to mend it


class Client:
    """Talks to one service with one key. It may be used by several threads at once."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 60.0,
        patience: float = 60.0,
        busy_patience: float = 3600.0,
        request_source: str = "",
        on_wait: OnWait | None = None,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """`timeout`: seconds without a byte; `patience`: seconds for which a service that is away is tried again;
        `busy_patience`: the same for a service that says it is busy; `request_source`: is kept with the jobs.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError(f"{url} is no address of a service. Use one like https://images.example.")
        headers = {"Authorization": f"Bearer {key}"}
        if request_source:
            headers["Request-Source"] = request_source
        self.url = url.rstrip("/")
        self._patience, self._busy_patience = patience, busy_patience
        self._on_wait, self._sleep = on_wait, sleep
        # A proxy can't reach this machine's own addresses, so its settings are used only for others.
        env = parts.hostname not in LOOPBACK
        self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=env, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def formats(self) -> Formats:
        """What the service takes. It needs no key, so a wrong key is not noticed here."""
        return read_formats(self._json("GET", f"{API}/extract-image"))

    def create_job(self, images: Sequence[File | str], fields: Mapping[str, Any], *, idempotency_key: str = "") -> Job:
        """Makes a job of files, or of URLs, and returns at once. The images are all files, or all URLs.

        `fields`: the other fields of the request, such as `prompt`. Without `idempotency_key`, a request whose answer was lost is
        not sent again. Raises FileChanged if a file's bytes are not those of its `sha256`; then no job was made.
        """
        key = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return read_job(self._json("POST", f"{API}/jobs", images=images, fields=fields, headers=key, again=bool(key)))

    def estimate(self, images: Sequence[File | str], fields: Mapping[str, Any]) -> Estimate:
        """What a request would cost. Nothing is run or kept. It checks the key and each field, as a request does."""
        return read_estimate(self._json("POST", f"{API}/extract-image/estimate", images=images, fields=fields))

    def job(self, job: str, *, wait: int = 0) -> Job:
        """The job. With `wait`, the service answers when the job has ended, or after that many seconds."""
        return read_job(self._json("GET", f"{_path(job)}?wait={wait}" if wait else _path(job)))

    def wait(self, job: str, *, on_change: Callable[[Job], None] | None = None, poll: int = POLL_SECONDS) -> Job:
        """Waits until the job has ended. `on_change` gets the job after each poll, which takes `poll` seconds at most."""
        while True:
            seen = self.job(job, wait=poll)
            if on_change:
                on_change(seen)
            if seen.ended:
                return seen

    def jobs(self, *, status: str = "", page: int = 100) -> Iterator[Job]:
        """The account's jobs, newest first."""
        pages = self._pages(f"{API}/jobs", "jobs", {"limit": str(page), "status": status})
        return (read_job(each) for found, _ in pages for each in found)

    def items(self, job: str, *, status: str = "", page: int = 500) -> Iterator[Item]:
        """The images of a job with their outcomes so far, in order."""
        return (item for found, _ in self.item_pages(job, status=status, page=page) for item in found)

    def item_pages(self, job: str, *, status: str = "", page: int = 500, cursor: str = "") -> Iterator[Page[Item]]:
        """The same page by page, each with the cursor of the page after it. `cursor`: begin with that page."""
        pages = self._pages(f"{_path(job)}/items", "items", {"limit": str(page), "status": status, "cursor": cursor})
        return (([read_item(each) for each in found], following) for found, following in pages)

    @contextmanager
    def results(self, job: str, form: Literal["json", "jsonl", "csv", "xlsx"] = "json") -> Iterator[Iterator[bytes]]:
        """The results of a job that has ended, as pieces of bytes."""
        answer = self._answer("GET", f"{_path(job)}/results?format={form}", stream=True)
        try:
            yield answer.iter_bytes()
        except httpx2.TransportError as error:
            raise Unreachable(f"The connection to {self.url} broke while the results came: {error}") from error
        finally:
            answer.close()

    def cancel(self, job: str) -> Job:
        """Ends the job with the results that it has. Raises ApiError 409 if it has ended before."""
        return read_job(self._json("POST", f"{_path(job)}/cancel"))

    def retry(self, job: str) -> Job:
        """Starts a new round of the images that failed. It is not sent again if its answer is lost."""
        return read_job(self._json("POST", f"{_path(job)}/retry", again=False))

    def delete(self, job: str) -> None:
        """Deletes the job and its results. A job that is already gone counts as deleted."""
        try:
            self._answer("DELETE", _path(job)).close()
        except ApiError as error:
            if error.status != 404:
                raise

    def usage(self, *, days: int = 31) -> dict[str, Any]:
        """The account's balance, the newest rows of its ledger, and its charges by day."""
        return self._json("GET", f"{API}/usage?days={days}")

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether every part of the service works, and the parts by name. It is not tried again."""
        try:
            answer = self._http.get("/readyz")
            return answer.status_code == 200, dict(answer.json())
        except (httpx2.TransportError, ValueError) as error:
            raise Unreachable(f"{self.url} does not answer: {_cause(error)}") from error

    def _pages(self, path: str, name: str, query: dict[str, str]) -> Iterator[Page[dict[str, Any]]]:
        more: str | None = ""
        while more is not None:
            page = self._json("GET", f"{path}?{'&'.join(f'{key}={quote(value)}' for key, value in query.items() if value)}")
            more = page["nextCursor"]
            yield page[name], more
            query = {**query, "cursor": more or ""}

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._answer(method, path, **options)
        try:
            return dict(answer.json())
        except ValueError:
            raise ClientError(f"{self.url}{path} did not answer with JSON. Is it an extract-image service?") from None

    def _answer(
        self,
        method: str,
        path: str,
        *,
        images: Sequence[File | str] | None = None,
        fields: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = True,
        stream: bool = False,
    ) -> httpx2.Response:
        """Sends the request until it has an answer that is no passing refusal. Raises ApiError and Unreachable."""
        started = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                answer = self._http.send(self._request(method, path, images, fields, headers or {}), stream=True)
                if answer.status_code < 300 and stream:
                    return answer
                answer.read()
            except httpx2.TransportError as error:
                # A request that never got a connection is always safe to send again.
                if not again and not isinstance(error, httpx2.ConnectError):
                    raise Unreachable(f"The answer of {self.url} was lost: {_cause(error)}") from error
                fault: ClientError = Unreachable(f"{self.url} does not answer: {_cause(error)}. Does it run?")
                seconds, patience = None, self._patience
            else:
                if answer.status_code < 300:
                    return answer
                if answer.status_code not in PASSING:
                    raise _refusal(answer)
                fault, seconds, patience = self._passing(answer)
            pause = _backoff(tries) if seconds is None else seconds
            if time.monotonic() - started + pause > patience:
                raise fault
            if self._on_wait:
                self._on_wait(str(fault), pause)
            self._sleep(pause)

    def _passing(self, answer: httpx2.Response) -> tuple[ClientError, float | None, float]:
        """What to raise when the patience with this refusal ends, the seconds until the next try if it names them, and the patience."""
        refusal, seconds = _refusal(answer), _retry_after(answer)
        if refusal.code in FULL:
            return refusal, seconds, min(self._busy_patience, FULL_PATIENCE)
        busy = answer.status_code == 429 or seconds is not None
        return Unreachable(refusal.message), seconds, self._busy_patience if busy else self._patience

    def _request(
        self,
        method: str,
        path: str,
        images: Sequence[File | str] | None,
        fields: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> httpx2.Request:
        if images is None:
            return self._http.build_request(method, path, headers=dict(headers))
        files = [image for image in images if isinstance(image, File)]
        if not files:
            body = {"inputMethod": "url", "images": list(images), **(fields or {})}
            return self._http.build_request(method, path, headers=dict(headers), json=body)
        form = Form(files, fields or {})
        sent = {**headers, "Content-Type": form.content_type, "Content-Length": str(form.length)}
        return self._http.build_request(method, path, headers=sent, content=form.pieces())


def verify_webhook(secret: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The event in a webhook's body. Raises ClientError if its signature is not of `secret`, or if it is over five minutes old."""
    from standardwebhooks import Webhook, WebhookVerificationError

    try:
        return dict(Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()}))
    except (WebhookVerificationError, ValueError) as error:
        raise ClientError(f"This webhook can't be trusted: {error}") from error


def _path(job: str) -> str:
    return f"{API}/jobs/{quote(job, safe='')}"


def _refusal(answer: httpx2.Response) -> ApiError:
    code = answer.headers.get("X-Error-Code", "")
    try:
        body = answer.json()
        text, code = str(body["error"]), str(body.get("code") or code)
    except (ValueError, TypeError, KeyError, AttributeError):  # a proxy's own page, for example
        text = f"{answer.url} answered HTTP {answer.status_code}."
    return ApiError(answer.status_code, code, text)


def _retry_after(answer: httpx2.Response) -> float | None:
    """The seconds of Retry-After, which is a number or a date. None if it is missing or neither."""
    given = answer.headers.get("Retry-After", "").strip()
    if given.isascii() and given.isdigit():
        return min(float(given), 3600.0)
    try:
        return max((parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None


def _backoff(tries: int) -> float:
    """Seconds before the next try: twice as long each time, with jitter so that clients do not come back all at once."""
    return float(min(0.5 * 2 ** min(tries - 1, 10), LONGEST_BACKOFF) * random.uniform(0.75, 1.25))  # noqa: S311 - no secret


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
