"""Asks the model about the images of a chunk until each has a reply or a failure.

The rules are the same for every engine:

- If an answer is truncated, its group of images is split in two.
- If the model refuses a group, the group is bisected until the refused image is found.
- If the model takes fewer pictures in a call than were sent, the group and all further groups are cut to that number.
- If a result is missing or wrong, only its image is asked about again. At the second time, the group is halved, because some
  models give one record a call.
- A result belongs to the image whose label it names. It is never matched by its position.

The outcome of each call is yielded at once, so that the caller commits it before the next call is paid for.

The number of calls stays below `1.5 P + 2 B log2(n)`. P is the number of planned calls, and n the number of images in one of
them (log2 is rounded up, and at least 2). B counts what went wrong: images that fail, and calls that failed though none of
their images was the cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.asking.call_size import CallSize, pieces
from pipeline.asking.progress import Group, Progress
from pipeline.merge import MalformedJson, parse_json
from pipeline.plan import halves, pack_calls
from pipeline.ports import Engine, ModelFault, ModelRefused, MoneySpent
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
    Tier,
    Usage,
    storable,
)

RE_ASKS = 2  #: how often the model is asked again about an image whose result is missing, doubled or wrong
MISSING = "there was no single result with its number as index."  #: what is wrong if an image has no result, or several
LONGEST_WRONG = 400  #: characters of the text that tells the model what is wrong with a result

Validate = Callable[[Any], str]  #: what is wrong with a result; empty if nothing is


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkOutcome:
    """What one model call settled."""

    replies: tuple[Reply, ...] = ()
    failures: tuple[Failure, ...] = ()
    usage: Usage = field(default_factory=Usage)
    reencoded: tuple[int, ...] = ()  #: images that were sent to the model as a re-encoded JPEG
    notes: Mapping[int, str] = field(default_factory=dict)  #: the engine's notes about images (pipeline.notes)
    tier: Tier | None = None  #: the tier in which the call was served; None: it got no answer
    progress: Mapping[str, Any] | None = None  #: JSON from which `ask` resumes in the next time slice; None: no image is open


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
    """Yields one ChunkOutcome for each model call. Every image of `staged` gets exactly one reply or failure in them.

    - `load`: returns the bytes of an image, by its index.
    - `timeout`: returns how many seconds the next call may take.
    - `pictures`: the most images in one call. The engine and the question may lower it.
    - `waited`: whether a caller holds a connection open for the answer.
    - `validate`: says what is wrong with one image's result.
    - `progress`: the `progress` of the last ChunkOutcome of the previous time slice.
    - `memory`: a context manager that reserves memory for the pictures of one call, given their size in bytes.

    Raises ModelUnavailable if the engine can't be asked now. The outcomes that were yielded before stay valid.
    """
    models = (question.model, *question.fallback_models)
    most = min(pictures, question.images_per_call or pictures, *(engine.most_pictures(model) for model in models))
    images = {image.index: image for image in staged}
    asking = _Asking(
        question=question, validate=validate, progress=_begun(staged, progress, pictures=most, raw_bytes=engine.limits.raw_bytes)
    )
    size = CallSize(most=most)
    while group := asking.progress.next():
        if len(group) > size.most:
            asking.progress.ask_next(*pieces(group, size.most))
            continue
        numbers = _numbers(group, question.form)
        reencoded: tuple[int, ...] = ()
        notes: dict[int, str] = {}
        tier: Tier | None = None
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
                    thinking=question.thinking,
                    waited=waited,
                )
                answer = engine.ask(call)
                del call  # frees its pictures before the next call loads its own
        except ModelRefused as error:
            outcome = asking.after_final_refusal(group, str(error))
        except MoneySpent as spent:
            outcome = _failed(group, spent.code, str(spent), Usage())
        except ModelFault as error:
            outcome = asking.after_fault(group, str(error))
            size.refused(group)
        else:
            tier = answer.tier
            outcome = asking.after_answer(group, replace(answer, text=storable(answer.text)))
            if answer.finish is Finish.UNREADABLE:
                size.refused(group, at_most=answer.at_most)
            reencoded = tuple(index for number, index in numbers.items() if number in answer.reencoded)
            notes = {index: answer.notes[number] for number, index in numbers.items() if number in answer.notes}
        if size.is_one_after(group, outcome.replies):
            engine.learn_pictures(question.model, 1)
        kept = asking.progress.kept() if asking.progress.planned else None
        yield replace(outcome, reencoded=reencoded, notes=notes, tier=tier, progress=kept)


def _begun(staged: Sequence[Staged], kept: Mapping[str, Any] | None, *, pictures: int, raw_bytes: int) -> Progress:
    """The progress of the previous time slice, and planned calls for the images that it did not begin."""
    progress = Progress.of(kept, open_={image.index for image in staged}) if kept is not None else Progress()
    begun = {index for call in progress.planned for index in call.images}
    calls = pack_calls([image for image in staged if image.index not in begun], pictures=pictures, raw_bytes=raw_bytes)
    progress.ask_next(*(tuple(image.index for image in call) for call in calls))
    return progress


def _numbers(group: Group, form: Form) -> dict[int, int]:
    """Maps the label of each picture to the index of its image.

    For records, the labels are 1, 2, … in each call, because the code can map each result back to its image. A merged answer
    names pictures in free text, which can't be mapped back, so its labels are the job's own numbers (docs/adr/0003).
    """
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
    """Decides what follows from each answer. Settled images are returned, and further calls are added to `progress`."""

    question: Question
    validate: Validate | None
    progress: Progress

    def prompt(self, group: Group) -> str:
        """The caller's prompt. For images that are asked about again, it also says what was wrong with their last results."""
        numbers = _numbers(group, self.question.form)
        wrong = self.progress.wrong
        said = [f"Image {number}: {wrong[index]}" for number, index in numbers.items() if index in wrong]
        if not said:
            return self.question.prompt
        return "\n".join((self.question.prompt, "", "Your last answer could not be used. Mend what was wrong with it:", *said))

    def after_fault(self, group: Group, reason: str) -> ChunkOutcome:
        """Repeats the call once. Then it splits the group, because "input context too long" is reported as HTTP 500 too."""
        usage = Usage(model_calls=1)
        first = not any(self.progress.faults[index] for index in group)
        self.progress.faults.update(group)
        if first:
            self.progress.ask_next(group)
            return ChunkOutcome(usage=usage)
        return self._split(group, ItemCode.MODEL_UNAVAILABLE, f"The model failed on this image twice: {reason}", usage)

    def after_final_refusal(self, group: Group, reason: str) -> ChunkOutcome:
        """Fails the group, because the model will never accept a call like this."""
        if len(group) == 1:
            self.progress.culprits.update(group)
        return _failed(group, ItemCode.MODEL_REFUSED, reason, Usage(model_calls=1))

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
            # The model numbered the images differently, for example from 0. A record may then belong to the next image.
            return self._after_garbage(group, usage)
        return self._after_records(group, _results(document), usage)

    def _after_refusal(self, group: Group, answer: Answer, usage: Usage) -> ChunkOutcome:
        if len(group) > 1 and answer.at_most is not None:
            self.progress.ask_next(*pieces(group, answer.at_most))
            return ChunkOutcome(usage=usage)
        if len(group) > 1:
            self.progress.bisect(group)
            return ChunkOutcome(usage=usage)
        self.progress.culprits.update(group)
        code = answer.code or ItemCode.MODEL_REFUSED
        return _failed(group, code, f"The model refused this image: {answer.detail}", usage)

    def _after_garbage(self, group: Group, usage: Usage) -> ChunkOutcome:
        """Asks again, because an answer that is not JSON or is wrongly numbered is never repaired."""
        self.progress.spoiled.update(group)
        detail = "The model's answer for this image is not JSON."
        (index, *others) = group
        if others or self.progress.spoiled[index] > RE_ASKS:
            return self._split(group, ItemCode.SCHEMA_MISMATCH, detail, usage)
        self.progress.wrong[index] = "your answer was not valid JSON, or not JSON alone."
        self.progress.ask_next(group)
        return ChunkOutcome(usage=usage)

    def _after_records(self, group: Group, results: Mapping[int, Any], usage: Usage) -> ChunkOutcome:
        """Keeps each result that fits and is the only one with its label. Asks again about the other images, or fails them."""
        wrong = {
            index: self._fault(results[place]) if place in results else MISSING for place, index in enumerate(group, start=1)
        }
        replies = tuple(
            Reply(indexes=(index,), text="", result=results[place])
            for place, index in enumerate(group, start=1)
            if not wrong[index]
        )
        halved = any(self.progress.re_asked[index] for index in group)
        again = tuple(
            index for index in group if wrong[index] and self._may_ask_again(index, wrong[index], alone=len(group) == 1)
        )
        self.progress.re_asked.update(again)
        self.progress.wrong |= {index: wrong[index] for index in again}
        if again:
            self.progress.ask_next(*(halves(again) if halved and len(again) > 1 else (again,)))
        failures = tuple(
            Failure(
                index=index,
                code=ItemCode.SCHEMA_MISMATCH,
                detail=storable(
                    f"The model gave no usable result for this image, asked {_times(self.progress.re_asked[index] + 1)}: {wrong[index]}"
                ),
            )
            for index in group
            if wrong[index] and index not in again
        )
        return ChunkOutcome(replies=replies, failures=failures, usage=usage)

    def _may_ask_again(self, index: int, wrong: str, *, alone: bool) -> bool:
        """Whether RE_ASKS is not reached. If the image is alone in its call, the answers that were not JSON count too.

        A result that is missing from a call with other images may come in a smaller call, so it is asked for until it is alone.
        """
        if wrong == MISSING and not alone and self.progress.re_asked[index]:
            return True
        return self.progress.re_asked[index] + (self.progress.spoiled[index] if alone else 0) < RE_ASKS

    def _fault(self, result: Any) -> str:
        if self.validate:
            fault = self.validate(result)
            return f"its result does not fit the schema: {fault}"[:LONGEST_WRONG] if fault else ""
        return "" if self.question.json_mode or isinstance(result, str) else "its result is not a text."

    def _split(self, group: Group, code: ItemCode, detail: str, usage: Usage) -> ChunkOutcome:
        """Asks about each half of the group. A group of one image fails."""
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
    """The result of each label. A label that occurs twice is left out, because either of its results may be the wrong one."""
    entries = _entries(document)
    times = Counter(entry["index"] for entry in entries)
    return {entry["index"]: entry["result"] for entry in entries if times[entry["index"]] == 1 and "result" in entry}


def _failed(group: Group, code: ItemCode, detail: str, usage: Usage) -> ChunkOutcome:
    said = storable(detail)  # because the detail may quote the model
    return ChunkOutcome(failures=tuple(Failure(index=index, code=code, detail=said) for index in group), usage=usage)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
