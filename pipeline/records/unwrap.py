"""Takes the answer out of what a model wraps around it: thoughts, code fences, sentences, other keys. Pure.

Models and their servers wrap answers in many ways. A wrapping changes nothing about the answer, so it is removed. What is left
must be exactly one JSON document. Nothing is repaired, joined or guessed: if a document is cut off, or two different documents
stand in one text, the text counts as malformed and the model is asked again. A record belongs to the image whose label it
names. Its position never matters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.merge import MalformedJson, dump_json, parse_json

Fits = Callable[[Any], bool]  #: whether a value is valid against the schema of the results

_NAMES = r"think|thinking|thoughts?|thought_process|reasoning|reflection|scratchpad"
_OPENS = rf"(?:<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>)"
_CLOSES = rf"(?:</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>)"
_BEGINS_WITH_THOUGHTS = re.compile(rf"\s*{_OPENS}", re.IGNORECASE)
_CLOSE = re.compile(_CLOSES, re.IGNORECASE)
#: Marks of chat templates that some servers leave at the ends of a text, such as GLM's box around its final answer.
_MARKS = r"(?:<\|(?:begin_of_box|end_of_box|im_end|eot_id|end|endoftext|end_of_text)\|>|</s>|<end_of_turn>|</?answer>)"
_ENDS = re.compile(rf"\A(?:\s*{_MARKS})+\s*|\s*(?:{_MARKS}\s*)+\Z")
_BRACKET = re.compile(r"[\[\]{}]")
_REMARK = re.compile(r"\[[^\[\]{}\"\n]*\]|\{[^\[\]{}\"\n]*\}")  #: text in brackets, as in "the second [left] column"
_FENCED = re.compile(r"^[ \t]*(```|~~~)[\w+-]*[ \t]*\n(.*?)\n?[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
_LABEL = re.compile(r"\s*(?:image|picture|photo|page|img)?[\s_#-]*(\d{1,6})\s*[:.)]?\s*", re.IGNORECASE)
_MOST_TAGS = 8  #: closing tags at which a text is cut; more of them occur only in malformed texts
_DEEPEST = 3  #: how many objects may lie around the records


def plain_text(text: str) -> str:
    """The text without the thoughts before it. Empty if it has nothing but thoughts."""
    rest = text.removeprefix("\ufeff")
    opened = False
    while begins := _BEGINS_WITH_THOUGHTS.match(rest):
        opened = True
        closes = _CLOSE.search(rest, begins.end())
        if closes is None:
            return ""  # the thoughts never end, so no answer follows them
        rest = rest[closes.end() :]
    if not opened and (closes := _CLOSE.search(rest)):  # some chat templates write the opening tag into the prompt
        rest, opened = rest[closes.end() :], True
    bare = _ENDS.sub("", rest)
    return bare.strip() if opened else bare


def document_in(text: str, *, records: bool = False) -> Any:
    """The one JSON document of a text, as a Python value. `records`: lists without objects are remarks and no documents.

    Raises MalformedJson if there is none, if it is cut off or not strict JSON, or if there are two different ones.
    """
    value, _ = _document(text, records=records)
    return value


def json_text(text: str) -> str:
    """The one JSON document of a text, as the model wrote it. Raises MalformedJson as `document_in` does."""
    _, written = _document(text, records=False)
    return written


def _document(text: str, *, records: bool) -> tuple[Any, str]:
    rest = text.strip().removeprefix("\ufeff")
    for _ in range(_MOST_TAGS):
        fault: MalformedJson | None = None
        found: list[_Found] = []
        try:
            return _whole(rest)
        except MalformedJson:
            pass
        try:
            found = _documents(rest)
        except MalformedJson as error:
            fault = error
        # What stands before a closing tag are thoughts, also where the opening tag is missing.
        outside = (mark for mark in _CLOSE.finditer(rest) if not any(one.start <= mark.start() < one.end for one in found))
        closes = next(outside, None)
        if closes is None:
            if fault:
                raise fault
            return _only(rest, found, records=records)
        rest = rest[closes.end() :]
    raise MalformedJson("too many closing tags of thoughts")


def _whole(text: str) -> tuple[Any, str]:
    """The document that the text is, with a code fence around it or encoded twice, or neither."""
    value = parse_json(text)
    inner = _decoded(value)
    return (value, text) if inner is value else (inner, value)


def records_in(document: Any, *, labels: Sequence[int], fits: Fits | None = None, json_mode: bool = True) -> Any:
    """The records of a document, as a list of {"index", "result"}. If it has none, the document as it is.

    `labels`: the numbers of the call's pictures. `fits`: checks a result; None if results have no schema. `json_mode`: results
    are JSON and not texts.
    """
    reader = _Records(frozenset(labels), fits, json_mode)
    found = reader.within(document, 0)
    if found is None and len(labels) == 1:
        found = reader.alone(document, labels[0])
    return document if found is None else found


class _Records:
    """Finds the records in a document."""

    def __init__(self, labels: frozenset[int], fits: Fits | None, json_mode: bool) -> None:  # noqa: FBT001 - see records_in
        self._labels = labels
        self._fits = fits
        self._json_mode = json_mode

    def within(self, value: Any, depth: int) -> list[Any] | None:
        """The only list of records in `value`. None if there is none, or more than one."""
        value = _decoded(value)
        if isinstance(value, list):
            entries = [self._record(entry) for entry in value]
            return entries if any(map(_is_record, entries)) or (depth and not value) else None
        if not isinstance(value, dict) or depth > _DEEPEST:
            return None
        if _is_record(record := self._record(value)):
            return [record]
        if value and all(isinstance(key, str) and _label(key) in self._labels for key in value):
            return [self._named(_label(key), inner) for key, inner in value.items()]
        if isinstance(value.get("records"), list):
            return self.within(value["records"], depth + 1) or value["records"]
        inner = [found for part in value.values() if (found := self.within(part, depth + 1)) is not None]
        full = [found for found in inner if found]
        return full[0] if len(full) == 1 else inner[0] if len(inner) == 1 and len(value) == 1 else None

    def alone(self, document: Any, label: int) -> list[Any] | None:
        """The record of the only picture of a call, from an answer that names no label. None if the answer holds none."""
        value = _decoded(document)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, dict) or "index" in value or "records" in value:
            return None
        options = [value, *(value.values() if len(value) == 1 else ())]
        if self._fits:
            return next(([{"index": label, "result": one}] for one in options if self._fits(one)), None)
        if set(value) == {"result"}:
            return [{"index": label, "result": value["result"]}]
        return [{"index": label, "result": value}] if self._json_mode else None

    def _named(self, label: int | None, inner: Any) -> dict[str, Any]:
        """The record of a result that stands under its label as a key."""
        if isinstance(inner, dict) and "result" in inner and _label(inner.get("index", label)) == label:
            return {"index": label, "result": self._result(inner["result"])}
        return {"index": label, "result": self._result(inner)}

    def _record(self, entry: Any) -> Any:
        """The entry as a record {"index", "result"}. An entry that is none comes back as it is."""
        if not isinstance(entry, dict) or (label := _label(entry.get("index"))) is None:
            return entry
        if "result" in entry:
            return {**entry, "index": label, "result": self._result(entry["result"])}
        rest = {name: value for name, value in entry.items() if name != "index"}
        if self._fits:
            return {"index": label, "result": rest} if rest and self._fits(rest) else {**entry, "index": label}
        if self._json_mode:
            return {"index": label, "result": rest} if rest else {**entry, "index": label}
        texts = [value for value in rest.values() if isinstance(value, str)]
        return {"index": label, "result": texts[0]} if len(texts) == len(rest) == 1 else {**entry, "index": label}

    def _result(self, result: Any) -> Any:
        """A result that was encoded twice is decoded, if the schema accepts it only then."""
        if not (isinstance(result, str) and self._fits) or self._fits(result):
            return result
        inner = _decoded(result)
        return inner if self._fits(inner) else result


def _is_record(entry: Any) -> bool:
    return isinstance(entry, dict) and "index" in entry and type(entry["index"]) is int


def _label(value: Any) -> int | None:
    """The number of a label: 3, 3.0, "3" or "Image 3". None if it is no label."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    found = _LABEL.fullmatch(value) if isinstance(value, str) else None
    return int(found[1]) if found else None


