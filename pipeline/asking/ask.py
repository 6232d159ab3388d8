"""Asks the model about the images of a chunk until each has a reply or a failure.

What to do with each outcome is gemini-contract's table, for every engine alike: split what is truncated, bisect what is
blocked down to the culprit, ask again for just what is missing or wrong, and never align by position. Each call's
outcome is yielded as it comes, so that the caller commits it before the next one is paid for.

The calls stay below `1.5 P + 2 B log2(n)`, with P the calls that were planned, n the images of one (log2 rounded up, and at
least 2), and B what went wrong: images that fail, and calls that failed through no image of theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.asking.progress import Group, Progress
from pipeline.merge import MalformedJson, parse_json
from pipeline.plan import halves, pack_calls
from pipeline.ports import Engine, ModelFault, ModelRefused
from pipeline.types import (
    MAX_IMAGES,
    Answer,
    Call,
    Failure,
    Finish,
    Form,
    ItemCode,
    Picture,
    Question,
    Reply,
    Staged,
    Usage,
    storable,
)

RE_ASKS = 2  #: how often an image with a missing, doubled or wrong result is asked for again
LONGEST_WRONG = 400  #: characters of what is said about a result that does not fit

Validate = Callable[[Any], str]  #: what is wrong with a result; empty if nothing is


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkOutcome:
    """What one model call settled."""

    replies: tuple[Reply, ...] = ()
    failures: tuple[Failure, ...] = ()
    usage: Usage = field(default_factory=Usage)
    reencoded: tuple[int, ...] = ()  #: images that the model was not shown as they were
    notes: Mapping[int, str] = field(default_factory=dict)  #: what the engine noted of images (pipeline.notes)
    progress: Mapping[str, Any] | None = None  #: what `ask` goes on from in another time slice, as JSON; None: nothing is open


def ask(
    staged: Sequence[Staged],
    *,
    engine: Engine,
    question: Question,
    load: Callable[[int], bytes],
    timeout: Callable[[], float],
    pictures: int = MAX_IMAGES,
    waited: bool = False,
    validate: Validate | None = None,
    progress: Mapping[str, Any] | None = None,
    memory: Callable[[int], AbstractContextManager[None]] = lambda _size: nullcontext(),
) -> Iterator[ChunkOutcome]:
    """One Outcome for each model call; together they name each image of `staged` exactly once.

    `load` gives an image's bytes by its index; `timeout` the seconds the next call may take; `pictures`: most of a call,
    beside the engine's limit and the question's; `waited`: somebody holds a connection for the answer; `validate` says
    what is wrong with an image's result; `progress` is the last ChunkOutcome of the slice before; `memory`: held for as many bytes
    as a call's pictures have. Raises what the engine raises when it can't be asked (ModelUnavailable): outcomes yielded
    before stand.
    """
    most = min(pictures, engine.limits.pictures, question.images_per_call or pictures)
    images = {image.index: image for image in staged}
    asking = _Asking(
        question=question, validate=validate, progress=_begun(staged, progress, pictures=most, raw_bytes=engine.limits.raw_bytes)
    )
    while group := asking.progress.next():
        numbers = _numbers(group, question.form)
        reencoded: tuple[int, ...] = ()
        notes: dict[int, str] = {}
        try:
            with memory(sum(images[index].size for index in group)):
                call = Call(
                    prompt=asking.prompt(group),
                    form=question.form,
                    json_mode=question.json_mode or question.schema is not None,
                    pictures=tuple(_picture(number, images[index], load) for number, index in numbers.items()),
                    schema=question.schema,
                    timeout=timeout(),
                    model=question.model,
                    fallback_models=question.fallback_models,
                    detail=question.detail,
                    waited=waited,
                )
                answer = engine.ask(call)
                del call  # its pictures go before the next ones come
        except ModelRefused as error:
            outcome = _failed(group, ItemCode.MODEL_REFUSED, str(error), Usage(model_calls=1))
        except ModelFault as error:
            outcome = asking.after_fault(group, str(error))
        else:
            outcome = asking.after_answer(group, replace(answer, text=storable(answer.text)))
            reencoded = tuple(index for number, index in numbers.items() if number in answer.reencoded)
            notes = {index: answer.notes[number] for number, index in numbers.items() if number in answer.notes}
        yield replace(
            outcome, reencoded=reencoded, notes=notes, progress=asking.progress.kept() if asking.progress.planned else None
        )


def _begun(staged: Sequence[Staged], kept: Mapping[str, Any] | None, *, pictures: int, raw_bytes: int) -> Progress:
    """As far as another turn came; the calls as they are planned of what it has not begun."""
    progress = Progress.of(kept, open_={image.index for image in staged}) if kept is not None else Progress()
    begun = {index for call in progress.planned for index in call.images}
    calls = pack_calls([image for image in staged if image.index not in begun], pictures=pictures, raw_bytes=raw_bytes)
    progress.ask_next(*(tuple(image.index for image in call) for call in calls))
    return progress


def _numbers(group: Group, form: Form) -> dict[int, int]:
    """Label → image. Records are labelled 1, 2, … in each call and mapped back here. Merged answers speak of the pictures in
    free text, which nothing can map back: they get the job's own numbers (docs/adr/0003)."""
    return {place if form is Form.RECORDS else index + 1: index for place, index in enumerate(group, start=1)}


