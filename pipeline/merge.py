"""Merges the replies of a job's chunks into its result. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from pipeline.numbers import read_json, write_json
from pipeline.types import Form, MergeMode, Reply

_FENCE = re.compile(r"\A\s*```[a-zA-Z0-9]*[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)


class MalformedJson(ValueError):
    """The text is not one JSON document."""


def parse_json(text: str) -> Any:
    """The JSON document that a model answered with. Removes one code fence around the whole text, and repairs nothing.

    Numbers keep their digits (`pipeline/numbers.py`).

    Raises MalformedJson for anything that a strict parser refuses (NaN, truncated documents, text around the document), and for
    characters that can't be encoded (lone surrogates).
    """
    fenced = _FENCE.match(text)
    try:
        value = read_json(fenced[1] if fenced else text, parse_constant=_refuse_constant)
        dump_json(value).encode()
    except (ValueError, RecursionError) as error:
        raise MalformedJson(str(error)) from None
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def dump_json(value: Any) -> str:
    """The JSON text for results: compact, keys in the document's order, not ASCII-escaped."""
    return write_json(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def merge(replies: Sequence[Reply], form: Form, mode: MergeMode = "auto") -> str:
    """The `results` string of a job: its replies, merged in image order. It is empty if there are no replies.

    TEXT: a single reply is unchanged. Each of several replies gets the heading `Images a to b` (from 1, like the labels of the
    pictures). JSON: a single document is unchanged. Several are merged by `merge_documents`; with `concat` they become one array,
    and the elements of documents that are arrays are put into it. RECORDS: one JSON array, sorted by index.
    """
    ordered = sorted(replies, key=lambda reply: reply.indexes)
    if form is Form.RECORDS:
        return dump_json([{"index": reply.indexes[0], "result": reply.result} for reply in ordered])
    if form is Form.JSON:
        documents = [parse_json(reply.text) for reply in ordered]
        if mode == "concat" and len(documents) > 1:
            return dump_json([item for value in documents for item in (value if isinstance(value, list) else [value])])
        return dump_json(merge_documents(documents)) if documents else ""
    if len(ordered) == 1:
        return ordered[0].text
    return "\n\n".join(f"{heading(reply.indexes)}\n{reply.text}".rstrip() for reply in ordered)


def heading(indexes: Sequence[int]) -> str:
    """The line above one of several texts. It names the text's images, from 1, as in `Images 4 to 9`.

    If some of them failed or were answered in another call, it is `Images 4 to 6, 9`.
    """
    runs: list[list[int]] = []
    for number in (index + 1 for index in indexes):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    named = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
    return f"Images {named}" if len(indexes) > 1 else f"Image {named}"


def merge_documents(values: Sequence[Any]) -> Any:
    """Merges several documents into one, in order. All are merged at once, so that the result does not depend on grouping.

    Arrays are concatenated. If only some values are arrays, the other values become elements too. Objects are merged key by key.
    `null` is dropped if there is any other value. Different values become an array without repetitions.
    """
    present = [value for value in values if value is not None]
    if not present:
        return None
    if all(isinstance(value, dict) for value in present):
        keys = list(dict.fromkeys(key for value in present for key in value))
        return {key: merge_documents([value[key] for value in present if key in value]) for key in keys}
    if any(isinstance(value, list) for value in present):
        return [item for value in present for item in (value if isinstance(value, list) else [value])]
    distinct: list[Any] = []
    seen: set[str] = set()
    for value in present:
        # 1, 1.0 and true are equal in Python, not in JSON. 12.50 and 12.5 are one value, and the first one is kept.
        written = dump_json(float(value) if isinstance(value, Decimal) else value)
        if written not in seen:
            seen.add(written)
            distinct.append(value)
    return distinct[0] if len(distinct) == 1 else distinct
