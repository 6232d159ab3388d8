"""Makes one answer of the answers about parts of a job's images: a tree of model calls. Pure, but for the engine.

How far the tree has grown follows from the answers that are known, so that it is gone on from at any line: a call is named
by what it is made of, and what came of it is kept. What can't be made one stays several answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pipeline.merge import MalformedJson, dump_json, heading, parse_json
from pipeline.ports import Engine, ModelFault, ModelRefused
from pipeline.types import Answer, Call, Finish, Form, Question, Reply, Usage, storable

MOST_PIECES = 20  #: answers that one call makes one
MOST_CHARACTERS = 100_000  #: of them together, about 25,000 tokens: a long answer has 8,192
TRIES = 2  #: of a call that the model fails on

TASK = (
    "The images were too many to be looked at together, so they were looked at in parts. Below are the answers about the "
    "parts, each behind the numbers of its images. Make them one answer to the prompt above for all of the images, as if "
    "they had been looked at together. Leave nothing out, add nothing, and keep the number of each image as it is."
)
SHAPE = " Answer with one JSON document and nothing else, of the same shape as the answers below."


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """A call that is to be made: it has `pieces` made one."""

    key: str  #: of just these pieces, in this order
    pieces: Sequence[Reply]


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """What came of a call."""

    key: str
    text: str | None  #: None: nothing that can be used
    usage: Usage


def grow(replies: Iterable[Reply], known: Mapping[str, str | None]) -> tuple[Sequence[Reply], Merge | None]:
    """The answers that the replies have become by what is `known` of each call, in image order, and the call that is next.

    None: it is done, with one answer, or with several that can't be made one.
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
    """How many calls it takes to make so many answers one, if none of them is long."""
    calls = 0
    while pieces > 1:
        groups = -(-pieces // MOST_PIECES)
        calls += groups - (pieces % MOST_PIECES == 1)  # a group of one is not asked about
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
        except ModelFault:
            usage = usage.plus(Usage(model_calls=1))
            continue
        usage = usage.plus(Usage.of(answer))
        text = _usable(answer, question.form)
        if text is not None or answer.finish is not Finish.COMPLETE:
            return Merged(key=merge.key, text=text, usage=usage)
    return Merged(key=merge.key, text=None, usage=usage)


def _groups(pieces: Sequence[Reply]) -> list[list[Reply]]:
    """Neighbours that fit in one call."""
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
    """What the group has become: one, or fewer where it was too much for one call, or the call that is to be made."""
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