def _picture(number: int, image: Staged, load: Callable[[int], bytes]) -> Picture:
    return Picture(
        number=number,
        mime=image.mime,
        data=load(image.index),
        width=image.width,
        height=image.height,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asking:
    """What each kind of answer leads to: what it settles is returned, what it leaves to be asked goes to `progress`."""

    question: Question
    validate: Validate | None
    progress: Progress

    def prompt(self, group: Group) -> str:
        """The prompt; behind it, where an image is asked for again, what was wrong with its last result."""
        numbers = _numbers(group, self.question.form)
        wrong = self.progress.wrong
        said = [f"Image {number}: {wrong[index]}" for number, index in numbers.items() if index in wrong]
        if not said:
            return self.question.prompt
        return "\n".join((self.question.prompt, "", "Your last answer could not be used. Mend what was wrong with it:", *said))

    def after_fault(self, group: Group, reason: str) -> ChunkOutcome:
        """The same once more; then in halves, since "input context too long" shows as HTTP 500 too."""
        usage = Usage(model_calls=1)
        first = not any(self.progress.faults[index] for index in group)
        self.progress.faults.update(group)
        if first:
            self.progress.ask_next(group)
            return ChunkOutcome(usage=usage)
        return self._split(group, ItemCode.MODEL_UNAVAILABLE, f"The model failed on this image twice: {reason}", usage)

    def after_answer(self, group: Group, answer: Answer) -> ChunkOutcome:
        usage = Usage.of(answer)
        if answer.finish is Finish.TRUNCATED:
            detail = "The answer for this image is longer than the model may give."
            return self._split(group, ItemCode.OUTPUT_TRUNCATED, detail, usage)
        if answer.finish is not Finish.COMPLETE:
            return self._after_refusal(group, answer, usage)
        if self.question.form is Form.TEXT:
            return ChunkOutcome(replies=(Reply(indexes=group, text=answer.text),), usage=usage)
        try:
            document = parse_json(answer.text)
        except MalformedJson:
            return self._after_garbage(group, usage)
        if self.question.form is Form.JSON:
            return ChunkOutcome(replies=(Reply(indexes=group, text=answer.text),), usage=usage)
        if len(group) > 1 and not _labels(document) <= set(range(1, len(group) + 1)):
            # It numbers the images in a way of its own, from 0 say: a record that seems right may be its neighbour's.
            return self._after_garbage(group, usage)
        return self._after_records(group, _results(document), usage)

    def _after_refusal(self, group: Group, answer: Answer, usage: Usage) -> ChunkOutcome:
        if len(group) > 1:
            self.progress.bisect(group)
            return ChunkOutcome(usage=usage)
        self.progress.culprits.update(group)
        code = answer.code or ItemCode.MODEL_REFUSED
        return _failed(group, code, f"The model refused this image: {answer.detail}", usage)

    def _after_garbage(self, group: Group, usage: Usage) -> ChunkOutcome:
        """What is cut short, no JSON or wrongly numbered is never repaired."""
        self.progress.spoiled.update(group)
        detail = "The model's answer for this image is not JSON."
        (index, *others) = group
        if others or self.progress.spoiled[index] > RE_ASKS:
            return self._split(group, ItemCode.SCHEMA_MISMATCH, detail, usage)
        self.progress.wrong[index] = "your answer was not valid JSON, or not JSON alone."
        self.progress.ask_next(group)
        return ChunkOutcome(usage=usage)

    def _after_records(self, group: Group, results: Mapping[int, Any], usage: Usage) -> ChunkOutcome:
        """Keeps each result that names its image, alone, and fits; asks again for just the others, those that may be."""
        wrong = {
            index: self._fault(results[place]) if place in results else "there was no single result with its number as index."
            for place, index in enumerate(group, start=1)
        }
        replies = tuple(
            Reply(indexes=(index,), text="", result=results[place])
            for place, index in enumerate(group, start=1)
            if not wrong[index]
        )
        again = tuple(index for index in group if wrong[index] and self._may_ask_again(index, alone=len(group) == 1))
        self.progress.re_asked.update(again)
        self.progress.wrong |= {index: wrong[index] for index in again}
        if again:
            self.progress.ask_next(again)
        failures = tuple(
            Failure(
                index=index,
                code=ItemCode.SCHEMA_MISMATCH,
                detail=storable(f"The model gave no usable result for this image, asked {RE_ASKS + 1} times: {wrong[index]}"),
            )
            for index in group
            if wrong[index] and index not in again
        )
        return ChunkOutcome(replies=replies, failures=failures, usage=usage)

    def _may_ask_again(self, index: int, *, alone: bool) -> bool:
        """Alone it has been in every answer that was spoiled on the way: those count too."""
        return self.progress.re_asked[index] + (self.progress.spoiled[index] if alone else 0) < RE_ASKS

    def _fault(self, result: Any) -> str:
        if self.validate:
            fault = self.validate(result)
            return f"its result does not fit the schema: {fault}"[:LONGEST_WRONG] if fault else ""
        return "" if self.question.json_mode or isinstance(result, str) else "its result is not a text."

    def _split(self, group: Group, code: ItemCode, detail: str, usage: Usage) -> ChunkOutcome:
        """Two halves instead of the group; a single image is the culprit."""
        if len(group) == 1:
            return _failed(group, code, detail, usage)
        self.progress.ask_next(*halves(group))
        return ChunkOutcome(usage=usage)


def _entries(document: Any) -> list[dict[str, Any]]:
    entries = document if isinstance(document, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and type(entry.get("index")) is int]


def _labels(document: Any) -> set[int]:
    return {entry["index"] for entry in _entries(document)}


def _results(document: Any) -> dict[int, Any]:
    """The result of each label, less the labels that were named twice: which of the two is right, nobody can tell."""
    entries = _entries(document)
    times = Counter(entry["index"] for entry in entries)
    return {entry["index"]: entry["result"] for entry in entries if times[entry["index"]] == 1 and "result" in entry}


def _failed(group: Group, code: ItemCode, detail: str, usage: Usage) -> ChunkOutcome:
    said = storable(detail)  # it may quote the model
    return ChunkOutcome(failures=tuple(Failure(index=index, code=code, detail=said) for index in group), usage=usage)
