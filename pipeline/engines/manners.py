"""How a model wants to be asked, and how this is found out from its refusals (docs/adr/0026).

A request asks in the best manner first: with a JSON Schema, the system role and the usual output limit. If the model refuses a
part of that, the request is sent again without this part, and later requests begin there. A refusal that does not say what it
is about is either about a picture or about the manner. Then other manners are tried, once for each kind of call, before the
pictures are suspected.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from pipeline.engines.refusals import FINAL, OF_MANNER, Refusal, Unreadable, Why, most_pictures, room
from pipeline.ports import Lessons, ModelFault, ModelRefused
from pipeline.types import MAX_OUTPUT_TOKENS, Answer, Call, Finish, Form, ItemCode

SCHEMA, OBJECT, WORDS = "json_schema", "json_object", ""
LEAST_OUTPUT = 256  #: output tokens; a call that leaves fewer has too many pictures
ENOUGH_OUTPUT = 1_024  #: output tokens that are left when a call is cut to fit the context
MOST_LOWERED = 3  #: how often a call's output limit is lowered, before it is left out
MOST_KNOWN = 1_024  #: kinds of calls that this process remembers as answered or tried


#: Refusals that agree with the suspicion that a model does not take the schema.
OF_SCHEMA = frozenset({Why.SCHEMA, Why.FORMAT, Why.OPEN})


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How a request is asked."""

    formats: tuple[str, ...]  #: how JSON may be asked for; the first one is used
    told: bool = False  #: the schema is also told in words, because the server ignores `response_format`
    limit: str = "max_tokens"  #: the name of the output limit; empty: it is not sent
    output: int = MAX_OUTPUT_TOKENS  #: the value of the output limit
    system: bool = True  #: the instruction has the system role; otherwise it stands before the prompt
    detail: bool = True  #: the field for how closely the model looks is sent
    stream: bool | None = False  #: the value of `stream`; None: it is not sent

    @property
    def format(self) -> str:
        return self.formats[0]

    def plainest(self) -> Manner:
        """Only what no server can refuse."""
        return replace(self, formats=(WORDS,), limit="", system=False, detail=False, stream=None)


#: Makes one request in a manner. See `Manners.ask`.
Attempt = Callable[[Manner], tuple[Answer, bool]]


def _formats(call: Call) -> tuple[str, ...]:
    if call.form is Form.RECORDS and call.pictures:
        return (SCHEMA, OBJECT, WORDS)
    return (OBJECT, WORDS) if call.form is Form.JSON else (WORDS,)


