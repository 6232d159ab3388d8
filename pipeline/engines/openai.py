"""The engine for any server with OpenAI's chat completions API: Ollama, vLLM, llama.cpp, LM Studio, OpenAI itself.

Each call is one request. If a server refuses the manner of a request, it is sent again in another one, and later calls begin with
the manner that the server has accepted (pipeline/engines/manners.py). pipeline/engines/openai_answer.py reads the answers.
The API's schemas: https://github.com/openai/openai-openapi (CreateChatCompletionRequest and its response).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx2
import msgspec
import pybase64

from pipeline.engines.lessons import LocalLessons
from pipeline.engines.manners import OBJECT, SCHEMA, Manner, Manners
from pipeline.engines.openai_answer import FLEX, read_completion, read_document
from pipeline.engines.openai_errors import ADDRESS, PERSON_SECONDS, meaning
from pipeline.engines.reaching import Server, elsewhere, interrupted, mounts, time_limits
from pipeline.engines.request_file import sent_from
from pipeline.engines.wording import in_words, instruction
from pipeline.plan import RAW_BYTES
from pipeline.ports import (
    Cause,
    EngineConfig,
    EngineLimits,
    Lessons,
    ModelFault,
    ModelRefused,
    ModelUnavailable,
    ProbeFailed,
    Reencode,
)
from pipeline.types import MB, Answer, Call, Detail, Finish, ItemCode, Picture, Refused, Tier

MOST_PICTURES = 900
MOST_RAW_BYTES = RAW_BYTES
TAKEN = frozenset({"image/png", "image/jpeg"})  #: formats that all of these servers decode; llama.cpp decodes no others
OVERLOAD_SECONDS = 15.0
MOST_ANSWERED = 16 * MB  #: bytes of an answer
DETAIL = {Detail.LOW: "low", Detail.MEDIUM: "auto", Detail.HIGH: "high", Detail.ULTRA: "high"}


class _NotTaken(Exception):
    """A picture can't be made one that such servers take. The text says why."""


class OpenAiEngine:
    """Holds one HTTP client for the process. `reencode` makes a JPEG of a picture that such servers do not accept."""

    name = "openai"
    limits = EngineLimits(pictures=MOST_PICTURES, raw_bytes=MOST_RAW_BYTES)
    warnings: tuple[str, ...] = ()

    def __init__(self, *, base_url: str, api_key: str, model: str, reencode: Reencode, lessons: Lessons | None = None) -> None:
        """`lessons`: what its server has taught other processes; None: it remembers by itself."""
        self.model = model
        self._reencode = reencode
        self._server = Server(url=base_url, setting=ADDRESS)
        self._client = _client(base_url, api_key)
        self._manners = Manners(lessons or LocalLessons(), server=f"{self.name} {base_url.rstrip('/')}")

    def ask(self, call: Call) -> Answer:
        """Makes one request. If the server refuses its manner, makes further requests until one is accepted."""
        ends = time.monotonic() + call.timeout
        reencoded = frozenset(picture.number for picture in call.pictures if not _is_taken(picture))
        _, schema = instruction(call)
        model = call.model or self.model

        def attempt(manner: Manner) -> tuple[Answer, bool]:
            # Pictures are made anew for each request, so that a call that waits for minutes holds no second copy of them.
            document = self._send(
                _body(model, call, [self._taken(picture) for picture in call.pictures], manner), ends, call.tier
            )
            return read_completion(call, document, schema=schema)

        try:
            return replace(self._manners.ask(call, model, schema, attempt), reencoded=reencoded)
        except _NotTaken as refused:
            return Answer(finish=Finish.UNREADABLE, code=ItemCode.MODEL_REFUSED, detail=str(refused))

    def most_pictures(self, model: str) -> int:
        return self._manners.most_pictures(model or self.model, self.limits.pictures)

    def learn_pictures(self, model: str, most: int) -> None:
        self._manners.learn_pictures(model or self.model, most)

    def close(self) -> None:
        self._client.close()

    def _taken(self, picture: Picture) -> Picture:
        """The picture in a form that such servers take. Raises _NotTaken."""
        if _is_taken(picture):
            return picture
        made = self._reencode(picture.data)
        if isinstance(made, Refused):
            raise _NotTaken(made.detail)
        return replace(picture, data=made.data, mime=made.mime)

    def _send(self, body: bytes, ends: float, tier: Tier) -> Any:
        """The JSON document of the response.

        `ends`: when the call must be over, by time.monotonic(). The client's own time-out bounds only each single read.
        """
        left = max(ends - time.monotonic(), 0.1)
        headers = {"Content-Type": "application/json"}
        sent = sent_from(body, tier)
        del body
        try:
            with (
                sent as content,
                self._client.stream(
                    "POST", "chat/completions", content=content, headers=headers, timeout=time_limits(left)
                ) as response,
            ):
                text = _read(response, ends)
        except httpx2.HTTPError as error:
            raise interrupted(error, self._server) from error
        if other := elsewhere(response, text, self._server):
            raise other
        if response.status_code != 200:
            raise meaning(response.status_code, response.headers.get("Retry-After"), text, tier=tier)
        document = read_document(response.headers.get("Content-Type", ""), text)
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
    return OpenAiEngine(
        base_url=config.base_url, api_key=config.api_key, model=config.model, reencode=reencode, lessons=config.lessons
    )


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


