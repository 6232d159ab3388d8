"""The engine for any server with OpenAI's chat completions API: Ollama, vLLM, llama.cpp, LM Studio, OpenAI itself.

Each call is one request. The finish reason is read before the text. Servers differ in the `response_format` that they accept
and in the name of the output limit. If a server refuses one, the request is sent again with the next one, and later calls of
the same kind start with it.
The API's schemas: https://github.com/openai/openai-openapi (CreateChatCompletionRequest and its response).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import msgspec
import pybase64

from pipeline.engines.openai_errors import ADDRESS, PERSON_SECONDS, BadRequest, Unreadable, meaning
from pipeline.engines.reaching import Server, elsewhere, interrupted, mounts, time_limits
from pipeline.engines.wording import instruction
from pipeline.plan import RAW_BYTES
from pipeline.ports import Cause, EngineConfig, EngineLimits, ModelFault, ModelRefused, ModelUnavailable, ProbeFailed, Reencode
from pipeline.types import MAX_OUTPUT_TOKENS, MB, Answer, Call, Detail, Finish, Form, ItemCode, Picture, Refused

MOST_PICTURES = 900
MOST_RAW_BYTES = RAW_BYTES
TAKEN = frozenset({"image/png", "image/jpeg"})  #: formats that all of these servers decode; llama.cpp decodes no others
OVERLOAD_SECONDS = 15.0
MOST_ANSWERED = 16 * MB  #: bytes of an answer
MOST_KNOWN = 256  #: kinds of calls for which the accepted `_Manner` is remembered
DETAIL = {Detail.LOW: "low", Detail.MEDIUM: "auto", Detail.HIGH: "high", Detail.ULTRA: "high"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Manner:
    """How a request asks for JSON, and how it names the output limit."""

    formats: tuple[str, ...]  #: types of `response_format` that the server has not refused; the first one is used
    limit: str = "max_tokens"  #: the name that local servers accept; OpenAI's newest models refuse it

    def without(self, refused: BadRequest) -> _Manner | None:
        """The next manner to try. None if the refusal was about something else, or no other manner is left."""
        if refused.is_about("max_tokens", "max_completion_tokens") and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        about_format = refused.is_about("response_format", "json_schema", "json_object", "schema", "grammar", "guided")
        if about_format and len(self.formats) > 1:
            return replace(self, formats=self.formats[1:])
        return None


class OpenAiEngine:
    """Holds one HTTP client for the process. `reencode` makes a JPEG of a picture that such servers do not accept."""

    name = "openai"
    limits = EngineLimits(pictures=MOST_PICTURES, raw_bytes=MOST_RAW_BYTES)
    warnings: tuple[str, ...] = ()

    def __init__(self, *, base_url: str, api_key: str, model: str, reencode: Reencode) -> None:
        self.model = model
        self._reencode = reencode
        self._server = Server(url=base_url, setting=ADDRESS)
        self._client = _client(base_url, api_key)
        self._manners: dict[tuple[object, ...], _Manner] = {}

    def ask(self, call: Call) -> Answer:
        """Makes one request. If the server refuses its manner, makes further requests until one is accepted."""
        ends = time.monotonic() + call.timeout
        pictures: list[Picture] = []
        for picture in call.pictures:
            taken = self._taken(picture)
            if isinstance(taken, Refused):
                return Answer(finish=Finish.UNREADABLE, code=ItemCode.MODEL_REFUSED, detail=taken.detail)
            pictures.append(taken)
        reencoded = frozenset(before.number for before, after in zip(call.pictures, pictures, strict=True) if after is not before)
        told, schema = instruction(call)
        content = msgspec.Raw(msgspec.json.encode(_content(call, pictures)))
        kind = (call.model, call.form, call.json_mode, msgspec.json.encode(schema))
        manner = self._manners.get(kind) or _Manner(formats=_formats(call))
        while True:
            body = _body(call.model or self.model, told, content, schema, manner)
            try:
                document = self._send(body, ends)
            except BadRequest as refused:
                nxt = manner.without(refused)
                if nxt is None:
                    raise ModelRefused(str(refused)) from refused
                manner = nxt
                continue
            except Unreadable as error:
                return Answer(finish=error.finish, code=error.code, detail=str(error))
            if len(self._manners) >= MOST_KNOWN:
                self._manners.clear()
            self._manners[kind] = manner
            return replace(_answer(document, call.form), reencoded=reencoded)

    def close(self) -> None:
        self._client.close()

    def _taken(self, picture: Picture) -> Picture | Refused:
        if picture.mime in TAKEN and len(picture.data) <= MOST_RAW_BYTES:
            return picture
        made = self._reencode(picture.data)
        return made if isinstance(made, Refused) else replace(picture, data=made.data, mime=made.mime)

    def _send(self, body: bytes, ends: float) -> Any:
        """The JSON document of the response.

        `ends`: when the call must be over, by time.monotonic(). The client's own time-out bounds only each single read.
        """
        left = max(ends - time.monotonic(), 0.1)
        headers = {"Content-Type": "application/json"}
        try:
            with self._client.stream(
                "POST", "chat/completions", content=body, headers=headers, timeout=time_limits(left)
            ) as response:
                text = _read(response, ends)
        except httpx2.HTTPError as error:
            raise interrupted(error, self._server) from error
        if other := elsewhere(response, text, self._server):
            raise other
        if response.status_code != 200:
            raise meaning(response.status_code, response.headers.get("Retry-After"), text)
        try:
            document = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            said = "what came is no JSON"
            raise ModelUnavailable(said, retry_after=OVERLOAD_SECONDS, cause=Cause.GARBLED) from error
        error_ = document.get("error") if isinstance(document, dict) else None
        if error_ and not document.get("choices"):  # llama.cpp has answered 200 with an error in it
            code = error_.get("code") if isinstance(error_, dict) else None
            raise meaning(code if isinstance(code, int) and code >= 400 else 500, None, text)
        return document


def check_model(*, base_url: str, api_key: str, model: str, timeout: float) -> None:
    """Checks that the server answers, accepts the key and has the model. Raises ModelUnavailable or ModelRefused."""
    server = Server(url=base_url, setting=ADDRESS)
    with _client(base_url, api_key) as client:
        try:
            response = client.get("models", timeout=time_limits(timeout))
        except httpx2.HTTPError as error:
            raise interrupted(error, server) from error
    if other := elsewhere(response, response.content, server):
        raise other
    status = response.status_code
    if status != 200:
        said = meaning(status, None, response.content)
        notice, cause = (said.notice, said.cause) if isinstance(said, ModelUnavailable) else ("", Cause.OVERLOADED)
        text = f"HTTP {status} from {base_url}/models"
        raise ModelUnavailable(text, retry_after=PERSON_SECONDS, notice=notice, cause=cause, status=status)
    try:
        names = [entry["id"] for entry in msgspec.json.decode(response.content)["data"]]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise ModelRefused(f"{base_url}/models answers with no list of models") from error
    if model not in names and f"{model}:latest" not in names:
        raise ModelRefused(f"there is no model {model}; there are {', '.join(map(str, names[:20])) or 'none'}")


def open_engine(config: EngineConfig, reencode: Reencode) -> OpenAiEngine:
    return OpenAiEngine(base_url=config.base_url, api_key=config.api_key, model=config.model, reencode=reencode)


def probe(config: EngineConfig, timeout: float) -> str:
    """See pipeline.ports.EngineModule."""
    try:
        check_model(base_url=config.base_url, api_key=config.api_key, model=config.model, timeout=timeout)
    except ModelRefused as error:
        raise ProbeFailed(str(error), "Look at MODEL, and load the model into the server.") from None
    except ModelUnavailable as error:
        refused = error.status in {401, 402, 403}
        todo = "Look at OPENAI_API_KEY." if refused else "Look at OPENAI_BASE_URL, and whether its server runs."
        # Some servers and keys allow calls but not the list of models, so only these two say what a call would meet.
        certain = error.cause is Cause.AWAY or error.status == 401
        raise ProbeFailed(str(error), todo, error if certain else None) from None
    return f"{config.model} is there, its server answers"


def _client(base_url: str, api_key: str) -> httpx2.Client:
    return httpx2.Client(
        base_url=f"{base_url.rstrip('/')}/",
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        follow_redirects=False,
        mounts=mounts(base_url),
    )


def _read(response: httpx2.Response, ends: float) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for piece in response.iter_bytes():
        size += len(piece)
        pieces.append(piece)
        if time.monotonic() > ends:
            raise httpx2.ReadTimeout("the answer did not end in time")
        if size > MOST_ANSWERED:
            raise ModelFault(f"the answer is over {MOST_ANSWERED // MB} MB")
    return b"".join(pieces)


def _formats(call: Call) -> tuple[str, ...]:
    if call.form is Form.RECORDS:
        return ("json_schema", "json_object", "")
    return ("json_object", "") if call.form is Form.JSON else ("",)


def _content(call: Call, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """The prompt, then each picture after its label."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": call.prompt}]
    for picture in pictures:
        url = f"data:{picture.mime};base64,{pybase64.b64encode_as_string(picture.data)}"
        parts.append({"type": "text", "text": f"Image {picture.number}:"})
        parts.append({"type": "image_url", "image_url": {"url": url, "detail": DETAIL[call.detail]}})
    return parts


