"""The Gemini engine sends one request for each call, and translates each outcome into the port's terms.

The body of a question is built here (gemini_wire.py) and sent over an HTTP client that the SDK shares. Files, models and errors
are those of the SDK, google-genai. The SDK's retries are off, because they ignore the wait that a 429 asks for. Its defaults have
no timeout, so each call sets one. A blocked or empty answer is HTTP 200, so the block reason and the finish reason are read
before the text.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import ceil
from typing import Any
from urllib.parse import quote

import httpx2
import structlog
from google import genai
from google.genai import errors, types
from msgspec import MsgspecError

from pipeline.engines.gemini_wire import Response, Tokens, read_response, request_body
from pipeline.engines.lessons import LocalLessons
from pipeline.engines.manners import Manner, Manners
from pipeline.engines.reaching import Server, elsewhere, interrupted, mounts, time_limits
from pipeline.engines.reading import read_answer
from pipeline.engines.refusals import REFUSING, Unreadable, Why, refusal
from pipeline.engines.request_file import sent_from
from pipeline.engines.setup_faults import Fault, fault_of
from pipeline.engines.shedding import shed
from pipeline.engines.wording import instruction
from pipeline.plan import RAW_BYTES
from pipeline.ports import (
    WAITS,
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
from pipeline.types import Answer, Call, Finish, ItemCode, Picture, Tier

log = structlog.get_logger(__name__)

GOOGLE = "https://generativelanguage.googleapis.com"
VERSION = "v1beta"
MOST_PICTURES = 900  #: pictures a call; a picture has up to 1,120 tokens and the context 1,048,576, so about 936 would fit
MOST_RAW_BYTES = RAW_BYTES  #: a larger picture is uploaded with the Files API
OVERLOAD_SECONDS = 15.0  #: the wait after an overload
QUOTA_SECONDS = 20.0  #: the wait after a 429 that names no time
DAILY_SECONDS = 600.0  #: the wait after a 429 for a day's quota
PERSON_SECONDS = 30.0  #: the wait while somebody has to replace a key or pay a bill
FILE_SECONDS = 60.0  #: the longest wait for an uploaded picture; normally a picture is ready at once

RECITATION = {"RECITATION", "IMAGE_RECITATION"}
BLOCKS = {"SAFETY", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "MODEL_ARMOR"}
BLOCKS |= {"JAILBREAK", "OTHER", "IMAGE_OTHER", "LANGUAGE"}
#: The answer was cut at a limit of tokens. CONTINUATION offers to go on from there, which is useless if the cut is inside a record.
CUT = {"MAX_TOKENS", "CONTINUATION"}
#: Google has stopped answering this account. The pictures are not the reason.
STOPPED = {"ESCALATION", "PUP_LIMITED_DISABLED"}
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s")
_KEY = re.compile(r"AIza[\w-]+|(?<=api_key:)[^'\"\s]+")


class _Interrupted(Exception):
    """The call failed, but it will probably succeed if it is sent again at once."""


class _Garbled(_Interrupted):
    """The server sent an answer that cannot be read. This call may cause such an answer each time."""


class GeminiEngine:
    """The engine has one client for the whole process, because building one takes 50 ms and the client keeps the connections."""

    name = "gemini"
    limits = EngineLimits(pictures=MOST_PICTURES, raw_bytes=MOST_RAW_BYTES)
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        api_key: str,
        model: str,
        base_url: str = "",
        store: bool = False,
        lessons: Lessons | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`store`: whether Google may keep requests, including their pictures. `lessons`: what its server has taught other
        processes; None: it remembers by itself. `pause`: waits some seconds; tests replace it.
        """
        self.model = model
        self._store = store
        self._pause = pause
        self._key = api_key.strip()  # a key file often ends with a line break, which the SDK strips too
        self._server = _server(base_url)
        self._url = f"{(base_url or GOOGLE).rstrip('/')}/{VERSION}"
        self._manners = Manners(lessons or LocalLessons(), server=f"{self.name} {self._url}")
        self._http = httpx2.Client(
            follow_redirects=True,
            timeout=None,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            mounts=mounts(self._server.url),
        )
        self._client = _client(api_key, base_url, self._http)

    def ask(self, call: Call) -> Answer:
        """Sends one request, and further ones if the model refuses its manner (pipeline/engines/manners.py).

        If the request will probably succeed when sent again at once, the error's cause is OVERLOADED or GARBLED.
        """
        try:
            with self._uploaded(call) as files:
                return self._asked(call, {number: file.uri or "" for number, file in files.items()})
        except _Interrupted as error:
            cause = Cause.GARBLED if isinstance(error, _Garbled) else Cause.OVERLOADED
            raise ModelUnavailable(str(error), retry_after=OVERLOAD_SECONDS, cause=cause) from error
        except Unreadable as error:
            return Answer(finish=error.finish, code=error.code, detail=str(error))

    def most_pictures(self, model: str) -> int:
        return self._manners.most_pictures(model or self.model, self.limits.pictures)

    def learn_pictures(self, model: str, most: int) -> None:
        self._manners.learn_pictures(model or self.model, most)

    def _asked(self, call: Call, places: Mapping[int, str]) -> Answer:
        """The answer in the manner that the model accepts. `places`: the addresses of uploaded pictures, by number."""
        ends = time.monotonic() + call.timeout
        _, schema = instruction(call)

        def attempt(manner: Manner) -> tuple[Answer, bool]:
            timed = replace(call, timeout=max(ends - time.monotonic(), 0.001))
            response = self._generate(timed, request_body(call, places, manner=manner, store=self._store))
            return _answer(call, response, schema)

        return self._manners.ask(call, call.model or self.model, schema, attempt)

    def close(self) -> None:
        self._client.close()
        self._http.close()

    def _generate(self, call: Call, body: bytes) -> Response:
        model = call.model or self.model
        sent = sent_from(body, call.tier)
        del body  # so that a call that waits for minutes holds no copy of it
        path = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
        with sent as content, _translated(self._server):
            response = self._http.post(
                f"{self._url}/{quote(path, safe='/:@')}:generateContent",
                content=content,
                headers={
                    "Content-Type": "application/json",
                    "X-Goog-Api-Key": self._key,
                    "X-Server-Timeout": str(ceil(call.timeout)),
                },
                timeout=time_limits(max(call.timeout, 0.001)),
                follow_redirects=False,  # a redirect would send the key to another host
            )
            if other := elsewhere(response, response.content, self._server):
                raise other
            try:
                errors.APIError.raise_for_response(response)
            except errors.APIError as error:
                if call.tier is Tier.ECONOMY and _is_shed(error):
                    raise shed(f"HTTP {error.code}", status=error.code, retry_after=_asked_wait(error)) from error
                raise
            except UnicodeDecodeError:  # the body is the page of a proxy, of which only the status counts
                page = {"message": response.text, "status": response.reason_phrase}
                errors.APIError.raise_error(response.status_code, page, response)
            return read_response(response.content)

    @contextmanager
    def _uploaded(self, call: Call) -> Iterator[dict[int, types.File]]:
        """Uploads the pictures that are too large for a request, and deletes the files afterwards. Yields them by their numbers."""
        options = types.HttpOptions(timeout=max(int(min(call.timeout, FILE_SECONDS) * 1000), 1))
        files: dict[int, types.File] = {}
        try:
            for picture in call.pictures:
                if len(picture.data) > MOST_RAW_BYTES:
                    with _translated(self._server):
                        files[picture.number] = self._upload(picture, options)
            with _translated(self._server):
                for number, file in files.items():
                    files[number] = self._taken_in(file, options)
            yield files
        finally:
            for file in files.values():
                self._forget(file, options)

    def _upload(self, picture: Picture, options: types.HttpOptions) -> types.File:
        config = types.UploadFileConfig(mime_type=picture.mime, http_options=options)
        return self._client.files.upload(file=io.BytesIO(picture.data), config=config)

    def _taken_in(self, file: types.File, options: types.HttpOptions) -> types.File:
        """Waits until the model can read the file, and returns it. Normally a picture can be read at once."""
        ends = time.monotonic() + FILE_SECONDS
        while file.state is types.FileState.PROCESSING:
            if time.monotonic() > ends:
                raise _Interrupted("the model did not take in an uploaded picture")
            self._pause(0.5)
            file = self._client.files.get(name=file.name or "", config=types.GetFileConfig(http_options=options))
        if file.state is types.FileState.FAILED:
            raise Unreadable("the model could not read the uploaded picture", why=Why.PICTURE)
        return file

    def _forget(self, file: types.File, options: types.HttpOptions) -> None:
        try:
            self._client.files.delete(name=file.name or "", config=types.DeleteFileConfig(http_options=options))
        except errors.APIError as error:
            if error.code not in {403, 404}:  # Google answers either of them for a file that is gone
                log.warning("model_file_not_deleted", code=error.code)
        except (httpx2.HTTPError, json.JSONDecodeError) as error:
            # A file that stays is no harm, because Google deletes files by itself after two days.
            log.warning("model_file_not_deleted", reason=type(error).__name__)


