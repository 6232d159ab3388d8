"""The client. It sends the planned requests, some of them twice, follows each job to its end, and records all answers.

Its lines have at, job, what, and what goes with it:

accepted         id, try, replayed: a 202
answered         try, body (as `bodies.read` gives it), credits, processed, status: a 200 to a request that waited
refused          try, status, code: the service says that nothing was accepted
unknown          try, reason: the answer was lost, or says that the job may exist
failed at once   try, status, code: a request that waited, and whose images all failed
event            id, status, round, succeeded, failed: an event of a stream
ended            id, status, round, counts, credits, processed, hits (of the cache): the end of a round, with its results
retried, deleted, looked after delete, cancel, cancel late: id, status
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from testbed import PictureServer
from tests.torture.checker.record import ENDED
from tests.torture.load.bodies import Body, Row, body_of, picture, read
from tests.torture.plan import Job, Plan

EXTRACT, JOBS = "/api/v1/extract-image", "/api/v1/jobs"
AGAIN_SECONDS = 0.5
CLIENT_SECONDS = 40.0  #: timeout of one request
FIND_SECONDS = 3.0  #: how long a job may take to appear whose answer was lost
WAIT = "wait=20"
GONE = (OSError, http.client.HTTPException, json.JSONDecodeError, UnicodeDecodeError)
MADE_AND_FAILED = {400, 409, 500}  #: answers to a request that waited, after its job has ended without a result
Door = tuple[str, int]  #: host and port of a web process, or of the proxy before them
MAYBE = {"maybe_accepted", "internal_error"}


class Client:
    """One phase of the load. All waiting ends at the time `until`, by time.monotonic()."""

    def __init__(
        self, plan: Plan, *, phase: str, doors: list[Door], keys: list[str], web: PictureServer, hook: str, folder: Path
    ) -> None:
        self.lines: list[Row] = []
        self.seen: dict[str, Row] = {}
        self.until = float("inf")
        self._plan = plan
        self._phase = phase
        self._doors = doors
        self._keys = keys
        self._web = web
        self._hook = hook
        self._log = (folder / f"client-{phase}.jsonl").open("w")
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._faulty = phase == "run"
        self.poison = plan.poison if self._faulty else {}

    # --- the load

    def start(self, *, pace: float) -> None:
        """Starts a thread for each job. `pace`: factor for the planned times of the jobs."""
        began = time.monotonic()
        for job in self._plan.jobs:
            thread = threading.Thread(target=self._life, args=(job, began + job.at * pace), name=job.name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def open(self) -> int:
        return sum(thread.is_alive() for thread in self._threads)

    def wait(self, until: float) -> bool:
        """Waits until every job was followed to its end, at most until the time `until`. Returns whether all were."""
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.01))
        return not self.open()

    def close(self) -> None:
        self._stop.set()
        self.wait(time.monotonic() + CLIENT_SECONDS)
        self._log.close()

    def _life(self, job: Job, at: float) -> None:
        if self._stop.wait(max(at - time.monotonic(), 0)):
            return
        twice = job.twice if self._faulty else ""
        with ThreadPoolExecutor(2) as posts:
            first = posts.submit(self._post, job)
            if twice == "at once":
                posts.submit(self._post, job)
            path = first.result()
        if path is None:
            return
        if twice == "later" and not self._stop.wait(1.0):
            self._post(job)
        if self._faulty and job.cancel_after is not None and not self._stop.wait(job.cancel_after):
            self._cancel(job, path, "cancel")
        if self._faulty and job.delete == "running" and not self._stop.wait(1.0):
            self._delete(job, path)
            return
        ended = self._follow(job, path)
        if ended and job.missing:
            self._put_missing(job)
            if self._retry(job, path):
                ended = self._follow(job, path, round_=2)
        if ended and self._faulty and job.cancel_late:
            self._cancel(job, path, "cancel late", ended_as=ended)
        if ended and self._faulty and job.delete:
            self._delete(job, path)

    # --- requests

    def _body(self, job: Job, try_: int) -> Body:
        datas = [picture(job, number) + self.poison.get(number, b"") for number in job.numbers]
        missing = set(job.missing)

        def page(number: int, data: bytes) -> str:
            name = self._name(job, number)
            return f"{self._web.url}/{name}" if number in missing else self._web.page(name, data)

        return body_of(job, self._phase, try_, datas=datas, page=page, hook=self._hook)

    def _name(self, job: Job, number: int) -> str:
        return f"{self._phase}-{number}.png"

    def _put_missing(self, job: Job) -> None:
        for number in job.missing:
            self._web.page(self._name(job, number), picture(job, number))

    def _post(self, job: Job) -> str | None:
        """Sends the request until it is accepted. Returns the job's path, None if the time is over.

        With a key, every request has the same body. Without one, each has its own number, by which its job can be found.
        """
        waits = job.waits
        try_ = 0
        while not self._late():
            body, kind = self._body(job, try_)
            headers = {"Content-Type": kind, "Prefer": WAIT if waits else "respond-async"}
            if job.keyed:
                headers["Idempotency-Key"] = f"{self._phase}-{job.name}"
            path, again = self._sent(job, body, headers, try_, waits=waits)
            if path:
                return path
            if again == "ask":  # the answer has no id, and with the key it comes without waiting
                waits = False
                if job.keyed:
                    continue
            if not job.keyed and again in {"ask", "unknown"}:
                found = self._find(job, try_, sure=again == "ask")
                if found:
                    self._note(job, "accepted", id=found, **{"try": try_}, replayed=False)
                    return f"{JOBS}/{found}"
            try_ += not job.keyed
            self._stop.wait(AGAIN_SECONDS)
        return None

    def _sent(self, job: Job, body: bytes, headers: dict[str, str], try_: int, *, waits: bool) -> tuple[str, str]:
        """Sends the request once. Returns the job's path, or what to do: ask (for its id), unknown, or refused."""
        note = {"try": try_}
        try:
            status, answer_headers, answer = self._send(job, "POST", EXTRACT, body, headers)
        except GONE as error:
            self._note(job, "unknown", **note, reason=repr(error))
            return "", "unknown"
        code = answer_headers.get("x-error-code", "")
        if status == 200:
            shown = {"credits": answer["creditUsage"], "processed": answer["imageCount"], "status": ""}
            self._note(job, "answered", **note, **shown, body=read(job, answer))
            return "", "ask"
        if status == 202:
            self._note(job, "accepted", **note, id=answer["id"], replayed="idempotent-replayed" in answer_headers)
            return f"{JOBS}/{answer['id']}", ""
        if code in MAYBE:
            self._note(job, "unknown", **note, reason=code)
            return "", "unknown"
        if waits and status in MADE_AND_FAILED:
            self._note(job, "failed at once", **note, status=status, code=code)
            return "", "ask"
        self._note(job, "refused", **note, status=status, code=code)
        return "", "refused"

    def _find(self, job: Job, try_: int, *, sure: bool) -> str:
        """The id of the job that this try has made, "" if it has made none. `sure`: it has made one."""
        ends = time.monotonic() + FIND_SECONDS
        looked = False
        while not self._late() and (sure or not looked or time.monotonic() < ends):
            cursor = ""
            try:
                while True:
                    status, _, answer = self._send(job, "GET", f"{JOBS}?limit=100{cursor}")
                    if status != 200:
                        break
                    for shown in answer["jobs"]:
                        if shown["metadata"] == {"phase": self._phase, "name": job.name, "try": try_}:
                            return str(shown["id"])
                    if not answer["nextCursor"]:
                        looked = True
                        break
                    cursor = f"&cursor={answer['nextCursor']}"
            except GONE:
                pass
            self._stop.wait(AGAIN_SECONDS)
        return ""

    def _follow(self, job: Job, path: str, *, round_: int = 1) -> str:
        """Waits until the job has ended, and reads its results. Returns its status, "" if the time is over."""
        while not self._late():
            try:
                if job.streams and not self._read_events(job, path, round_):
                    self._stop.wait(AGAIN_SECONDS)
                    continue
                status, _, shown = self._send(job, "GET", f"{path}?wait=5")
                if status == 200 and shown["finishedAt"]:
                    status, _, results = self._send(job, "GET", f"{path}/results")
                    if status == 200:
                        self.seen[job.name] = read(job, results)
                        more = {"credits": shown["usage"]["credits"], "processed": results["imageCount"]}
                        more |= {"hits": shown["usage"]["cacheHits"], "round": round_}
                        self._note(job, "ended", id=shown["id"], status=shown["status"], counts=shown["counts"], **more)
                        return str(shown["status"])
                elif status == 200:
                    continue
            except GONE:
                pass
            self._stop.wait(AGAIN_SECONDS)
        return ""

    def _read_events(self, job: Job, path: str, round_: int) -> bool:
        """Reads the job's events until the stream ends. Returns whether it showed the job's end.

        A stream that breaks off raises one of GONE, or looks as if it ended. Browsers then ask for it again.
        """
        connection = self._connected()
        try:
            connection.request("GET", f"{path}/events", headers=self._headers(job))
            answer = connection.getresponse()
            if answer.status != 200:
                return False
            status = ""
            while line := answer.readline():
                if self._late():
                    return False
                if line.startswith(b"data:"):
                    shown = json.loads(line[5:])
                    counts = {name: shown["counts"][name] for name in ("succeeded", "failed")}
                    status = shown["status"]
                    self._note(job, "event", id=shown["id"], status=status, round=round_, **counts)
            return status in ENDED
        finally:
            connection.close()

    def _cancel(self, job: Job, path: str, what: str, **more: Any) -> None:
        status, answer = self._until(job, "POST", f"{path}/cancel", {200, 409})
        if status:
            succeeded = answer["counts"]["succeeded"] if status == 200 else None
            self._note(job, what, id=path.rpartition("/")[2], status=status, succeeded=succeeded, **more)

    def _retry(self, job: Job, path: str) -> bool:
        """Whether the job is in its next round. 409: an answer before was lost, and its round is running or has ended."""
        status, _ = self._until(job, "POST", f"{path}/retry", {202, 409})
        if status:
            self._note(job, "retried", id=path.rpartition("/")[2], status=status)
        return bool(status)

    def _delete(self, job: Job, path: str) -> None:
        """404: an answer before was lost."""
        status, _ = self._until(job, "DELETE", path, {204, 404})
        if status:
            self._note(job, "deleted", id=path.rpartition("/")[2], status=status)
            status, _ = self._until(job, "GET", path, {200, 404})
            self._note(job, "looked after delete", id=path.rpartition("/")[2], status=status)

    def _until(self, job: Job, method: str, path: str, statuses: set[int]) -> tuple[int, Any]:
        """Sends the request until it is answered with one of these statuses. Returns 0 if the time is over."""
        while not self._late():
            try:
                status, _, answer = self._send(job, method, path, None if method in {"GET", "DELETE"} else b"")
            except GONE:
                status = 0
            if status in statuses:
                return status, answer
            self._stop.wait(AGAIN_SECONDS)
        return 0, None

    def balances(self) -> list[Row]:
        """What the API shows as each account's balance."""
        found = []
        for account in range(len(self._keys)):
            _, answer = self._until(_of(account), "GET", "/api/v1/usage", {200})
            found.append(answer["balance"] if answer else {})
        return found

    def _connected(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*random.choice(self._doors), timeout=CLIENT_SECONDS)

    def _headers(self, job: Job) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._keys[job.account]}"}

    def _send(
        self, job: Job, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        connection = self._connected()
        try:
            connection.request(method, path, body, {**self._headers(job), **(headers or {})})
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(data) if data else None
        finally:
            connection.close()

    def _late(self) -> bool:
        return self._stop.is_set() or time.monotonic() > self.until

    def _note(self, job: Job, what: str, **more: Any) -> None:
        line = {"at": time.time(), "job": job.name, "what": what, **more}
        with self._lock:
            self.lines.append(line)
            if not self._log.closed:
                self._log.write(json.dumps(line) + "\n")
                self._log.flush()


def _of(account: int) -> Job:
    """A request that belongs to no planned job."""
    return Job(name="", account=account, at=0, numbers=(), form="")