def _body(model: str, told: str, content: msgspec.Raw, schema: dict[str, Any] | None, manner: _Manner) -> bytes:
    body: dict[str, Any] = {"model": model, manner.limit: MAX_OUTPUT_TOKENS}
    format_ = manner.formats[0]
    if schema is not None:
        # OpenAI requires an object at the root of the JSON, so the array is put into one.
        wrapped = _in_an_object(schema)
        told = f"{told} Put the array into an object, as its 'records'."
        if format_ == "json_schema":
            body["response_format"] = {"type": format_, "json_schema": {"name": "records", "schema": wrapped}}
        else:
            text = msgspec.json.encode(wrapped).decode()
            told = f"{told} Answer with JSON alone, valid against this JSON Schema:\n{text}"
    if format_ == "json_object":
        body["response_format"] = {"type": format_}
    body["messages"] = [{"role": "system", "content": told}, {"role": "user", "content": content}]
    return msgspec.json.encode(body)


def _in_an_object(schema: dict[str, Any]) -> dict[str, Any]:
    records = {name: value for name, value in schema.items() if name != "$defs"}
    wrapped = {"type": "object", "properties": {"records": records}, "required": ["records"], "additionalProperties": False}
    return {**wrapped, "$defs": schema["$defs"]} if "$defs" in schema else wrapped


def _answer(document: Any, form: Form) -> Answer:
    """Reads the refusal and the finish reason, then the text. Raises ModelFault for an answer that can't be used."""
    try:
        choice = document["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
        usage = document.get("usage") or {}
        answered = Answer(
            finish=Finish.COMPLETE,
            input_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
            model_version=str(document.get("model") or ""),
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ModelFault("the answer is no chat completion") from error
    if finish == "content_filter" or refusal:
        detail = str(finish if finish == "content_filter" else "refusal")
        return replace(answered, finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail=detail)
    if finish == "length":
        return replace(answered, finish=Finish.TRUNCATED, detail=finish)
    if finish != "stop" or not isinstance(text, str) or not text.strip():
        size = len(text) if isinstance(text, str) else 0
        raise ModelFault(f"the answer ended with {finish or 'no finish reason'} and {size} characters")
    return replace(answered, text=_records(text) if form is Form.RECORDS else text)


def _records(text: str) -> str:
    """Takes the array out of its object. Any other text is returned as it is, because the caller checks it."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
    if isinstance(document, dict) and isinstance(document.get("records"), list):
        return msgspec.json.encode(document["records"]).decode()
    return text
