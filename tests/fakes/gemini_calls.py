"""The fake's records of calls, and how it finds the prompt, the labels and the pictures of a call."""

from __future__ import annotations

import json as json_
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .gemini_contract import Part

Form = Literal["text", "json", "records"]
LABEL = re.compile(r"\s*Image (\d+):\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One picture of a call, as the fake sees it."""

    mime: str  #: the declared type
    sha256: str  #: SHA-256 of the file's bytes, in hex
    number: int | None  #: the number that the picture carries (gemini_pictures)
    fault: str = ""  #: why the picture does not decode as its declared type


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenCall:
    """One generateContent request that obeyed the contract. The fields with one value for each picture are in the order sent."""

    order: int  #: order of arrival, from 0
    at: float  #: time.monotonic() when the last byte was read
    model: str
    prompt: tuple[str, ...]  #: all texts except the labels, the system instruction first
    labels: tuple[int | None, ...]  #: None: a picture without a label
    numbers: tuple[int | None, ...]  #: None: not a numbered picture
    sha256s: tuple[str, ...]
    mimes: tuple[str, ...]
    by_file: tuple[bool, ...]  #: whether the picture was sent through the Files API
    form: Form  #: the requested form of the answer
    schema: Any  #: responseSchema or responseJsonSchema, as sent
    max_output_tokens: int | None
    store: bool | None = None  #: whether Google may store the request; None: not set
    thinking: str | None = None  #: thinkingLevel; None: the model's default
    levels: tuple[str | None, ...] = ()  #: mediaResolution of each picture's part; None: not set
    tier: str = "standard"  #: the tier that the call asked for, by its vendor's name
    served: str = ""  #: the tier in which it was served; "" until it is known, and if it was shed
    server_timeout: float | None  #: seconds, the X-Server-Timeout header
    body_bytes: int
    outcome: str = ""  #: a gemini_replies.Outcome or "http <status>"; "" until it is known
    ended: float = 0.0  #: time.monotonic() when the answer was ready


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The prompt and the labels in a call's parts."""

    prompt: tuple[str, ...]
    labels: tuple[int | None, ...]  #: one for each picture
    faults: tuple[str, ...]  #: violations of the protocol, which wants a label before each picture and each label once


def read_layout(parts: Sequence[Part], system: str) -> Layout:
    """Reads a call's parts. A text is a label if it is `Image <k>:` and a picture follows. All other texts are the prompt."""
    prompt: list[str] = [system] if system else []
    labels: list[int | None] = []
    faults: list[str] = []
    before: int | None = None  # the label of the next picture
    for i, part in enumerate(parts):
        if part.text is None:
            labels.append(before)
            if before is None:
                faults.append(f"picture {len(labels)} of the call has no label")
            before = None
            continue
        found = LABEL.fullmatch(part.text)
        if found and i + 1 < len(parts) and parts[i + 1].text is None:
            before = int(found[1])
            continue
        if found and labels:
            faults.append(f"label {found[1]} has no picture")
        prompt.append(part.text)
    known = [label for label in labels if label is not None]
    faults += [f"label {label} is used {known.count(label)} times" for label in sorted(set(known)) if known.count(label) > 1]
    faults += [f"label {label} is not counted from 1" for label in known if label < 1]
    if not any(text.strip() for text in prompt):
        faults.append("the call has no prompt")
    return Layout(prompt=tuple(prompt), labels=tuple(labels), faults=tuple(faults))


def told_schema(prompt: Sequence[str]) -> Any:
    """The schema of the answer that the words of a prompt tell. None if they tell none."""
    told = re.search(r"Answer with JSON alone, valid against this JSON Schema:\n(\{.*)", "\n".join(prompt), re.DOTALL)
    return json_.JSONDecoder().raw_decode(told[1])[0] if told else None


def form_of(schema: Any, *, json: bool) -> Form:
    """The requested form of the answer. It is `records` only if the schema is an array of objects with "index"."""
    if not json:
        return "text"
    if not isinstance(schema, dict) or str(schema.get("type")).lower() != "array":
        return "json"
    items = resolved(schema.get("items"), schema)
    return "records" if "index" in items.get("properties", {}) else "json"


def resolved(schema: Any, root: Any) -> dict[str, Any]:
    """Follows a local $ref (#/$defs/Name). Gives {} if the schema is not an object."""
    for _ in range(8):  # the fake follows at most this many references
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        target = root
        for name in schema["$ref"].removeprefix("#").strip("/").split("/"):
            target = target.get(name, {}) if isinstance(target, dict) and name else target
        schema = target
    return schema if isinstance(schema, dict) else {}