def check_model(*, api_key: str, model: str, base_url: str = "", timeout: float) -> None:
    """Checks within `timeout` seconds that the key is valid and the model answers prompts. The check costs nothing.

    Raises ModelUnavailable or ModelRefused, whose text says what the model's server said.
    """
    config = types.GetModelConfig(http_options=types.HttpOptions(timeout=max(int(timeout * 1000), 1)))
    http = httpx2.Client(mounts=mounts(_server(base_url).url))  # it follows no redirect, because the next host would get the key
    client = _client(api_key, base_url, http)
    try:
        with _translated(_server(base_url)):
            found = client.models.get(model=model, config=config)
    except _Interrupted as error:
        raise ModelUnavailable(str(error), retry_after=OVERLOAD_SECONDS) from error
    finally:
        client.close()
        http.close()
    if found.supported_actions and "generateContent" not in found.supported_actions:
        raise ModelRefused(f"{model} answers no prompts")


def open_engine(config: EngineConfig, _reencode: Reencode) -> GeminiEngine:
    return GeminiEngine(
        api_key=config.api_key, model=config.model, base_url=config.base_url, store=config.store, lessons=config.lessons
    )


def probe(config: EngineConfig, timeout: float) -> str:
    """See pipeline.ports.EngineModule."""
    try:
        check_model(api_key=config.api_key, model=config.model, base_url=config.base_url, timeout=timeout)
    except ModelUnavailable as error:
        raise ProbeFailed(str(error), _todo(error.status), error if error.cause.ends_held else None) from None
    except ModelRefused as error:
        raise ProbeFailed(str(error), _todo(None)) from None
    return f"{config.model} answers, the key is valid"