def _is_taken(picture: Picture) -> bool:
    """Whether a picture is sent as it is."""
    return picture.mime in TAKEN and len(picture.data) <= MOST_RAW_BYTES


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


def _content(prompt: str, pictures: Sequence[Picture], detail: str | None) -> list[dict[str, Any]]:
    """The prompt, then each picture after its label. `detail`: how closely the model looks; None: the server decides."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
    for picture in pictures:
        image = {"url": f"data:{picture.mime};base64,{pybase64.b64encode_as_string(picture.data)}"}
        parts.append({"type": "text", "text": f"Image {picture.number}:"})
        parts.append({"type": "image_url", "image_url": image if detail is None else {**image, "detail": detail}})
    return parts


def _body(model: str, call: Call, pictures: Sequence[Picture], manner: Manner) -> bytes:
    told, schema = instruction(call)
    body: dict[str, Any] = {"model": model}
    if call.tier is Tier.ECONOMY:
        body["service_tier"] = FLEX
    if manner.stream is not None:  # some servers stream unless they are told not to
        body["stream"] = manner.stream
    if manner.limit:
        body[manner.limit] = manner.output
    if schema is not None:
        # OpenAI requires an object at the root of the JSON, so the array is put into one.
        wrapped = _in_an_object(schema)
        told = f"{told} Put the array into an object, as its 'records'."
        if manner.format == SCHEMA:
            body["response_format"] = {"type": SCHEMA, "json_schema": {"name": "records", "schema": wrapped}}
        if manner.format != SCHEMA or manner.told:
            told = in_words(told, wrapped)
    if manner.format == OBJECT:
        body["response_format"] = {"type": OBJECT}
    detail = DETAIL[call.detail] if manner.detail else None
    if manner.system:
        content = _content(call.prompt, pictures, detail)
        body["messages"] = [{"role": "system", "content": told}, {"role": "user", "content": content}]
    else:
        body["messages"] = [{"role": "user", "content": _content(f"{told}\n\n{call.prompt}", pictures, detail)}]
    return msgspec.json.encode(body)


def _in_an_object(schema: dict[str, Any]) -> dict[str, Any]:
    records = {name: value for name, value in schema.items() if name != "$defs"}
    wrapped = {"type": "object", "properties": {"records": records}, "required": ["records"], "additionalProperties": False}
    return {**wrapped, "$defs": schema["$defs"]} if "$defs" in schema else wrapped
