"""A fake OpenAI-compatible server on loopback. It is as strict as OpenAI's published document, and answers from the pictures.

    with FakeOpenAI() as fake:
        OpenAiEngine(base_url=fake.base_url, api_key=fake.key, ...)
    assert fake.faults == [] and fake.refused == []

`without` names features that it lacks, as some real servers do: json_schema, json_object, max_tokens, system, detail. `odd` says
in what else it differs from OpenAI's own server. `script` chooses the misbehaviour: a value of gemini_behaviours, or a Refusal.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self

from .flex import FlexServer
from .gemini_behaviours import Behaviour
from .gemini_calls import SeenCall, read_layout
from .gemini_contract import Part as GeminiPart
from .gemini_contract import tokens_of
from .gemini_pictures import prove
from .gemini_replies import _ended, _text
from .openai_contract import BODY_LIMIT, Asked, Refusal, read

PICTURES = frozenset({"image/png", "image/jpeg"})  #: llama.cpp decodes only these
PICTURE_TOKENS = {"low": 85, "auto": 765, "high": 1105}
SCHEMA = re.compile(r"valid against this JSON Schema:\n(\{.*)", re.DOTALL)

Script = Callable[[SeenCall], "Behaviour | Refusal | None"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """How one accepted request asked for its answer."""

    format: str  #: text, json_object or json_schema
    limit_name: str  #: max_tokens or max_completion_tokens
    details: tuple[str, ...]  #: the `detail` of each picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Odd:
    """In what a server differs from OpenAI's own. Each was seen at a real server (docs/how-to/local-models.md)."""

    pictures: int = 10_000  #: most pictures in a call
    context: int = 0  #: tokens of input and output together; 0: enough
    picture_tokens: int = 1300  #: of each picture, if it has a context
    words: bool = True  #: False: each refusal says no more than "Bad Request"
    streams: bool = False  #: it streams unless it is told not to
    only_streams: bool = False  #: it streams whatever it is told
    ignores_schema: bool = False  #: it takes a schema, and answers in its own way unless the schema is in the prompt
    grammar_fails: str = ""  #: the message of an HTTP 500 for each schema
    bad: frozenset[int] = frozenset()  #: numbers of pictures that it refuses