class Manners:
    """The manners of the models of one server. Thread-safe. What it learns is shared through `lessons`."""

    def __init__(self, lessons: Lessons, *, server: str) -> None:
        """`server`: names the engine and the address, because lessons hold for one server only."""
        self._lessons = lessons
        self._server = server
        self._lock = threading.Lock()
        self._answered: set[str] = set()  # models and kinds of calls that were answered
        self._tried: set[str] = set()  # kinds of calls for which all manners were tried because of an open refusal
        self._faults: dict[str, int] = {}  # HTTP 500s of kinds of calls that were never answered

    def most_pictures(self, model: str, otherwise: int) -> int:
        """The most pictures in a call of `model`, as far as its server has said. `otherwise`: if it has not."""
        [known] = self._lessons.known(self._topic(model))
        return min(int(known.get("pictures") or otherwise), otherwise)

    def learn_pictures(self, model: str, most: int) -> None:
        self.learn(self._topic(model), {"pictures": most})

    def ask(self, call: Call, model: str, schema: Any, attempt: Attempt) -> Answer:
        """The answer to a call, in the first manner that the model accepts.

        `attempt` makes one request. It returns the answer, and whether its records fit `schema`. It raises Refusal if the request
        is refused. Raises ModelRefused, and whatever else `attempt` raises.
        """
        asking = self.asking(call, model, schema)
        cause: Refusal | None = None  # the last refusal before other manners were tried on suspicion
        while True:
            manner = asking.manner
            try:
                answer, fits = attempt(manner)
            except Refusal as refused:
                if not asking.doubted:
                    cause = refused
                if not asking.refused(refused):
                    return asking.given_up(cause or refused)
            except ModelFault:
                if not asking.faulted():
                    raise
            else:
                accepted = self._accepted(asking, answer, attempt, fits=fits)
                if accepted is not None:
                    return accepted

    def _accepted(self, asking: Asking, answer: Answer, attempt: Attempt, *, fits: bool) -> Answer | None:
        """What an answer comes to. None: the request is to be sent again."""
        if asking.usual is None:
            asking.answered()
        if answer.finish is Finish.TRUNCATED and asking.cut_short():
            return None
        if asking.usual is not None:
            return self._unless_it_passed(asking, asking.usual_again(asking.usual), answer, attempt, fits=fits)
        asking.note_fit(asking.manner, fits=fits)
        return answer

    def _unless_it_passed(self, asking: Asking, usual: Manner, answer: Answer, attempt: Attempt, *, fits: bool) -> Answer:
        """The answer to a call that was answered in another manner after the usual one had faulted.

        The fault may have passed meanwhile, as an overload does. So the usual manner is asked once more, and only if it fails again,
        the other one is learnt.
        """
        try:
            again, again_fits = attempt(usual)
        except ModelFault:
            asking.answered()
            return answer
        except Refusal as refused:
            if refused.why in OF_SCHEMA:
                asking.answered()
            else:
                self.may_doubt_again(asking.kind)
            return answer
        except Exception:  # noqa: BLE001 - the call has its answer, and the next call meets what is wrong now
            self.may_doubt_again(asking.kind)
            return answer
        self.note_answer(asking.about, asking.kind)
        asking.note_fit(usual, fits=again_fits)
        worse = answer.finish is Finish.COMPLETE and fits and not (again.finish is Finish.COMPLETE and again_fits)
        return replace(
            answer if worse else again,
            input_tokens=answer.input_tokens + again.input_tokens,
            output_tokens=answer.output_tokens + again.output_tokens,
        )

    def asking(self, call: Call, model: str, schema: Any) -> Asking:
        """Begins a call. `schema`: the JSON Schema of its answer, if it has one."""
        about = self._topic(model)
        given = msgspec.json.encode([call.form.value, call.json_mode, schema])
        kind = f"{about} {hashlib.sha256(given).hexdigest()[:16]}"
        of_server, of_kind = self._lessons.known(about, kind)
        without = {*of_server.get("without", ()), *of_kind.get("without", ())}
        formats = _formats(call)
        manner = Manner(
            formats=tuple(one for one in formats if one not in without) or formats[-1:],
            told=bool(of_server.get("told")),
            limit=of_server.get("limit", "max_tokens"),
            output=_output(of_server, len(call.pictures)),
            system=of_server.get("system", True),
            detail=of_server.get("detail", True),
            stream=of_server.get("stream", False),
        )
        guessed = "context" in of_server
        return Asking(
            manners=self, model=model, about=about, kind=kind, pictures=len(call.pictures), manner=manner, guessed=guessed
        )

    def learn(self, topic: str, lesson: Mapping[str, Any]) -> None:
        """Adds to what is known of a topic. Lists are joined, and any other value replaces the one before."""
        with self._lock:
            [known] = self._lessons.known(topic, fresh=True)  # else what another worker has just learnt would be lost
            joined = {
                name: sorted({*known.get(name, ()), *value}) if isinstance(value, list) else value
                for name, value in lesson.items()
            }
            if any(known.get(name) != value for name, value in joined.items()):
                self._lessons.learn(topic, {**known, **joined})

    def note_answer(self, *topics: str) -> None:
        with self._lock:
            if len(self._answered) > MOST_KNOWN:
                self._answered.clear()
            self._answered.update(topics)

    def was_answered(self, topic: str) -> bool:
        return topic in self._answered

    def may_doubt(self, kind: str, pictures: int) -> bool:
        """Whether other manners are tried for an open refusal: once for each kind, and for each picture that is alone."""
        with self._lock:
            if len(self._tried) > MOST_KNOWN:
                self._tried.clear()
            first = kind not in self._tried
            self._tried.add(kind)
            return first or pictures <= 1

    def may_doubt_again(self, kind: str) -> None:
        """Other manners may be tried once more, because nothing came of it."""
        with self._lock:
            self._tried.discard(kind)

    def count_fault(self, kind: str) -> int:
        with self._lock:
            if len(self._faults) > MOST_KNOWN:
                self._faults.clear()
            self._faults[kind] = self._faults.get(kind, 0) + 1
            return self._faults[kind]

    def _topic(self, model: str) -> str:
        return f"{self._server} {model}"