def _decoded(value: Any) -> Any:
    """The object or list that a JSON text holds as a text. Any other value comes back as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return parse_json(value)
        except MalformedJson:
            return value
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A document in a text."""

    start: int
    end: int
    value: Any
    written: str  #: as the model wrote it


def _only(text: str, found: list[_Found], *, records: bool) -> tuple[Any, str]:
    """The only document. Raises MalformedJson if there is none, or another one."""
    rivals = [one for one in found if not (records and isinstance(one.value, list) and not _holds_objects(one.value))]
    distinct = {dump_json(one.value): one for one in rivals}
    if len(distinct) == 1:
        only = next(iter(distinct.values()))
        return only.value, only.written
    fenced = _FENCED.findall(text)
    if not distinct and len(fenced) == 1:
        return _whole(fenced[0][1])
    raise MalformedJson(f"{len(distinct)} JSON documents stand in the text")


def _holds_objects(values: list[Any]) -> bool:
    return any(isinstance(value, dict) for value in values)


def _documents(text: str) -> list[_Found]:
    """Each object and list in a text. Raises MalformedJson if one of them is not whole."""
    found: list[_Found] = []
    at = 0
    while bracket := _BRACKET.search(text, at):
        start = bracket.start()
        try:
            document = _quoted(text, start) or _plain(text, start)
            dump_json(document.value).encode()
        except (ValueError, RecursionError) as error:
            remark = _REMARK.match(text, start)
            if remark is None:
                raise MalformedJson(str(error)) from None
            at = remark.end()
        else:
            found.append(document)
            at = document.end
    return found


def _plain(text: str, start: int) -> _Found:
    value, end = _DECODER.raw_decode(text, start)
    return _Found(start=start, end=end, value=value, written=text[start:end])


def _quoted(text: str, start: int) -> _Found | None:
    """The document that was encoded twice, if its opening quote stands before `start`."""
    if text[start - 1 : start] != '"':
        return None
    try:
        quoted, end = _DECODER.raw_decode(text, start - 1)
    except ValueError:
        return None
    value = _decoded(quoted)
    return None if isinstance(value, str) else _Found(start=start, end=end, value=value, written=quoted)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