class FakeOpenAI:
    """The server and its records. A context manager; usable from any number of threads."""

    def __init__(
        self,
        *,
        script: Script | None = None,
        without: Iterable[str] = (),
        odd: Odd | None = None,
        models: Iterable[str] = ("vision:7b",),
        key: str = "sk-fake-key-of-the-fake",
        host: str = "127.0.0.1",
    ) -> None:
        self.key = key
        self.models = tuple(models)
        self.script = script
        self.without = set(without)
        self.odd = odd or Odd()
        self.flex = FlexServer(seconds=(0, 0))  #: how calls with service_tier "flex" are treated
        self.requests = 0  #: completion requests, the refused ones included
        self.calls: list[SeenCall] = []
        self.sent: list[Sent] = []
        self.faults: list[str] = []  #: violations of the packing protocol, and errors of the fake itself
        self.refused: list[str] = []  #: messages of the answers to requests that violated the document
        self._lock = Lock()
        self._server = ThreadingHTTPServer((host, 0), _Handler)
        self._server.fake = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.base_url = f"http://{host}:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def complete(self, raw: bytes) -> tuple[bytes, Behaviour]:
        """Handles one completion request. Returns the answer's body and the behaviour. Raises Refusal."""
        with self._lock:
            self.requests += 1
        asked = self._read(raw)
        self._refuse_what_is_odd(asked)
        with self._lock:
            call = self._remember(asked, len(raw))
            behaviour = (self.script(call) if self.script else None) or Behaviour()
        if isinstance(behaviour, Refusal):
            raise behaviour
        if behaviour.until:
            behaviour.until.wait(20)
        time.sleep(behaviour.delay)
        if behaviour.error:
            raise Refusal(behaviour.error.code, behaviour.error.message)
        if self.odd.ignores_schema and call.form == "records" and "valid against this JSON Schema" not in " ".join(call.prompt):
            records = {
                "records": [{"index": label, "result": {"seen": n}} for label, n in zip(call.labels, call.numbers, strict=True)]
            }
            behaviour = Behaviour(text=lambda _: json.dumps(records))
        body = _completion(call, asked, behaviour, self._served(call))
        if self.odd.only_streams or (self.odd.streams and asked.stream is not False) or asked.stream:
            body = _as_events(body)
        return body, behaviour

    def _served(self, call: SeenCall) -> str:
        """The service_tier of the answer. Raises Refusal if a flex call is shed."""
        if call.tier != "flex":
            return "default"
        outcome = self.flex.treat(at=0)
        if outcome.shed:
            raise Refusal(outcome.shed, "The model is currently out of capacity.", code="resource_unavailable")
        return "default" if outcome.served_as_standard else "flex"

    def _refuse_what_is_odd(self, asked: Asked) -> None:
        odd, pictures = self.odd, [part for part in asked.parts if part.text is None]

        def refuse(message: str, status: int = 400) -> None:
            raise Refusal(status, message if odd.words else "Bad Request")

        if asked.format == "json_schema" and odd.grammar_fails:
            refuse(odd.grammar_fails, 500)
        if asked.system and "system" in self.without:
            refuse("System role not supported")
        if asked.says_detail and "detail" in self.without:
            refuse("body.messages.1.content.2.image_url.detail: Extra inputs are not permitted", 422)
        if len(pictures) > odd.pictures:
            refuse(f"At most {odd.pictures} image(s) may be provided in one prompt.")
        if odd.bad.intersection(prove(part.data, part.mime) for part in pictures):
            refuse("Failed to load image or audio file")
        used = odd.picture_tokens * len(pictures)
        if odd.context and used >= odd.context:
            refuse(
                f"This model's maximum context length is {odd.context} tokens. However, your request has {used} input tokens. "
                "Please reduce the length of the input messages."
            )
        if odd.context and asked.limit and asked.limit > odd.context - used:
            refuse(
                f"'max_tokens' or 'max_completion_tokens' is too large: {asked.limit}. This model's maximum context length is "
                f"{odd.context} tokens and your request has {used} input tokens ({asked.limit} > {odd.context} - {used})."
            )

    def _read(self, raw: bytes) -> Asked:
        """Reads a request. Raises Refusal if it violates the document or needs a feature in `without`."""
        try:
            asked = read(raw)
            pictures = [part for part in asked.parts if part.text is None]
            for part in pictures:
                if part.mime not in PICTURES:
                    raise Refusal(400, f"Unsupported image type: {part.mime}", code="invalid_image_format")
        except Refusal as refusal:
            self.refused.append(str(refusal))
            raise
        if asked.model not in self.models:
            raise Refusal(404, f"model '{asked.model}' not found", code="model_not_found")
        if asked.format in self.without:
            raise Refusal(400, f"'response_format.type' must not be '{asked.format}'" if self.odd.words else "Bad Request")
        if asked.limit_name in self.without:
            text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
            raise Refusal(400, text, code="unsupported_parameter", param="max_tokens")
        return asked

    def _remember(self, asked: Asked, size: int) -> SeenCall:
        pictures = [part for part in asked.parts if part.text is None]
        numbers: list[int | None] = []
        for part in pictures:
            try:
                numbers.append(prove(part.data, part.mime))
            except ValueError as error:
                self.faults.append(str(error))
                numbers.append(None)
        parts = [GeminiPart(text=part.text, mime=part.mime, data=part.data, tokens=0) for part in asked.parts]
        layout = read_layout(parts, asked.system)
        self.faults += layout.faults
        schema, form = _records_asked(asked)
        call = SeenCall(
            order=len(self.calls),
            at=time.monotonic(),
            model=asked.model,
            prompt=layout.prompt,
            labels=layout.labels,
            numbers=tuple(numbers),
            sha256s=tuple(hashlib.sha256(part.data).hexdigest() for part in pictures),
            mimes=tuple(part.mime for part in pictures),
            by_file=tuple(False for _ in pictures),
            form=form,
            schema=schema,
            max_output_tokens=asked.limit,
            tier=asked.tier,
            server_timeout=None,
            body_bytes=size,
        )
        self.calls.append(call)
        details = tuple(part.detail for part in pictures)
        self.sent.append(Sent(format=asked.format, limit_name=asked.limit_name, details=details))
        return call


