"""Asks the model about the images of a chunk until each has a reply or a failure.

What to do with each outcome is gemini-contract's table, for every engine alike: split what is truncated, bisect what is
blocked down to the culprit, ask again for just what is missing, and never align by position. Each call's outcome is
yielded as it comes, so that the caller commits it before the next one is paid for.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.merge import MalformedJson, parse_json
from pipeline.plan import halves, pack_calls
from pipeline.ports import Engine, ModelFault, ModelRefused
from pipeline.types import MAX_IMAGES, Answer, Call, Failure, Finish, Form, ItemCode, Picture, Question, Reply, Staged, Usage

MOST_PICTURES = MAX_IMAGES
RE_ASKS = 2  #: how often an image with a missing, doubled or malformed result is asked for again

Group = tuple[Staged, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one model call settled."""

    replies: tuple[Reply, ...] = ()
    failures: tuple[Failure, ...] = ()
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdict:
    """What a call settled, and the groups that it leaves to be asked next."""

    outcome: Outcome
    again: tuple[Group, ...] = ()


def ask(
    staged: Sequence[Staged],
    *,
    engine: Engine,
    question: Question,
    load: Callable[[int], bytes],
    timeout: Callable[[], float],
    pictures: int = MOST_PICTURES,
    waited: bool = False,
    room: Callable[[int], AbstractContextManager[None]] = lambda _size: nullcontext(),
) -> Iterator[Outcome]:
    """One Outcome for each model call; together they name each image of `staged` exactly once.

    `load` gives an image's bytes by its index; `timeout` the seconds the next call may take; `pictures`: most of a call,
    beside the engine's limit; `waited`: somebody holds a connection for the answer; `room`: held for as many bytes as a call's
    pictures have. Raises what the engine raises when it can't be asked (ModelUnavailable): outcomes yielded before stand.
    """
    tries = _Tries()
    most = min(pictures, engine.limits.pictures)
    waiting = deque(pack_calls(staged, pictures=most, raw_bytes=engine.limits.raw_bytes))
    while waiting:
        group = waiting.popleft()
        try:
            with room(sum(image.size for image in group)):
                call = Call(
                    prompt=question.prompt,
                    form=question.form,
                    json_mode=question.json_mode,
                    pictures=tuple(_picture(place, image, question.form, load) for place, image in enumerate(group, start=1)),
                    timeout=timeout(),
                    model=question.model,
                    fallback_models=question.fallback_models,
                    detail=question.detail,
                    waited=waited,
                )
                answer = engine.ask(call)
                del call
        except ModelRefused as error:
            verdict = _Verdict(outcome=_failed(group, ItemCode.MODEL_REFUSED, str(error), Usage(model_calls=1)))
        except ModelFault as error:
            verdict = _after_fault(group, str(error), tries)
        else:
            verdict = _after_answer(group, replace(answer, text=_text(answer.text)), question, tries)
        waiting.extendleft(reversed(verdict.again))
        yield verdict.outcome


@dataclass(frozen=True, slots=True)
class _Tries:
    """What was tried already within this chunk, so that nothing is asked for ever."""

    faults: set[Group] = field(default_factory=set)
    re_asks: Counter[int] = field(default_factory=Counter)  #: by image index


def _picture(place: int, image: Staged, form: Form, load: Callable[[int], bytes]) -> Picture:
    """Records are labelled 1, 2, … in each call and mapped back here. Merged answers speak of the pictures in free text,
    which nothing can map back: they get the job's own numbers (docs/adr/0003)."""
    return Picture(
        number=place if form is Form.RECORDS else image.index + 1,
        mime=image.mime,
        data=load(image.index),
        width=image.width,
        height=image.height,
    )


def _after_fault(group: Group, reason: str, tries: _Tries) -> _Verdict:
    """The same group once more; then in halves, since "input context too long" shows as HTTP 500 too."""
    usage = Usage(model_calls=1)
    if group not in tries.faults:
        tries.faults.add(group)
        return _Verdict(outcome=Outcome(usage=usage), again=(group,))
    return _split(group, ItemCode.MODEL_UNAVAILABLE, f"The model failed on this image twice: {reason}", usage)


