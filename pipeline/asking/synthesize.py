"""Merges the answers about parts of a job's images into one, by a tree of model calls. Pure, except for the engine.

Each call is named by a hash of its pieces, and its outcome is stored under that name. So after a crash the tree is rebuilt
from the stored outcomes, and their calls are not made again. Answers that the model can't merge stay separate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pipeline.merge import MalformedJson, dump_json, heading, parse_json
from pipeline.ports import Engine, ModelFault, ModelRefused, MoneySpent
from pipeline.types import Answer, Call, Finish, Form, Question, Reply, Usage, storable

MOST_PIECES = 20  #: answers that one call merges
MOST_CHARACTERS = 100_000  #: of all answers in one call, about 25,000 tokens; one answer has at most 8,192 tokens
TRIES = 2  #: how often a call is made if the model fails on it

TASK = (
    "The images were too many to be looked at together, so they were looked at in parts. Below are the answers about the "
    "parts, each behind the numbers of its images. Make them one answer to the prompt above for all of the images, as if "
    "they had been looked at together. Leave nothing out, add nothing, and keep the number of each image as it is."
)
SHAPE = " Answer with one JSON document and nothing else, of the same shape as the answers below."


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """A call that has to be made, to merge `pieces`."""

    key: str  #: a hash of these pieces in this order
    pieces: Sequence[Reply]


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """The outcome of a merge call."""

    key: str
    text: str | None  #: None: the model gave no usable answer
    usage: Usage


def grow(replies: Iterable[Reply], known: Mapping[str, str | None]) -> tuple[Sequence[Reply], Merge | None]:
    """Merges the replies as far as the outcomes in `known` allow. Returns the answers in image order, and the next call.

    `known` holds the text of each call by its key. The next call is None when the merge is done: one answer is left, or
    several that the model can't merge.
    """
    pieces = sorted(replies, key=lambda reply: reply.indexes)
    while len(pieces) > 1:
        joined: list[Reply] = []
        for group in _groups(pieces):
            parts = _joined(group, known)
            if isinstance(parts, Merge):
                return pieces, parts
            joined += parts
        if len(joined) == len(pieces):
            break
        pieces = joined
    return pieces, None


def calls_of(pieces: int) -> int:
    """How many calls merge `pieces` answers into one, if none of the answers is long."""
    calls = 0
    while pieces > 1:
        groups = -(-pieces // MOST_PIECES)
        calls += groups - (pieces % MOST_PIECES == 1)  # a group of one needs no call
        pieces = groups
    return calls


def ask_for(merge: Merge, *, engine: Engine, question: Question, timeout: Callable[[], float], waited: bool) -> Merged:
    """Makes the call. Raises ModelUnavailable."""
    call = Call(
        prompt=_prompt(question, merge.pieces),
        form=question.form,
        json_mode=question.json_mode,
        pictures=(),
        timeout=timeout(),
        model=question.model,
        fallback_models=question.fallback_models,
        thinking=question.thinking,
        waited=waited,
    )
    usage = Usage()
    for _ in range(TRIES):
        try:
            answer = engine.ask(call)
        except ModelRefused:
            return Merged(key=merge.key, text=None, usage=usage.plus(Usage(model_calls=1)))
        except MoneySpent:
            return Merged(key=merge.key, text=None, usage=usage)
        except ModelFault:
            usage = usage.plus(Usage(model_calls=1))
            continue
        usage = usage.plus(Usage.of(answer))
        text = _usable(answer, question.form)
        if text is not None or answer.finish is not Finish.COMPLETE:
            return Merged(key=merge.key, text=text, usage=usage)
    return Merged(key=merge.key, text=None, usage=usage)


def _groups(pieces: Sequence[Reply]) -> list[list[Reply]]:
    """Groups neighbouring answers so that each group fits in one call."""
    groups: list[list[Reply]] = [[]]
    size = 0
    for piece in pieces:
        if groups[-1] and (len(groups[-1]) >= MOST_PIECES or size + len(piece.text) > MOST_CHARACTERS):
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += len(piece.text)
    return groups


def _joined(group: Sequence[Reply], known: Mapping[str, str | None]) -> list[Reply] | Merge:
    """The merged answers of the group, or the call that has to be made first.

    If the model can't merge the whole group, each half is merged by itself.
    """
    if len(group) == 1:
        return [*group]
    key = _key(group)
    if key not in known:
        return Merge(key=key, pieces=group)
    text = known[key]
    if text is not None:
        return [Reply(indexes=tuple(chain.from_iterable(piece.indexes for piece in group)), text=text)]
    if len(group) == 2:
        return [*group]
    parts: list[Reply] = []
    for half in (group[: len(group) // 2], group[len(group) // 2 :]):
        joined = _joined(half, known)
        if isinstance(joined, Merge):
            return joined
        parts += joined
    return parts


def _key(pieces: Sequence[Reply]) -> str:
    written = dump_json([[list(piece.indexes), piece.text] for piece in pieces])
    return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()


def _prompt(question: Question, pieces: Sequence[Reply]) -> str:
    task = TASK + SHAPE if question.form is Form.JSON else TASK
    parts = (f"{heading(piece.indexes)}\n{piece.text}" for piece in pieces)
    return "\n\n".join((question.prompt, task, *parts))


def _usable(answer: Answer, form: Form) -> str | None:
    if answer.finish is not Finish.COMPLETE:
        return None
    text = storable(answer.text)
    if form is Form.JSON:
        try:
            parse_json(text)
        except MalformedJson:
            return None
    return text
