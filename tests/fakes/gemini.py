"""A fake Gemini server on loopback. It is as strict as the real one, answers from the pictures, and misbehaves on demand.

    with FakeGemini(blocked={7}) as fake:
        client = genai.Client(
            api_key=fake.key, http_options=types.HttpOptions(base_url=fake.base_url, api_version="v1beta")
        )
        ...
    assert fake.faults == [] and fake.refused == []
    assert fake.seen == Counter(range(20))

`numbered_picture` makes the pictures. `script` (gemini_behaviours) and the sets of picture numbers choose the misbehaviour.
A test may change all of them while the server runs.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus
from threading import Condition, Event
from typing import Self

from .flex import FlexServer
from .gemini_behaviours import Behaviour, Script
from .gemini_calls import SeenCall, Shown, form_of, read_layout, told_schema
from .gemini_contract import LIVE_MODELS, Part, Request, features_of, read_request
from .gemini_errors import LACKS, SHED, UNREADABLE, ApiError
from .gemini_files import FileStore
from .gemini_http import Server
from .gemini_pictures import numbered_picture, prove, read_number
from .gemini_replies import Outcome, Reply, answer, error_reply

__all__ = ["Behaviour", "FakeGemini", "Outcome", "SeenCall", "numbered_picture", "read_number"]

FileScript = Callable[[str, str], Behaviour | None]


class FakeGemini:
    """The server and its records. A context manager; usable from any number of threads."""

    def __init__(
        self,
        *,
        script: Script | None = None,
        latency: float = 0.0,
        blocked: Iterable[int] = (),
        unreadable: Iterable[int] = (),
        truncates: Iterable[int] = (),
        max_pictures_output: int | None = None,
        models: Iterable[str] = LIVE_MODELS,
        key: str = "fake-key",
        host: str = "127.0.0.1",
    ) -> None:
        self.key = key  #: the only valid API key
        self.models = tuple(models)  #: the models that exist
        self.latency = latency  #: seconds from a call's last byte to its answer
        self.script = script  #: called for each call, one at a time, in order of arrival
        #: Called with (start|upload|get|delete|list, name). Only timing, reset and error of its behaviour are used.
        self.file_script: FileScript | None = None
        self.blocked = set(blocked)  #: a call with one of these numbers is refused for its content
        self.block = Behaviour(finish="SAFETY")  #: the answer to a call with a blocked number
        self.unreadable = set(unreadable)  #: a call with one of these numbers gets a 400: unable to process
        self.truncates = set(truncates)  #: a call with one of these numbers ends with MAX_TOKENS
        #: What the model lacks: schema, json, system. A request with it gets a 400 with Google's words, or with `lack_words`.
        self.lacks: set[str] = set()
        self.lack_words = ""
        self.max_pictures_output = max_pictures_output  #: a call with more pictures ends with MAX_TOKENS
        self.flex = FlexServer(seconds=(0, 0))  #: how calls with serviceTier "flex" are treated
        self.resets_before_reading = 0  #: number of next requests whose connection is reset before they are read

        self.began = time.monotonic()  #: the times of `flex` count from here
        self.calls: list[SeenCall] = []  #: all calls, in order of arrival
        self.faults: list[str] = []  #: violations of the packing protocol
        self.refused: list[str] = []  #: messages of the answers to calls that violated Gemini's contract
        self.bad_keys = 0  #: requests with another key or without one
        self.sent: Counter[int] = Counter()  #: picture number → how many times it was sent
        self.seen: Counter[int] = Counter()  #: picture number → how many times it was answered completely
        self.in_flight = 0  #: calls that were accepted and have no answer yet
        self.peak = 0  #: most calls in flight at the same time

        self._lock = Condition()  # notified of each change of the records
        self._closing = Event()
        self._shown: dict[tuple[str, str], Shown] = {}  # by sha256 and declared type, so that a picture is decoded once
        self._server = Server(self, host)
        self.base_url = f"http://{host}:{self._server.server_port}"
        self.files = FileStore(self.base_url)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.stop()

    def outcomes(self) -> list[str]:
        """The outcome of each call, in order of arrival."""
        with self._lock:
            return [call.outcome for call in self.calls]

    def wait_for(self, happened: Callable[[], bool], timeout: float = 10.0) -> bool:
        """Waits until the records make `happened` true, at most `timeout` seconds. Returns whether they did."""
        with self._lock:
            return self._lock.wait_for(happened, timeout)

    def _generate(self, model: str, raw: bytes, server_timeout: str | None) -> tuple[int, Reply]:
        """Handles one generateContent. Returns its index in `calls` and the reply, after all waiting."""
        arrived = time.monotonic()
        try:
            self._check_model(model)
            request = read_request(raw)
            shown = [self._look_at(part) for part in request.parts if part.text is None]
        except ApiError as error:
            self._refuse(error.message)
            raise
        for lack in self.lacks.intersection(features_of(request)):
            raise ApiError(400, self.lack_words or LACKS[lack])
        with self._lock:
            call = self._remember(arrived, model, raw, request, shown, server_timeout)
            behaviour = self._decide(call, corrupt=any(picture.fault for picture in shown))
            behaviour, served = self._treated(call, behaviour)
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            self._lock.notify_all()
        self._wait(behaviour, arrived + self.latency)
        reply = answer(call, behaviour, request.input_tokens, served=served)
        with self._lock:  # record before sending, because a test may check the records as soon as it has the answer
            self.in_flight -= 1
            self.calls[call.order] = replace(call, outcome=reply.outcome, served=served, ended=time.monotonic())
            self.seen.update(reply.answered)
            self._lock.notify_all()
        return call.order, reply

    def _remember(
        self, at: float, model: str, raw: bytes, request: Request, shown: list[Shown], server_timeout: str | None
    ) -> SeenCall:
        layout = read_layout(request.parts, request.system)
        schema = request.schema or told_schema(layout.prompt)
        call = SeenCall(
            order=len(self.calls),
            at=at,
            model=model,
            prompt=layout.prompt,
            labels=layout.labels,
            numbers=tuple(picture.number for picture in shown),
            sha256s=tuple(picture.sha256 for picture in shown),
            mimes=tuple(picture.mime for picture in shown),
            by_file=tuple(part.data is None for part in request.parts if part.text is None),
            form=form_of(schema, json=request.json or schema is not None),
            schema=schema,
            max_output_tokens=request.max_output_tokens,
            store=request.store,
            thinking=request.thinking,
            levels=request.levels,
            tier=request.tier,
            server_timeout=float(server_timeout) if server_timeout else None,
            body_bytes=len(raw),
        )
        self.calls.append(call)
        self.faults += [f"call {call.order}: {fault}" for fault in layout.faults]
        self.faults += [f"call {call.order}: {picture.fault}" for picture in shown if "declared" in picture.fault]
        self.sent.update(number for number in call.numbers if number is not None)
        return call

    def _treated(self, call: SeenCall, behaviour: Behaviour) -> tuple[Behaviour, str]:
        """The behaviour of a call in its tier, and the tier in which it is served. A flex call that is shed has no other behaviour."""
        if call.tier != "flex":
            return behaviour, call.tier
        outcome = self.flex.treat(at=(time.monotonic() - self.began) / self.flex.factor)
        delay = outcome.seconds * self.flex.factor
        if outcome.shed:
            return Behaviour(delay=delay, error=ApiError(outcome.shed, SHED[outcome.shed])), ""
        return replace(behaviour, delay=behaviour.delay + delay), "standard" if outcome.served_as_standard else "flex"

    def _decide(self, call: SeenCall, *, corrupt: bool) -> Behaviour:
        """The script's behaviour. If it sets only timing, the sets of numbers decide the rest."""
        behaviour = (self.script(call) if self.script else None) or Behaviour()
        if behaviour.decides:
            return behaviour
        numbers, most = set(call.numbers), self.max_pictures_output
        rule = Behaviour()
        if corrupt or numbers & self.unreadable:
            rule = Behaviour(error=ApiError(400, UNREADABLE))
        elif numbers & self.blocked:
            rule = self.block
        elif numbers & self.truncates or (most is not None and len(call.numbers) > most):
            rule = Behaviour(finish="MAX_TOKENS")
        return replace(rule, delay=rule.delay + behaviour.delay, until=behaviour.until, thoughts=behaviour.thoughts)

    def _wait(self, behaviour: Behaviour, since: float) -> None:
        """Waits as long as the call must. The time that the fake itself took counts. Closing the fake ends the wait."""
        self._closing.wait(max(since + behaviour.delay - time.monotonic(), 0.0))
        while behaviour.until and not behaviour.until.wait(0.02) and not self._closing.is_set():
            pass  # a thread can't wait for two Events at once, so it polls

    def _look_at(self, part: Part) -> Shown:
        """Decodes a picture, once for each content and declared type."""
        data = part.data if part.data is not None else self.files.behind(part.uri).data
        digest = hashlib.sha256(data).hexdigest()
        known = self._shown.get((digest, part.mime))
        if known is None:
            known = _shown(data, part.mime, digest)
            self._shown[digest, part.mime] = known
        return known

    def _unsent(self, order: int, reply: Reply) -> None:
        """Removes an answer from the counts, because the client was gone before it was sent."""
        with self._lock:
            self.calls[order] = replace(self.calls[order], outcome=Outcome.CLIENT_GONE)
            self.seen.subtract(reply.answered)
            self._lock.notify_all()

    def _check_model(self, model: str) -> None:
        if model not in self.models:
            raise ApiError(
                404,
                f"models/{model} is not found for API version v1beta, or is not supported for generateContent. "
                "Call ListModels to see the list of available models and their supported methods.",
            )

    def _file_call(self, action: str, name: str, work: Callable[[], Reply]) -> Reply:
        """Handles one call of the Files API, with the behaviour of `file_script`."""
        with self._lock:
            behaviour = (self.file_script(action, name) if self.file_script else None) or Behaviour()
        self._wait(behaviour, time.monotonic())
        if behaviour.reset:
            return Reply(reset=True)
        try:
            if behaviour.error:
                raise behaviour.error
            return work()
        except ApiError as error:
            if error.code == HTTPStatus.BAD_REQUEST:
                self._refuse(error.message)
            # The error of an upload has this header, because without it the SDK sends the chunk again after 1, 2 and 4 s.
            ended = {"X-Goog-Upload-Status": "final"} if action == "upload" else {}
            return replace(error_reply(error), headers=ended)

    def _refuse(self, message: str) -> None:
        with self._lock:
            self.refused.append(message)
            self._lock.notify_all()

    def _resets_unread(self) -> bool:
        with self._lock:
            due = self.resets_before_reading > 0
            self.resets_before_reading -= due
            return due


def _shown(data: bytes, mime: str, digest: str) -> Shown:
    try:
        return Shown(mime=mime, sha256=digest, number=prove(data, mime))
    except ValueError as error:
        return Shown(mime=mime, sha256=digest, number=None, fault=str(error))