def _output(known: Mapping[str, Any], pictures: int) -> int:
    """The output limit that a call of so many pictures leaves room for, as far as the server has said."""
    output = int(known.get("output") or MAX_OUTPUT_TOKENS)
    if "context" in known:
        output = min(output, max(int(known["context"]) - int(known["each"]) * max(pictures, 1), LEAST_OUTPUT))
    return output


@dataclass(kw_only=True, slots=True)
class Asking:
    """One call, while its manner is found out."""

    manners: Manners
    model: str
    about: str  #: topic of the model
    kind: str  #: topic of the kind of call
    pictures: int
    manner: Manner
    of_server: dict[str, Any] = field(default_factory=dict)  #: lessons that the next answer confirms
    of_kind: dict[str, Any] = field(default_factory=dict)  #: the same, for this kind of call alone
    doubted: bool = False  #: whether other manners are being tried without a word that they are needed
    usual: Manner | None = None  #: the manner before that, if it was because of faults
    guessed: bool = False  #: whether the output limit was lowered by what earlier calls left of the context
    lowered: int = 0  #: how often the output limit was lowered
    at_most: int | None = None  #: pictures that a call may have, if there were too many

    def answered(self) -> None:
        """The model has answered, so the lessons are right."""
        if self.of_server:
            self.manners.learn(self.about, self.of_server)
        if self.of_kind:
            self.manners.learn(self.kind, self.of_kind)
        self.manners.note_answer(self.about, self.kind)

    def given_up(self, refusal: Refusal) -> Answer:
        """What a refused call comes to, after `refused` has returned False.

        Several pictures are never all refused by words that leave open whether one of them is the reason. Raises ModelRefused.
        """
        if isinstance(refusal, Unreadable):
            return Answer(finish=refusal.finish, code=refusal.code, detail=str(refusal), at_most=self.at_most)
        if self.pictures > 1 and refusal.why not in FINAL:
            return Answer(finish=Finish.UNREADABLE, code=ItemCode.MODEL_REFUSED, detail=str(refusal), at_most=self.at_most)
        raise ModelRefused(str(refusal)) from refusal

    def note_fit(self, manner: Manner, *, fits: bool) -> None:
        """Learns to tell the schema in words, if the server has taken the schema and its answer does not fit it."""
        if manner.format == SCHEMA and not manner.told and not fits:
            self.manners.learn(self.about, {"told": True})

    def refused(self, refusal: Refusal) -> bool:
        """Changes the manner after a refusal. Returns whether the request is to be sent again."""
        why = refusal.why
        if why is Why.OUTPUT:
            return self._lower(refusal)
        if why in OF_MANNER and self._step(refusal):
            return True
        if why is Why.TOO_MANY and self.pictures > 1:
            most = most_pictures(refusal.said)
            self.at_most = min(most or self.pictures // 2, self.pictures - 1)
            if most:
                self.manners.learn_pictures(self.model, most)
            self._keep()
        elif why is Why.TOO_LONG and self.pictures > 1:
            self._cut_to_fit(refusal)
            self._keep()
        elif why is Why.OPEN or why in OF_MANNER:
            return self._doubt()
        else:
            self._keep()
        return False

    def faulted(self) -> bool:
        """Another manner is tried after a second HTTP 500 for a kind of call that was never answered."""
        if self.manner.format == WORDS or self.manners.was_answered(self.kind):
            return False
        if self.doubted:
            return self._doubt()
        usual = self.manner
        doubts = self.manners.count_fault(self.kind) > 1 and self._doubt()
        self.usual = usual if doubts else None
        return doubts

    def usual_again(self, usual: Manner) -> Manner:
        """The usual manner, with what the server has said by words since."""
        if self.manner == self.manner.plainest():
            return usual
        output = MAX_OUTPUT_TOKENS if self.guessed else self.manner.output
        return replace(self.manner, formats=usual.formats, output=output)

    def cut_short(self) -> bool:
        """After an answer that reached the output limit: whether the request is to be sent again with the usual limit.

        The limit was guessed from other calls, and this one may leave more room.
        """
        again = self.guessed and self.manner.output < MAX_OUTPUT_TOKENS
        self.guessed = False
        if again:
            self.manner = replace(self.manner, output=MAX_OUTPUT_TOKENS)
        return again

    def _step(self, refusal: Refusal) -> bool:
        manner, why = self.manner, refusal.why
        if why in (Why.SCHEMA, Why.FORMAT) and len(manner.formats) > 1:
            lesson = self.of_kind if why is Why.SCHEMA else self.of_server
            lesson.setdefault("without", []).append(manner.format)
            self.manner = replace(manner, formats=manner.formats[1:])
        elif why is Why.LIMIT_NAME and manner.limit:
            self._set(limit="max_completion_tokens" if manner.limit == "max_tokens" else "")
        elif why is Why.SYSTEM and manner.system:
            self._set(system=False)
        elif why is Why.DETAIL and manner.detail:
            self._set(detail=False)
        elif why is Why.STREAM and manner.stream is not None:
            wanted = manner.stream is False and "only" in refusal.said.lower()
            self._set(stream=True if wanted else None)
        else:
            return False
        return True

    def _set(self, **changes: Any) -> None:
        self.of_server |= changes
        self.manner = replace(self.manner, **changes)

    def _lower(self, refusal: Refusal) -> bool:
        """Lowers the output limit to what the call leaves of the context. If the words name no number, it is halved, then left out."""
        manner = self.manner
        if not manner.limit:
            return self._doubt()
        self.lowered += 1
        if self.lowered > MOST_LOWERED:
            self._set(limit="")
            return True
        said = room(refusal.said, manner.output)
        if said.context is not None and said.input is not None:
            self.guessed = False
            left = said.context - said.input
            if left < (LEAST_OUTPUT if self.pictures > 1 else 16):
                self._cut_to_fit(refusal)
                self._keep()
                return False
            self.of_server |= {"context": said.context, "each": -(-said.input // max(self.pictures, 1))}
            lower = min(left, manner.output - 1)
        else:
            lower = said.output or (said.context or manner.output) // 2
            lower = min(lower, manner.output - 1)
            if lower < LEAST_OUTPUT or (said.output is None and manner.output <= MAX_OUTPUT_TOKENS // 4):
                self._set(limit="")
                return True
            self.of_server |= {"output": lower}
        self.manner = replace(manner, output=lower)
        return True

    def _cut_to_fit(self, refusal: Refusal) -> None:
        """Counts the pictures that fit into the context, if the words say how large it is. Otherwise, half of them."""
        if self.pictures < 2:
            return
        said = room(refusal.said, self.manner.output)
        fit = self.pictures // 2
        if said.context and said.input and said.input > 0:
            fit = (said.context - ENOUGH_OUTPUT) * self.pictures // said.input
        self.at_most = max(min(fit, self.pictures - 1), 1)

    def _doubt(self) -> bool:
        """Tries the next manner, although the words do not ask for it. Returns False if none is left, or none may be tried."""
        manner = self.manner
        if not self.doubted:
            answered = self.manners.was_answered(self.kind)
            if answered or manner == manner.plainest() or not self.manners.may_doubt(self.kind, self.pictures):
                self._keep()
                return False
            self._keep()
            self.doubted = True
        if len(manner.formats) > 1:
            self.of_kind.setdefault("without", []).append(manner.format)
            self.manner = replace(manner, formats=manner.formats[1:])
            return True
        plainest = manner.plainest()
        if plainest == manner or self.manners.was_answered(self.about):
            return False
        self._set(limit="", system=False, detail=False, stream=None)
        return True

    def _keep(self) -> None:
        """Learns what the server has said so far, although this call is not answered."""
        if self.doubted:
            return  # what was tried on suspicion is learnt only from an answer
        if self.of_server:
            self.manners.learn(self.about, self.of_server)
        if self.of_kind:
            self.manners.learn(self.kind, self.of_kind)
        self.of_server, self.of_kind = {}, {}