def _todo(status: int | None) -> str:
    if status is None:
        return "Look at GEMINI_BASE_URL, and whether this machine may reach it."
    if status == 404:
        return "Look at MODEL: there is no such model for this key."
    if status in {400, 401, 402, 403}:
        return "Look at GEMINI_API_KEY: create a new key, or repair what the message names."
    return "Try again later: the key was not looked at."


def _server(base_url: str) -> Server:
    return Server(url=base_url or GOOGLE, setting="GEMINI_BASE_URL")


def _client(api_key: str, base_url: str, http: httpx2.Client | None = None) -> genai.Client:
    return genai.Client(
        api_key=api_key,
        vertexai=False,  # otherwise the SDK would read it from the environment
        http_options=types.HttpOptions(
            base_url=base_url or GOOGLE,
            api_version=VERSION,
            retry_options=types.HttpRetryOptions(attempts=1),
            httpx_client=http,
        ),
    )


@contextmanager
def _translated(server: Server) -> Iterator[None]:
    """Translates the exceptions of the SDK and its transport into those of the port."""
    try:
        yield
    except errors.APIError as error:
        raise _meaning(error, server) from error
    # The errors of pydantic and json are ValueErrors.
    except (ValueError, RecursionError, MsgspecError, errors.UnknownApiResponseError) as error:
        raise _Garbled(f"{type(error).__name__} while reading the model's answer") from error
    except httpx2.HTTPError as error:
        raise interrupted(error, server) from error


#: How to mend what stops the calls until a person acts.
_REMEDY = {
    Fault.KEY: "Set GEMINI_API_KEY to a valid key.",
    Fault.RIGHTS: "Look at what GEMINI_API_KEY may do in its project at Google.",
    Fault.CREDIT: "Set up billing for the project of GEMINI_API_KEY.",
    Fault.REGION: "Run the service where Google offers the API, or set ENGINE=openai with another server.",
    Fault.MODEL: "Set MODEL to a model that this key may use.",
    Fault.ADDRESS: "Correct GEMINI_BASE_URL.",
}