def _records_asked(asked: Asked) -> tuple[Any, Any]:
    """The schema of the records and the form of the answer.

    They are read from response_format, or from the prompt's text if the request has no response_format.
    """
    schema = asked.schema
    words = asked.system + "".join(part.text or "" for part in asked.parts)
    told = SCHEMA.search(words)
    if schema is None and told:
        schema = json.JSONDecoder().raw_decode(told[1])[0]
    records = (schema or {}).get("properties", {}).get("records")
    if records:
        return {**records, "$defs": schema.get("$defs", {})}, "records"
    return {}, "json" if asked.format != "text" or "one JSON document" in words else "text"


def _completion(call: SeenCall, asked: Asked, behaviour: Behaviour, served: str) -> bytes:
    if behaviour.garbage:
        return b"upstream connect error or disconnect/reset before headers"
    text, _, _ = _text(call, behaviour)
    if call.form == "records" and behaviour.text is None:
        text = json.dumps({"records": json.loads(text)})
    text, finish = _ended(text, call, behaviour)
    reason = {"STOP": "stop", "MAX_TOKENS": "length"}.get(finish, "content_filter")
    prompt = sum(tokens_of(part.text) if part.text else PICTURE_TOKENS[part.detail] for part in asked.parts)
    document = {
        "id": f"chatcmpl-{call.order}",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "service_tier": served,
        "model": f"{call.model}-q4",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text or None, "refusal": None},
                "logprobs": None,
                "finish_reason": reason,
            }
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": tokens_of(text), "total_tokens": prompt + tokens_of(text)},
    }
    if behaviour.no_candidates:
        document["choices"] = []
    return json.dumps(document).encode()


def _as_events(body: bytes) -> bytes:
    """The completion as a server streams it: a few characters an event, and the finish reason at the end."""
    document = json.loads(body)
    choice = document["choices"][0]
    text, head = choice["message"]["content"] or "", {name: document[name] for name in ("id", "created", "model")}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[at : at + 7]} for at in range(0, len(text), 7)]
    choices = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    choices.append([{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}])
    chunks = [{**head, "object": "chat.completion.chunk", "choices": one} for one in choices]
    chunks.append({**head, "choices": [], "usage": document["usage"]})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        fake: FakeOpenAI = self.server.fake  # type: ignore[attr-defined]
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        behaviour = Behaviour()
        try:
            if self.headers.get("Authorization") != f"Bearer {fake.key}":
                raise Refusal(401, f"Incorrect API key provided: {fake.key}.", code="invalid_api_key")
            if self.command == "GET" and self.path == "/v1/models":
                names = [{"id": name, "object": "model", "created": 0, "owned_by": "library"} for name in fake.models]
                body, status = json.dumps({"object": "list", "data": names}).encode(), 200
            elif self.command == "POST" and self.path == "/v1/chat/completions":
                if len(raw) > BODY_LIMIT:
                    raise Refusal(413, "Request too large")
                (body, behaviour), status = fake.complete(raw), 200
            else:
                raise Refusal(404, f"Invalid URL ({self.command} {self.path})")
        except Refusal as refusal:
            body, status = json.dumps({"error": refusal.error}).encode(), refusal.status
        except Exception as error:
            fake.faults.append(f"the fake itself failed: {error!r}")
            body, status = b"{}", 500
        if behaviour.reset:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream" if body.startswith(b"data:") else "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        try:
            self.wfile.write(body[: len(body) // 2] if behaviour.cut else body)
        except OSError:
            self.close_connection = True
        self.close_connection |= behaviour.cut

    do_GET = do_POST = _serve  # noqa: N815 - the names http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's own name
        """Logs nothing, because tests read `calls`."""