def _text(text: str) -> str:
    """The text without what neither UTF-8 nor every database can hold: lone surrogates, and NUL (in Postgres).
    One of them in one answer must not cost the job all the others."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\x00", "\ufffd")


def _after_answer(group: Group, answer: Answer, question: Question, tries: _Tries) -> _Verdict:
    usage = Usage(
        model_calls=1,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        nanodollars=answer.nanodollars,
        model_version=answer.model_version,
    )
    if answer.finish is Finish.TRUNCATED:
        return _split(group, ItemCode.OUTPUT_TRUNCATED, "The answer for this image is longer than the model may give.", usage)
    if answer.finish is not Finish.COMPLETE:
        code = answer.code or ItemCode.MODEL_REFUSED
        return _split(group, code, f"The model refused this image: {answer.detail}", usage)
    if question.form is Form.TEXT:
        return _Verdict(outcome=Outcome(replies=(_reply(group, answer.text),), usage=usage))
    try:
        document = parse_json(answer.text)
    except MalformedJson:
        if len(group) > 1:
            return _split(group, ItemCode.SCHEMA_MISMATCH, "", usage)
        return _ask_again(group, "The model's answer for this image is not JSON.", usage, tries)
    if question.form is Form.JSON:
        return _Verdict(outcome=Outcome(replies=(_reply(group, answer.text),), usage=usage))
    return _match_records(group, document, question, usage, tries)


def _match_records(group: Group, document: Any, question: Question, usage: Usage, tries: _Tries) -> _Verdict:
    """Keeps each result that names its image, alone, and asks again for just the others."""
    results = _results(document)
    replies: list[Reply] = []
    missing: list[Staged] = []
    for place, image in enumerate(group, start=1):
        if place in results and (question.json_mode or isinstance(results[place], str)):
            replies.append(Reply(indexes=(image.index,), text="", result=results[place]))
        else:
            missing.append(image)
    if not missing:
        return _Verdict(outcome=Outcome(replies=tuple(replies), usage=usage))
    verdict = _ask_again(tuple(missing), "The model gave no single result for this image.", usage, tries)
    outcome = Outcome(replies=tuple(replies), failures=verdict.outcome.failures, usage=usage)
    return _Verdict(outcome=outcome, again=verdict.again)


def _results(document: Any) -> dict[int, Any]:
    """The result of each label, less the labels that were named twice: which of the two is right, nobody can tell."""
    entries = document if isinstance(document, list) else []
    named = [
        (entry["index"], entry["result"])
        for entry in entries
        if isinstance(entry, dict) and type(entry.get("index")) is int and "result" in entry
    ]
    times = Counter(label for label, _ in named)
    return {label: result for label, result in named if times[label] == 1}


def _ask_again(group: Group, detail: str, usage: Usage, tries: _Tries) -> _Verdict:
    """Once more for those of the group that have tries left; the others fail."""
    spent = tuple(image for image in group if tries.re_asks[image.index] >= RE_ASKS)
    rest = tuple(image for image in group if tries.re_asks[image.index] < RE_ASKS)
    tries.re_asks.update(image.index for image in rest)
    outcome = _failed(spent, ItemCode.SCHEMA_MISMATCH, detail, usage)
    return _Verdict(outcome=outcome, again=(rest,) if rest else ())


def _split(group: Group, code: ItemCode, detail: str, usage: Usage) -> _Verdict:
    """Two halves instead of the group; a single image is the culprit."""
    if len(group) == 1:
        return _Verdict(outcome=_failed(group, code, detail, usage))
    return _Verdict(outcome=Outcome(usage=usage), again=halves(group))


def _reply(group: Group, text: str) -> Reply:
    return Reply(indexes=tuple(image.index for image in group), text=text)


def _failed(group: Group, code: ItemCode, detail: str, usage: Usage) -> Outcome:
    said = _text(detail)  # it may quote the model
    return Outcome(failures=tuple(Failure(index=image.index, code=code, detail=said) for image in group), usage=usage)