def _meaning(error: errors.APIError, server: Server) -> Exception:
    """The port's exception for an HTTP error of the model.

    The model's own text is shortened, because it may quote the request. The key is cut out of it, because the sender of the job
    sees the text: an example is "Consumer 'api_key:…' has been suspended".
    """
    code, said = error.code, str(error.message or error.status or "")
    text = _KEY.sub("…", said.strip())[:300]
    if isinstance(error.response, httpx2.Response) and (other := elsewhere(error.response, error.response.content, server)):
        return other
    reasons = {str(detail.get("reason")) for detail in _details(error)}
    if code == 429:
        return _quota(error)
    if code in {408, 502, 503, 504}:
        return _Interrupted(f"the model answered HTTP {code}")
    if code == 500:
        return ModelFault(f"HTTP 500 {text}")
    fault = Fault.KEY if "API_KEY_INVALID" in reasons else Fault.MODEL if code == 404 else fault_of(code, said)
    if fault:
        notice = f"The model can't be asked (HTTP {code}): {text} {_REMEDY[fault]}{WAITS}"
        return ModelUnavailable(f"HTTP {code} {text}", retry_after=PERSON_SECONDS, notice=notice, cause=fault.cause, status=code)
    refused = refusal(code, f"The model refused the request (HTTP {code}): {text}", said)
    if refused.why is Why.BLIND:
        notice = f"The model takes no images (HTTP {code}): {text} Set MODEL to one that does.{WAITS}"
        return ModelUnavailable(f"HTTP {code} {text}", retry_after=PERSON_SECONDS, notice=notice, cause=Cause.MODEL, status=code)
    return refused if code in REFUSING else ModelRefused(str(refused))


def _quota(error: errors.APIError) -> ModelUnavailable:
    """The exception for a 429. Its RetryInfo says how long to wait, but may be missing. After a day's quota the wait is longer."""
    details = _details(error)
    daily = any("PerDay" in str(detail.get("violations")) for detail in details)
    if daily:
        notice = "The model's quota for today is used up. The job goes on when there is quota again."
        return ModelUnavailable("daily quota", retry_after=DAILY_SECONDS, notice=notice, cause=Cause.QUOTA, status=429)
    seconds = _asked_wait(error)
    retry_after = QUOTA_SECONDS if seconds is None else seconds
    return ModelUnavailable("rate limited", retry_after=retry_after, cause=Cause.RATE, status=429)


def _asked_wait(error: errors.APIError) -> float | None:
    """The seconds that the RetryInfo of an error asks to wait. None if there is none."""
    delays = (_DELAY.fullmatch(str(detail.get("retryDelay", ""))) for detail in _details(error))
    return next((float(delay[1]) for delay in delays if delay), None)


def _is_shed(error: errors.APIError) -> bool:
    """Whether a call in the tier `economy` was refused for lack of capacity: by a 503, or by a 429 that names no quota of ours."""
    return error.code == 503 or (error.code == 429 and not any("violations" in detail for detail in _details(error)))


def _details(error: errors.APIError) -> list[dict[str, Any]]:
    body = error.details.get("error", error.details) if isinstance(error.details, dict) else {}
    details = body.get("details") if isinstance(body, dict) else None
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _answer(call: Call, response: Response, schema: Mapping[str, Any] | None) -> tuple[Answer, bool]:
    """Reads the block reason first, then the finish reason, then the text. Also says whether records fit the `schema`.

    Raises ModelUnavailable if Google has stopped answering the account. Raises ModelFault if the answer has no content: it is
    empty, or it ended with MALFORMED_RESPONSE, NO_IMAGE or another reason that does not concern a picture.
    """
    usage = response.usage_metadata or Tokens()
    answered = Answer(
        finish=Finish.COMPLETE,
        input_tokens=usage.prompt_token_count or 0,
        output_tokens=(usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0),
        model_version=response.model_version or "",
        tier=usage.tier,
    )
    blocked = response.prompt_feedback.block_reason if response.prompt_feedback else None
    name = (blocked or (response.candidates[0].finish_reason if response.candidates else None) or "").upper()
    if blocked or name in BLOCKS | RECITATION:
        code = ItemCode.RECITATION if name in RECITATION else ItemCode.SAFETY_BLOCKED
        return replace(answered, finish=Finish.BLOCKED, code=code, detail=name), True
    if name in CUT:
        return replace(answered, finish=Finish.TRUNCATED, detail=name), True
    if name in STOPPED:
        notice = f"The model no longer answers this account ({name}): see the account at Google.{WAITS}"
        raise ModelUnavailable(f"the answer ended with {name}", retry_after=PERSON_SECONDS, notice=notice, cause=Cause.ACCOUNT)
    read = read_answer(call, [response.text], schema=schema)
    if name not in {"STOP", "FINISH_REASON_UNSPECIFIED", ""} or not read.text.strip():
        raise ModelFault(f"the answer ended with {name or 'no finish reason'} and {len(read.text)} characters")
    return replace(answered, text=read.text), read.fits
