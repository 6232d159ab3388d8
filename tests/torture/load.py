"""The client. It sends the planned requests, some of them twice, follows each job to its end, and records all answers."""

from __future__ import annotations

import base64
import http.client
import json
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from testbed import PictureServer
from tests.fakes.gemini import numbered_picture
from tests.torture.plan import Job, Plan

EXTRACT = "/api/v1/extract-image"
TEXT = re.compile(r"^Image (\d+) shows (\d+)\.$", re.MULTILINE)
AGAIN_SECONDS = 0.5
CLIENT_SECONDS = 40.0  #: timeout of one request
WAIT = "wait=20"
FORM_FIELDS: dict[str, dict[str, Any]] = {"text": {}, "json": {"jsonMode": True}, "records": {"granularity": "perImage"}}
GONE = (OSError, http.client.HTTPException, json.JSONDecodeError)

Row = dict[str, Any]


class Client:
    """One phase of the load. All waiting ends at the time `until`, by time.monotonic()."""

    def __init__(
        self, plan: Plan, *, phase: str, ports: list[int], keys: list[str], web: PictureServer, hook: str, folder: Path
    ) -> None:
        self.lines: list[Row] = []
        self.seen: dict[str, Row] = {}
        self.until = float("inf")
        self._plan = plan
        self._phase = phase
        self._ports = ports
        self._keys = keys
        self._web = web
        self._hook = hook
        self._log = (folder / f"client-{phase}.jsonl").open("w")
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self.poison = plan.poison if phase == "run" else {}

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
        body = self._body(job)
        twice = job.twice if self._phase == "run" else ""
        with ThreadPoolExecutor(2) as posts:
            first = posts.submit(self._post, job, body)
            if twice == "at once":
                posts.submit(self._post, job, body)
            path = first.result()
        if path is None:
            return
        if twice == "later" and not self._stop.wait(1.0):
            self._post(job, body)
        if job.cancel_after is not None and self._phase == "run" and not self._stop.wait(job.cancel_after):
            self._cancel(job, path, "cancel")
        ended = self._follow(job, path)
        if ended and job.cancel_late and self._phase == "run":
            self._cancel(job, path, "cancel late", ended_as=ended)

    # --- requests

    def _body(self, job: Job) -> bytes:
        datas = [numbered_picture(number) + self.poison.get(number, b"") for number in job.numbers]
        if job.by_url:
            images = [
                self._web.page(f"{self._phase}-{number}.png", data) for number, data in zip(job.numbers, datas, strict=True)
            ]
        else:
            images = [base64.b64encode(data).decode() for data in datas]
        hook = {"webhookUrl": self._hook} if job.webhook else {}
        method = "url" if job.by_url else "base64"
        return json.dumps({"inputMethod": method, "images": images, "prompt": "p", **FORM_FIELDS[job.form], **hook}).encode()

    def _post(self, job: Job, body: bytes) -> str | None:
        """Sends the request until it is accepted. Returns the job's path, None if the time is over."""
        headers = {"Idempotency-Key": f"{self._phase}-{job.name}", "Prefer": WAIT if job.waited else "respond-async"}
        while not self._late():
            try:
                status, answer_headers, answer = self._send(job, "POST", EXTRACT, body, headers)
            except GONE as error:
                self._note(job, "post failed", reason=repr(error))
                status = 0
            if status == 200:  # this answer has no job id, so send the request again without waiting to get it
                headers["Prefer"] = "respond-async"
                self._note(job, "answered", status=status, credits=answer["creditUsage"])
                continue
            if status == 202:
                self._note(job, "accepted", id=answer["id"], replayed="idempotent-replayed" in answer_headers)
                return f"/api/v1/jobs/{answer['id']}"
            if status:
                self._note(job, "refused", status=status, answer=answer)
            if status == 400:  # every image failed; the request still made a job, and its id comes without waiting
                headers["Prefer"] = "respond-async"
            self._stop.wait(AGAIN_SECONDS)
        return None

    def _follow(self, job: Job, path: str) -> str:
        """Waits until the job has ended, and reads its results. Returns its status, "" if the time is over."""
        while not self._late():
            try:
                status, _, shown = self._send(job, "GET", f"{path}?wait=5")
                if status == 200 and shown["finishedAt"]:
                    status, _, results = self._send(job, "GET", f"{path}/results")
                    if status == 200:
                        self.seen[job.name] = read(job, results)
                        self._note(job, "ended", id=shown["id"], status=shown["status"], counts=shown["counts"])
                        return str(shown["status"])
                elif status == 200:
                    continue
            except GONE as error:
                self._note(job, "look failed", reason=repr(error))
            self._stop.wait(AGAIN_SECONDS)
        return ""

    def _cancel(self, job: Job, path: str, what: str, **more: Any) -> None:
        while not self._late():
            try:
                status, _, answer = self._send(job, "POST", f"{path}/cancel", b"")
            except GONE as error:
                self._note(job, "cancel failed", reason=repr(error))
                status = 0
            if status in {200, 409}:
                succeeded = answer["counts"]["succeeded"] if status == 200 else None
                self._note(job, what, id=path.rpartition("/")[2], status=status, succeeded=succeeded, **more)
                return
            self._stop.wait(AGAIN_SECONDS)

    def _send(
        self, job: Job, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", random.choice(self._ports), timeout=CLIENT_SECONDS)
        try:
            sent = {"Authorization": f"Bearer {self._keys[job.account]}", "Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(answer.read())
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


def read(job: Job, answer: Row) -> Row:
    """Reads the compatible body: the picture number in each image's record, and the code of each failed image."""
    said = answer["results"] or ""
    if job.form == "text":
        found = [[int(label) - 1, int(number)] for label, number in TEXT.findall(said)]
    elif not said:
        found = []
    elif job.form == "json":
        found = [[picture["label"] - 1, picture["number"]] for picture in json.loads(said)["pictures"]]
    else:
        found = [[record["index"], int(record["result"].removeprefix("picture "))] for record in json.loads(said)]
    return {"results": found, "errors": [[error["index"], error["code"]] for error in answer.get("errors", [])]}
